import pytest
import torch
import torchvision
from torch import nn

from ffcv_imagenet.models import (
    BlurPoolConv2d,
    CosineHead,
    build_model,
    check_model,
    check_normalised_batch,
    classify_locally,
    list_archs,
)
from ffcv_imagenet.optimizers import SGD
from ffcv_imagenet.run.checkpoint import CheckpointFolder
from ffcv_imagenet.run.weights import load_weights
from ffcv_imagenet.train.optim import parameter_groups, set_lr


@pytest.mark.parametrize("arch", ["resnet10", "resnet18", "resnet50", "mobilenet_v2", "googlenet", "convnext_tiny"])
def test_output_has_one_logit_per_class_also_in_training(arch):
    with torch.device("meta"):
        model = build_model(arch, 7)
        assert model.train()(torch.empty(2, 3, 224, 224)).shape == (2, 7)


def test_unknown_arch_is_refused_with_similar_names():
    with pytest.raises(ValueError, match=r"model.arch: got 'resnet49', .*resnet50"):
        build_model("resnet49", 10)


def test_every_listed_arch_is_a_classification_model():
    names = list_archs()
    assert {"resnet10", "resnet50", "mobilenet_v2"} <= set(names)
    assert "fasterrcnn_resnet50_fpn" not in names


def test_a_resolution_that_the_model_cannot_take_is_refused():
    check_model("resnet18", 10, {32, 224})
    with pytest.raises(ValueError, match="vit_b_16 cannot take images of 160 x 160"):
        check_model("vit_b_16", 10, {160, 224})


@pytest.mark.parametrize(("arch", "side"), [("resnet10", 64), ("mobilenet_v2", 64)])
def test_locations_are_classified_and_the_logits_are_the_models(arch, side):
    model = build_model(arch, 7, blurpool=arch == "resnet10").train()
    images, maps = torch.randn(4, 3, side, side), []
    last = model.layer4 if arch == "resnet10" else model.features
    last.register_forward_hook(lambda module, inputs, output: maps.append(output))
    torch.manual_seed(0)  # of the dropout
    expected = model(images)
    torch.manual_seed(0)
    logits, local = classify_locally(model, images)
    assert torch.equal(logits, expected)
    head = model.fc if arch == "resnet10" else model.classifier[1]
    everywhere = nn.functional.conv2d(maps[0], head.weight[:, :, None, None], head.bias)
    torch.testing.assert_close(everywhere.argmax(1).flatten(1), local)
    assert local.shape == (4, 4)
    assert not local.requires_grad


def test_a_model_without_a_map_of_features_or_a_linear_head_is_refused():
    check_model("resnet18", 10, {32}, feature_map=True, linear_head=True)
    check_model("mobilenet_v2", 10, {32}, feature_map=True)
    with pytest.raises(ValueError, match=r"model.arch: got vgg11, allowed .* --loss.ranking=logits"):
        check_model("vgg11", 10, {32}, feature_map=True)
    with pytest.raises(ValueError, match=r"model.arch: got squeezenet1_1, allowed .* last layer is linear"):
        check_model("squeezenet1_1", 10, {64}, linear_head=True)


@pytest.mark.parametrize("arch", ["resnet10", "mobilenet_v2", "vit_b_16", "densenet121"])
def test_a_cosine_head_takes_the_last_layers_place(arch):
    with torch.device("meta"):
        model = build_model(arch, 7, cosine_scale=30.0)
        names = {name for name, _ in build_model(arch, 7).named_parameters()}
    (head,) = [name for name, module in model.named_modules() if isinstance(module, CosineHead)]
    assert names - {name for name, _ in model.named_parameters()} == {f"{head}.bias"}


def test_a_cosine_head_gives_cosines_also_under_autocast():
    linear, x = nn.Linear(5, 3), torch.randn(4, 5)
    head = CosineHead(linear, 30.0)
    expected = torch.stack([30 * torch.cosine_similarity(x, row[None]) for row in linear.weight], dim=1)
    torch.testing.assert_close(head(x), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(x), head(x).float())
        torch.testing.assert_close(head(x), expected)
    assert torch.autograd.gradcheck(head.double(), x.double().requires_grad_())


