"""Trainings that begin with the weights of another."""

import pytest
import torch
from equality import same
from whole_runs import config, weights

from ffcv_imagenet.experiment import train
from ffcv_imagenet.models import build_model
from ffcv_imagenet.run.weights import load_weights

SHORT = {"training.epochs": 1, "lr.peak_epoch": "none", "resolution.end_ramp": 0}


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(config(digits, folder, **SHORT))
    return folder


def test_the_backbone_is_fine_tuned_with_a_new_head_and_frozen_parts(trained, digits, tmp_path, capsys):
    options = {
        "model.weights": str(trained / "runs" / "run"),
        "model.head": "new",
        "model.frozen": "conv1,bn1,layer1",
        "training.optimizer": "adamw",
        "training.weight_decay": 0.05,
        "training.clip_norm": 1.0,
        "training.head_lr": 10,
        "training.layer_decay": 0.8,
        "lr.lr": 1e-3,
    }
    train(config(digits, tmp_path, **(options | SHORT)))
    assert "fc.weight, fc.bias new" in capsys.readouterr().out
    before, after = weights(trained, "run", 1), weights(tmp_path, "run", 1)
    frozen = [name for name in before if name.startswith(("conv1", "bn1", "layer1"))]
    assert same([before[name] for name in frozen], [after[name] for name in frozen])
    assert not any(torch.equal(before[name], after[name]) for name in before if "layer4" in name)


def test_a_step_is_no_longer_than_its_learning_rate_times_the_norm_that_is_allowed(trained, digits, tmp_path):
    options = {
        "model.weights": str(trained / "runs" / "run"),
        "training.momentum": 0,
        "training.weight_decay": 0,
        "training.clip_norm": 1e-3,
        "training.max_steps": 1,
        "lr.schedule": "step",
        "lr.lr": 0.5,
        "lr.peak_epoch": "none",
    }
    train(config(digits, tmp_path, **(SHORT | options)))
    before, after = weights(trained, "run", 1), weights(tmp_path, "run", 1)
    parameters = dict(build_model("toy_model:Small", 3).named_parameters())
    change = torch.cat([(after[name] - before[name]).double().flatten() for name in parameters])
    assert change.norm().item() == pytest.approx(0.5e-3, rel=1e-3)


def test_weights_of_another_number_of_classes_are_refused_with_what_helps(digits, tmp_path):
    torch.save(build_model("toy_model:Small", 5).state_dict(), tmp_path / "five.pt")
    with pytest.raises(ValueError, match=r"five.pt: fc.weight is of 5 classes, allowed are 3; --model.head=new begins"):
        train(config(digits, tmp_path, **{"model.weights": str(tmp_path / "five.pt")}))


def test_a_new_head_may_have_other_parameters_than_that_of_the_weights(trained, digits, tmp_path, capsys):
    options = SHORT | {"model.weights": str(trained / "runs" / "run"), "loss.name": "ldam", "training.head_lr": 10}
    with pytest.raises(ValueError, match=r'does not fit the model: .* Unexpected key.* "fc.bias"'):
        train(config(digits, tmp_path, **options))
    train(config(digits, tmp_path / "ldam", **options, **{"model.head": "new"}))
    assert ", fc.weight new" in capsys.readouterr().out
    options = SHORT | {"model.weights": str(tmp_path / "ldam" / "runs" / "run"), "model.head": "new"}
    train(config(digits, tmp_path / "baseline", **options))
    assert ", fc.weight, fc.bias new" in capsys.readouterr().out


def test_an_order_of_other_classes_than_the_heads_is_refused(tmp_path):
    ours, head = build_model("resnet10", 3), ["fc.weight", "fc.bias"]
    for classes in (2, 5):
        torch.save(build_model("resnet10", classes).state_dict(), tmp_path / "theirs.pth")
        told = rf"fc.weight is of {classes} classes, allowed with model.class_order are 3"
        with pytest.raises(ValueError, match=told):
            load_weights(ours, tmp_path / "theirs.pth", head=head, rows=[2, 0, 1])


def test_a_head_in_another_order_of_classes_and_an_average_are_loaded(tmp_path):
    one, other, ours = (build_model("resnet10", 3) for _ in range(3))
    torch.save({"model": one.state_dict(), "model_ema": other.state_dict()}, tmp_path / "theirs.pth")
    told = load_weights(ours, tmp_path / "theirs.pth", average=True, head=["fc.weight", "fc.bias"], rows=[2, 0, 1])
    assert "classes reordered" in told
    assert torch.equal(ours.conv1.weight, other.conv1.weight)
    assert torch.equal(ours.fc.weight, other.fc.weight[[2, 0, 1]])
    assert torch.equal(ours.fc.bias, other.fc.bias[[2, 0, 1]])


@pytest.mark.parametrize(
    ("arch", "name"), [("timm/vit_tiny_patch16_224", "pos_embed"), ("vit_b_16", "encoder.pos_embedding")]
)
def test_position_embeddings_are_resized_on_request(tmp_path, arch, name):
    if arch == "vit_b_16":
        small, large = (torch.nn.Module() for _ in range(2))
        for model, side in ((small, 2), (large, 4)):
            model.encoder = torch.nn.Module()
            model.encoder.pos_embedding = torch.nn.Parameter(torch.randn(1, 1 + side**2, 8))
    else:
        small, large = (build_model(arch, 3, image_size=size) for size in (32, 64))
    torch.save(small.state_dict(), tmp_path / "small.pt")
    with pytest.raises(ValueError, match=rf"does not fit .*: {name} is for images .*; --model.positions=resize"):
        load_weights(large, tmp_path / "small.pt")
    assert f"{name} resized" in load_weights(large, tmp_path / "small.pt", resize=True)
    before, after = small.state_dict()[name], large.state_dict()[name]
    assert torch.equal(after[:, 0], before[:, 0])
    patches = before[0, 1:].T.reshape(-1, 2, 2)[None]
    expected = torch.nn.functional.interpolate(patches, (4, 4), mode="bicubic", align_corners=False)
    torch.testing.assert_close(after[0, 1:], expected[0].flatten(1).T)


def test_what_is_said_of_weights_needs_weights(digits, tmp_path):
    for key, value in (("head", "new"), ("average", 1), ("positions", "resize"), ("class_order", "names.txt")):
        with pytest.raises(ValueError, match=rf"model.{key}: got .*, allowed without model.weights is"):
            config(digits, tmp_path, **{f"model.{key}": value})
    with pytest.raises(ValueError, match=r"training.on_nonfinite: got skip, allowed .*=lamb is fail"):
        config(digits, tmp_path, **{"training.optimizer": "lamb", "training.on_nonfinite": "skip"})
