"""Networks for 32 pixels, timm's, and what is done to parts of them."""

import copy

import pytest
import timm
import timm.optim
import torch
from torch import nn

from ffcv_imagenet.models import build_model, check_model, classify_locally, freeze, output_parameters
from ffcv_imagenet.optimizers import OPTIMIZERS
from ffcv_imagenet.train.optim import get_lr, lr_factors, parameter_groups, set_lr


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [
        ("cifar_resnet20", 269_722),
        ("cifar_resnet32", 464_154),
        ("cifar_resnet44", 658_586),
        ("cifar_resnet56", 853_018),
        ("cifar_resnet110", 1_727_962),
        ("cifar_resnet18", 11_173_962),
        ("cifar_resnet50", 23_520_842),
        ("timm/deit_small_patch16_224", 21_669_514),
    ],
)
def test_networks_have_the_published_numbers_of_parameters(arch, parameters):
    """For 10 classes; DeiT-S has 22,050,664 for 1000."""
    with torch.device("meta"):
        assert sum(p.numel() for p in build_model(arch, 10).parameters()) == parameters


def test_the_shortcut_without_parameters_takes_every_second_pixel_and_fills_up_with_zeros():
    model = build_model("cifar_resnet20", 10).eval()
    block = next(m for m in model.features if getattr(m, "stride", 1) == 2)
    nn.init.zeros_(block.bn2.weight)  # then only the shortcut is left
    x = torch.rand(2, 16, 8, 8)
    y = block(x)
    torch.testing.assert_close(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


@pytest.mark.parametrize("arch", ["cifar_resnet9", "cifar_resnet20", "cifar_resnet18"])
def test_their_locations_are_classified_and_the_logits_are_the_models(arch):
    model, images = build_model(arch, 7).eval(), torch.randn(2, 3, 32, 32)
    logits, local = classify_locally(model, images)
    assert torch.equal(logits, model(images))
    assert local.shape == ((2, 64) if arch == "cifar_resnet20" else (2, 16))


def test_timms_networks_are_built_by_name_with_drop_path_and_image_size():
    with torch.device("meta"):
        model = build_model("timm/vit_tiny_patch16_224", 7, drop_path=0.2, image_size=64)
    assert model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)
    check_model("timm/vit_tiny_patch16_224", 7, {64}, image_size=64)
    with pytest.raises(ValueError, match="cannot take images of 64 x 64"):
        check_model("timm/vit_tiny_patch16_224", 7, {64})
    with pytest.raises(ValueError, match=r"model.arch: got 'timm/resnet51', .* timm/resnet50"):
        build_model("timm/resnet51", 7)


def test_torchvisions_networks_take_drop_path_and_image_size_where_they_have_them():
    with torch.device("meta"):
        assert build_model("vit_b_16", 7, image_size=64).image_size == 64
        probabilities = [
            m.p
            for m in build_model("convnext_tiny", 7, drop_path=0.3).modules()
            if type(m).__name__ == "StochasticDepth"
        ]
        assert max(probabilities) == pytest.approx(0.3)
        with pytest.raises(ValueError, match=r"model.drop_path=0.1: model.arch=resnet18 does not take that"):
            build_model("resnet18", 7, drop_path=0.1)
        with pytest.raises(ValueError, match=r"model.image_size=64: model.arch=resnet10 does not take that"):
            build_model("resnet10", 7, image_size=64)


def test_an_image_size_that_a_network_cannot_be_built_for_is_refused_with_its_reason():
    told = r"model.image_size=100: model.arch=vit_b_16 does not take that: Input shape indivisible by patch size!"
    with pytest.raises(ValueError, match=told):
        check_model("vit_b_16", 7, {100}, image_size=100)


@pytest.mark.parametrize("arch", ["vit_b_16", "timm/vit_tiny_patch16_224"])
def test_images_of_another_size_are_refused_with_the_option_that_helps(arch):
    with pytest.raises(ValueError, match=r"cannot take images of 64 x 64 pixels: .*; --model.image_size=64 does"):
        check_model(arch, 7, {64})
    with pytest.raises(ValueError, match=r"cannot take images of 64 x 64 pixels: [^;]*$"):
        check_model(arch, 7, {64, 96})


def refuses(num_classes):
    class Refuses(torch.nn.Module):
        def forward(self, x):
            raise AssertionError

    return Refuses()


def test_a_network_that_refuses_images_without_a_reason_is_told():
    with pytest.raises(
        ValueError, match=rf"model.arch={__name__}:refuses cannot take images of 8 x 8 pixels: AssertionError"
    ):
        check_model(f"{__name__}:refuses", 7, {8})


def names_of(model, groups):
    names = {id(p): name for name, p in model.named_parameters()}
    return [{names[id(p)] for p in group["params"]} for group in groups]


def test_transformers_are_decayed_as_timm_does_it():
    model = build_model("timm/vit_tiny_patch16_224", 7, image_size=32)
    decayed, free = names_of(model, parameter_groups(model, 0.05))
    theirs = timm.optim.param_groups_weight_decay(model, 0.05, no_weight_decay_list=model.no_weight_decay())
    assert [free, decayed] == names_of(model, theirs)