def test_batch_normalisation_of_a_single_value_is_refused():
    for images, side in ((2, 32), (1, 64)):
        check_normalised_batch("resnet10", 3, side, images)
    check_normalised_batch("squeezenet1_1", 3, 32, 1)
    with pytest.raises(ValueError, match=r"one image .* model.arch=resnet10 at 32 x 32 .* larger training.batch_size"):
        check_normalised_batch("resnet10", 3, 32, 1)


@pytest.mark.parametrize("height", [9, 10])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 1, "stride": 2},  # blurred at stride 2
        {"kernel_size": 1, "stride": (2, 3), "groups": 4, "bias": False},
        {"kernel_size": 1, "stride": 2, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": "valid", "dilation": 2},
    ],
)
def test_blurpool_is_the_convolution_of_the_blurred_input(options, height):
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 8, **options)
    x = torch.randn(2, 16, height, 11)
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    rows = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    blurred = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    torch.testing.assert_close(BlurPoolConv2d(conv)(x), conv(blurred))


def test_blurpool_goes_where_stride_is_above_1_and_inputs_are_16_or_more():
    model = build_model("resnet50", 10, blurpool=True)
    blurred = {name: m.conv for name, m in model.named_modules() if isinstance(m, BlurPoolConv2d)}
    strided = {
        name: m
        for name, m in build_model("resnet50", 10).named_modules()
        if isinstance(m, nn.Conv2d) and max(m.stride) > 1
    }
    assert set(strided) - set(blurred) == {"conv1"}
    assert len(blurred) == 6
    assert all(max(conv.stride) == 2 for conv in blurred.values())


def test_blurpool_changes_no_parameter_count():
    def count(model):
        return sum(p.numel() for p in model.parameters())

    assert count(build_model("resnet18", 10, blurpool=True)) == count(build_model("resnet18", 10))


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
def test_weights_come_back_from_a_file(tmp_path, wrap):
    model, other = build_model("resnet10", 3), build_model("resnet10", 3)
    torch.save(wrap(model.state_dict()), tmp_path / "weights.pt")
    load_weights(other, tmp_path / "weights.pt")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


class FFCVBlurPool(nn.Module):
    """Blur pooling with the parameters and buffers of libffcv/ffcv-imagenet's."""

    def __init__(self, conv, row=(1.0, 2.0, 1.0)):
        super().__init__()
        kernel = torch.outer(torch.tensor(row), torch.tensor(row)) / sum(row) ** 2
        self.conv = conv
        self.register_buffer("blur_filter", kernel.repeat(conv.in_channels, 1, 1, 1))

    def forward(self, x):
        return self.conv(nn.functional.conv2d(x, self.blur_filter, padding=1, groups=self.conv.in_channels))


def ffcv_weights(tmp_path, row=(1.0, 2.0, 1.0)):
    """A ResNet-18 and the file that libffcv/ffcv-imagenet makes of it."""
    model = torchvision.models.resnet18(num_classes=5)
    for layer in (model.layer2, model.layer3, model.layer4):
        layer[0].conv1 = FFCVBlurPool(layer[0].conv1, row)
        layer[0].downsample[0] = FFCVBlurPool(layer[0].downsample[0], row)
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))  # so that there are statistics
    file = tmp_path / "final_weights.pt"
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, file)
    return model.double().eval(), file


def test_weights_of_ffcv_imagenet_give_its_logits(tmp_path):
    theirs, file = ffcv_weights(tmp_path)
    ours = build_model("resnet18", 5, blurpool=True)
    told = load_weights(ours, file)
    tensors = len(ours.state_dict())
    assert told == (
        f"{tensors} tensors loaded from {file}, {tensors + 6} of the file's renamed (without module.), "
        f"6 left out (blur_filter, the same as here)"
    )
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(ours.double().eval()(images), theirs(images), rtol=1e-9, atol=1e-9)


