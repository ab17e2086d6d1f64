"""What policies choose: distributed as torchvision's and timm's classes, which are asked here."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import v2

from ffcv_imagenet.augment.draws import Purpose, uniforms
from ffcv_imagenet.augment.operations import OPERATIONS
from ffcv_imagenet.augment.policies import POLICIES
from ffcv_imagenet.augment.policies.autoaugment import SUB_POLICIES
from ffcv_imagenet.augment.policies.sometimes import ColorJitter, Sometimes

SIDE, DRAWS = 224, 20_000
NAMES = {
    "ShearX": "shear_x", "ShearY": "shear_y", "TranslateX": "translate_x", "TranslateY": "translate_y",
    "Rotate": "rotate", "Brightness": "brightness", "Color": "saturation", "Contrast": "contrast",
    "Sharpness": "sharpness", "Posterize": "posterize", "Solarize": "solarize", "AutoContrast": "auto_contrast",
    "Equalize": "equalize", "Invert": "invert", "Identity": None,
}  # fmt: skip


def drawn(name, count=DRAWS, **options):
    """For each image a tuple of (operation, strength), those left out as (None, 0)."""
    policy = POLICIES.choose(name, options)
    layers = policy.layers(uniforms(0, 0, Purpose.POLICY, 0, count, policy.num_draws), SIDE)
    for layer in layers:
        assert set(layer.operations) <= set(OPERATIONS)
        assert layer.chosen.shape == layer.strengths.shape == (count,)
    return [*zip(*(_named(layer) for layer in layers), strict=True)]


def _named(layer):
    for chosen, strength in zip(layer.chosen.tolist(), layer.strengths.tolist(), strict=True):
        yield (layer.operations[chosen], strength) if chosen >= 0 else (None, 0.0)


def of_torchvision(transform, count, monkeypatch):
    """The same from one of torchvision's classes, which has no hook but the method that applies an operation."""
    calls = []

    def record(self, image, name, magnitude, interpolation, fill):
        calls[-1].append((name, magnitude))
        return image

    monkeypatch.setattr(type(transform), "_apply_image_or_video_transform", record)
    image = Image.new("RGB", (SIDE, SIDE))
    torch.manual_seed(0)
    for _ in range(count):
        calls.append([])
        transform(image)
    return calls


def in_our_units(name, magnitude):
    name = NAMES[name]
    match name:
        case "brightness" | "saturation" | "contrast" | "sharpness":
            return name, 1 + magnitude
        case "solarize":
            return name, 255 * magnitude
        case "translate_x" | "translate_y":
            return name, float(int(magnitude + math.copysign(1e-4, magnitude)))  # 16 is 15.9999 there
    return name, float(magnitude)


def assert_same_distribution(ours, theirs):
    """Equal frequencies within four and a half standard deviations, of everything that occurs."""
    assert set(theirs) <= set(ours)
    for value, count in ours.items():
        share = (count + theirs[value]) / (ours.total() + theirs.total())
        spread = math.sqrt(share * (1 - share) * (1 / ours.total() + 1 / theirs.total()))
        assert abs(count / ours.total() - theirs[value] / theirs.total()) < 4.5 * spread, value


def rounded(pairs):
    return Counter((name, round(strength, 3) + 0.0) for name, strength in pairs)


@pytest.mark.parametrize(
    ("name", "transform"), [("randaugment", v2.RandAugment()), ("trivialaugment", v2.TrivialAugmentWide())]
)
def test_it_is_distributed_as_torchvisions(name, transform, monkeypatch):
    theirs = [in_our_units(*call) for calls in of_torchvision(transform, 6000, monkeypatch) for call in calls]
    ours = [pair for pairs in drawn(name) for pair in pairs]
    assert_same_distribution(rounded(ours), rounded(theirs))


def test_autoaugment_has_torchvisions_pairs():
    theirs = v2.AutoAugment()._policies
    assert len(SUB_POLICIES) == len(theirs)
    for pair, expected in zip(SUB_POLICIES, theirs, strict=True):
        for text, (name, probability, magnitude) in zip(pair, expected, strict=True):
            assert text == f"{NAMES[name]} {probability} {magnitude or 0}"


def test_autoaugment_is_distributed_as_torchvisions(monkeypatch):
    theirs = [in_our_units(*c) for calls in of_torchvision(v2.AutoAugment(), 6000, monkeypatch) for c in calls]
    ours = [pair for pairs in drawn("autoaugment") for pair in pairs if pair[0] is not None]
    assert_same_distribution(rounded(ours), rounded(theirs))