def test_torchvisions_class_token_and_positions_are_not_decayed():
    with torch.device("meta"):
        model = build_model("vit_b_16", 7)
    _, free = names_of(model, parameter_groups(model, 0.05))
    assert {"class_token", "encoder.pos_embedding"} <= free
    assert all(p.ndim > 1 for name, p in model.named_parameters() if name not in free)


def test_learning_rates_fall_from_block_to_block_as_in_timm():
    model = build_model("timm/vit_tiny_patch16_224", 7, image_size=32)
    factors = lr_factors(model, {"head.weight", "head.bias"}, layer_decay=0.75)
    theirs = timm.optim.param_groups_layer_decay(model, layer_decay=0.75)
    expected = {
        name: group["lr_scale"]
        for group, names in zip(theirs, names_of(model, theirs), strict=True)
        for name in names
        if not name.startswith(("norm.", "head."))  # timm has the last normalisation between the blocks and the head
    }
    ratio = factors["blocks.11.mlp.fc2.weight"] / expected["blocks.11.mlp.fc2.weight"]
    for name, factor in expected.items():
        assert factors[name] == pytest.approx(ratio * factor), name
    assert factors["norm.weight"] == factors["head.weight"] == 1
    assert factors["blocks.11.mlp.fc2.weight"] == 0.75


def test_a_residual_block_is_a_block_and_the_head_has_its_own_rate():
    model = build_model("resnet18", 7)
    head = output_parameters("resnet18")
    assert set(head) == {"fc.weight", "fc.bias"}
    factors = lr_factors(model, head, head_lr=10, layer_decay=0.5)
    assert factors["fc.weight"] == 10
    assert factors["layer4.1.conv1.weight"] == 0.5
    assert factors["layer1.0.bn1.bias"] == 0.5**8
    assert factors["conv1.weight"] == factors["bn1.weight"] == 0.5**9
    optimizer = OPTIMIZERS.choose("sgd").make(parameter_groups(model, 1e-4, "weights", factors))
    set_lr(optimizer, 0.2)
    assert {group["lr"] for group in optimizer.param_groups} == {0.2 * factor for factor in factors.values()}
    assert get_lr(optimizer) == pytest.approx(0.2)


def test_frozen_parts_keep_weights_and_statistics_and_are_left_to_no_optimizer():
    model = build_model("resnet10", 7)
    freeze(model, "conv1")
    freeze(model, "bn1")
    (names, others) = names_of(model, parameter_groups(model, 1e-4))
    assert not {"conv1.weight", "bn1.weight", "bn1.bias"} & (names | others)
    with pytest.raises(ValueError, match=r"model.frozen: got 'layer5', allowed .* layer4"):
        freeze(model, "layer5")
    for name in ("layer1", "layer2", "layer3", "layer4", "fc"):
        freeze(model, name)
    with pytest.raises(ValueError, match=r"model.frozen: got the whole network"):
        parameter_groups(model, 1e-4)


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("sgd", {"momentum": 0.8, "nesterov": True}, lambda g: torch.optim.SGD(g, momentum=0.8, nesterov=True)),
        ("adamw", {"beta2": 0.95, "eps": 1e-6}, lambda g: torch.optim.AdamW(g, betas=(0.9, 0.95), eps=1e-6)),
        ("lamb", {}, lambda g: timm.optim.Lamb(g, betas=(0.9, 0.999), eps=1e-6)),
    ],
)
def test_optimizers_step_as_their_references(name, options, reference):
    torch.manual_seed(0)
    ours = nn.Linear(5, 3)
    theirs = copy.deepcopy(ours)
    pair = (
        OPTIMIZERS.choose(name, options).make(parameter_groups(ours, 0.1)),
        reference(parameter_groups(theirs, 0.1)),
    )
    for _ in range(4):
        x = torch.randn(8, 5)
        for model, optimizer in zip((ours, theirs), pair, strict=True):
            set_lr(optimizer, 0.05)
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_a_step_that_is_skipped_changes_nothing_of_adamw():
    model = nn.Linear(5, 3)
    optimizer = OPTIMIZERS.choose("adamw").make(parameter_groups(model, 0.1))
    for found, changes in ((1.0, False), (0.0, True), (1.0, False)):
        before = [p.clone() for p in model.parameters()]
        states = [copy.deepcopy(optimizer.state[p]) for p in model.parameters()]
        set_lr(optimizer, 0.1)
        optimizer.zero_grad()
        (model(torch.randn(8, 5)).square().mean() * (float("nan") if found else 1)).backward()
        optimizer.found_inf = torch.tensor(found)
        optimizer.step()
        assert all(torch.equal(p, b) != changes for p, b in zip(model.parameters(), before, strict=True))
        for p, state in zip(model.parameters(), states, strict=True):
            assert all(bool((optimizer.state[p][key] == value).all()) for key, value in state.items()) or changes
            assert all(value.isfinite().all() for value in optimizer.state[p].values())