def test_another_blur_filter_and_blur_pooling_in_one_of_file_and_model_are_refused(tmp_path):
    plain, blurred = build_model("resnet18", 5), build_model("resnet18", 5, blurpool=True)
    _, file = ffcv_weights(tmp_path)
    with pytest.raises(ValueError, match=r"has layer\d.0.\S*.conv.weight, .* it needs --model.blurpool=1"):
        load_weights(plain, file)
    torch.save(plain.state_dict(), file)
    with pytest.raises(ValueError, match=r"it needs --model.blurpool=0"):
        load_weights(blurred, file)
    _, file = ffcv_weights(tmp_path, row=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"blur_filter is another blur filter than \[1 2 1\] x \[1 2 1\] / 16"):
        load_weights(blurred, file)


def test_weights_of_another_model_missing_and_damaged_files_are_refused(tmp_path):
    model = build_model("resnet10", 3)
    torch.save(build_model("resnet10", 4).state_dict(), tmp_path / "other.pt")
    (tmp_path / "damaged.pt").write_bytes(b"no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({1: torch.zeros(2)}, tmp_path / "numbers.pt")
    with pytest.raises(ValueError, match=r"other.pt does not fit the model.*fc"):
        load_weights(model, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"damaged.pt is not a file of weights"):
        load_weights(model, tmp_path / "damaged.pt")
    with pytest.raises(ValueError, match=r"list.pt holds list"):
        load_weights(model, tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"numbers.pt does not fit the model"):
        load_weights(model, tmp_path / "numbers.pt")
    with pytest.raises(FileNotFoundError, match=r"missing.pt"):
        load_weights(model, tmp_path / "missing.pt")


def test_weights_come_from_the_newest_checkpoint_of_a_run_and_another_architecture_is_named(tmp_path):
    model, other = build_model("resnet10", 3), build_model("resnet10", 3)
    params = {"config": {"model.arch": "resnet10"}}
    CheckpointFolder(tmp_path / "checkpoints", 2, params).save({"model": other.state_dict()}, 1)
    CheckpointFolder(tmp_path / "checkpoints", 2, params).save({"model": model.state_dict()}, 2)
    load_weights(other, tmp_path, "resnet10")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    message = r"epoch_0002.pt is a checkpoint of model.arch=resnet10, got model.arch=resnet18$"
    with pytest.raises(ValueError, match=message):
        load_weights(build_model("resnet18", 3), tmp_path, "resnet18")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*empty: allowed is a checkpoint or the folder"):
        load_weights(model, tmp_path / "empty", "resnet10")


@pytest.mark.parametrize("arch", ["resnet18", "convnext_tiny"])
def test_weight_decay_spares_normalisation_layers_and_biases(arch):
    model = build_model(arch, 10)
    decayed, free = parameter_groups(model, 1e-4)
    assert decayed["weight_decay"] == 1e-4
    assert free["weight_decay"] == 0
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.LayerNorm))]
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    expected = {id(p) for m in norms for p in m.parameters()} | {id(p) for p in biases}
    assert {id(p) for p in free["params"]} == expected
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))
    downsample = dict(model.named_modules()).get("layer2.0.downsample.1")
    if downsample is not None:
        assert id(downsample.weight) in expected


@pytest.mark.parametrize(("arch", "more"), [("resnet18", 7), ("resnet50", 9)])
def test_other_rules_of_weight_decay(arch, more):
    model = build_model(arch, 10, blurpool=True)
    (everything,) = parameter_groups(model, 1e-4, "all")
    assert [*map(id, everything["params"])] == [*map(id, model.parameters())]
    assert everything["weight_decay"] == 1e-4
    # ffcv-imagenet goes by names, and those of a shortcut's batch normalisation are downsample.1.
    decayed, free = parameter_groups(model, 1e-4, "libffcv")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in free["params"]} == {name for name in names.values() if "bn" in name}
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    usual = {id(p) for p in parameter_groups(model, 1e-4, "weights")[0]["params"]}
    extra = {names[id(p)] for p in decayed["params"]} - {names[i] for i in usual}
    assert len(extra) == more
    assert extra == {"fc.bias"} | {name for name in names.values() if "downsample.1." in name}


def test_learning_rate_is_set_in_all_groups():
    optimizer = SGD(momentum=0.9).make(parameter_groups(build_model("resnet10", 3), 1e-4))
    set_lr(optimizer, 0.25)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}