def test_timms_randaugment_is_distributed_as_timms(monkeypatch):
    timm = pytest.importorskip("timm.data.auto_augment")
    calls, ours = [], {}
    for name in list(timm.NAME_TO_OP):
        monkeypatch.setitem(timm.NAME_TO_OP, name, lambda image, *a, n=name, **k: calls.append((n, *a)) or image)
    transform = timm.rand_augment_transform("rand-m9-mstd0.5-inc1", {"img_mean": (124, 116, 104)})
    np.random.seed(0)  # noqa: NPY002 (timm draws from it)
    random.seed(0)
    count = 8000
    for _ in range(count):
        transform(Image.new("RGB", (SIDE, SIDE)))
    theirs = {}
    names = {"PosterizeIncreasing": "posterize", "SolarizeIncreasing": "solarize", "SolarizeAdd": "solarize_add"}
    names |= {f"{key}Increasing": NAMES[key] for key in ("Color", "Contrast", "Brightness", "Sharpness")}
    names |= {"TranslateXRel": "translate_x", "TranslateYRel": "translate_y"}
    for name, *strength in calls:
        theirs.setdefault((names | NAMES)[name] if name in names else NAMES[name], []).append((strength or [0])[0])
    for pairs in drawn("timm_randaugment"):
        for name, strength in pairs:
            ours.setdefault(name, []).append(strength / (SIDE if "translate" in str(name) else 1))
    left_out = len(ours.pop(None)) / (2 * DRAWS)
    assert abs(left_out - (1 - len(calls) / (2 * count))) < 0.02
    assert ours.keys() == theirs.keys()
    for name, strengths in theirs.items():
        assert abs(len(ours[name]) / DRAWS - len(strengths) / count) < 0.02, name
        assert stats.ks_2samp(ours[name], strengths).pvalue > 1e-3, name


def test_timms_randaugment_is_what_its_name_says():
    pairs = [pair for pairs in drawn("timm_randaugment") for pair in pairs]
    count = Counter(name for name, _ in pairs)
    assert abs(count.pop(None) / len(pairs) - 0.5) < 0.02
    assert len(count) == 15
    assert max(count.values()) < 1.1 * min(count.values())
    angles = np.array([strength for name, strength in pairs if name == "rotate"])
    normal = stats.norm(27, 1.5)
    assert abs((angles > 0).mean() - 0.5) < 0.05
    below = np.abs(angles)[np.abs(angles) < 30]  # cut at 10 of 10
    assert stats.kstest(below, lambda x: normal.cdf(x) / normal.cdf(30)).pvalue > 1e-3
    assert abs((np.abs(angles) == 30).mean() - normal.sf(30)) < 0.01
    assert {strength for name, strength in pairs if name == "posterize"} == {0, 1, 2}


def test_three_augment_takes_one_of_three():
    pairs = [pair for pairs in drawn("three_augment") for pair in pairs]
    count = Counter(name for name, _ in pairs)
    assert set(count) == {"saturation", "solarize", "gaussian_blur"}
    assert max(count.values()) < 1.05 * min(count.values())
    radii = [strength for name, strength in pairs if name == "gaussian_blur"]
    assert stats.kstest(radii, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3
    assert {strength for name, strength in pairs if name != "gaussian_blur"} == {0, 128}


@pytest.mark.parametrize("name", [n for n in POLICIES.kinds if n != "none"])
def test_an_image_gets_the_same_whatever_it_is_drawn_with(name):
    policy = POLICIES.choose(name)
    draws = uniforms(0, 0, Purpose.POLICY, 0, 64, policy.num_draws)
    for whole, *parts in zip(*(policy.layers(d, SIDE) for d in (draws, draws[:24], draws[24:])), strict=True):
        for field in ("chosen", "strengths"):
            assert np.array_equal(getattr(whole, field), np.concatenate([getattr(part, field) for part in parts]))


def layers_of(policy, count=DRAWS):
    return policy.layers(uniforms(0, 0, Purpose.JITTER, 0, count, policy.num_draws), SIDE)


def test_colour_jitter_is_in_random_order_and_of_uniform_strength():
    """As torchvision's ColorJitter: factors uniform around 1, hues around 0."""
    amounts = {"brightness": 0.4, "contrast": 0.3, "hue": 0.1}
    layers = layers_of(ColorJitter((0.4, 0.3, 0.0, 0.1), prob=0.8))
    assert [layer.operations for layer in layers] == [tuple(amounts)] * 3
    order = np.stack([layer.chosen for layer in layers], 1)
    assert abs((order < 0).all(axis=1).mean() - 0.2) < 0.02
    orders = Counter(map(tuple, order[(order >= 0).all(axis=1)].tolist()))
    assert len(orders) == math.factorial(3)
    assert max(orders.values()) < 1.1 * min(orders.values())
    for number, (name, amount) in enumerate(amounts.items()):
        strengths = np.concatenate([layer.strengths[layer.chosen == number] for layer in layers])
        middle = 0 if name == "hue" else 1
        assert stats.kstest(strengths, stats.uniform(middle - amount, 2 * amount).cdf).pvalue > 1e-3


def test_sometimes_is_as_often_as_said():
    [layer] = layers_of(Sometimes("gaussian_blur", 0.3, 0.1, 2.0))
    assert layer.operations == ("gaussian_blur",)
    assert abs((layer.chosen == 0).mean() - 0.3) < 0.02
    assert stats.kstest(layer.strengths[layer.chosen == 0], stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3
