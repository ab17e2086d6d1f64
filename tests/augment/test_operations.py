"""Every operation does to an image of a batch what Pillow does, bit by bit; on a CPU and with torch's own functions."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision.transforms.functional import adjust_hue

from ffcv_imagenet.augment import pixels
from ffcv_imagenet.augment.operations import OPERATIONS
from ffcv_imagenet.augment.pixels import INTERPOLATIONS, Sampling

SIDE, GREY = 61, (124, 116, 104)


def affine(*matrix):
    return lambda image, sampling: image.transform(
        image.size, Image.Transform.AFFINE, matrix, getattr(Image.Resampling, sampling.interpolation.upper()),
        fillcolor=sampling.fill,
    )  # fmt: skip


def rotate(image, angle, sampling):
    return image.rotate(angle, getattr(Image.Resampling, sampling.interpolation.upper()), fillcolor=sampling.fill)


def solarize_add(image, add):
    return image.point([min(255, v + int(add)) if v < 128 else v for v in range(256)] * 3)


#: What Pillow does for a strength, and strengths at which to look.
TONES = {
    "brightness": (lambda image, s: ImageEnhance.Brightness(image).enhance(s), (0.1, 0.55, 1.0, 1.9)),
    "contrast": (lambda image, s: ImageEnhance.Contrast(image).enhance(s), (0.0, 0.55, 1.0, 1.9)),
    "saturation": (lambda image, s: ImageEnhance.Color(image).enhance(s), (0.0, 0.55, 1.0, 1.9)),
    "sharpness": (lambda image, s: ImageEnhance.Sharpness(image).enhance(s), (0.1, 0.55, 1.0, 1.9)),
    "gaussian_blur": (lambda image, s: image.filter(ImageFilter.GaussianBlur(s)), (0.1, 0.9, 1.7, 2.0)),
    "hue": (lambda image, s: adjust_hue(image, s), (0.0, 0.1, -0.37, 0.5)),
    "posterize": (lambda image, s: ImageOps.posterize(image, int(s)), (1.0, 4.0, 8.0)),
    "solarize": (lambda image, s: ImageOps.solarize(image, s), (0.0, 25.5, 100.0, 256.0)),
    "solarize_add": (solarize_add, (0.0, 11.0, 99.0, 128.0)),
    "auto_contrast": (lambda image, s: ImageOps.autocontrast(image), (0.0,)),
    "equalize": (lambda image, s: ImageOps.equalize(image), (0.0,)),
    "invert": (lambda image, s: ImageOps.invert(image), (0.0,)),
}
GEOMETRY = {
    "shear_x": (lambda image, s, how: affine(1, s, 0, 0, 1, 0)(image, how), (0.27, -0.9)),
    "shear_y": (lambda image, s, how: affine(1, 0, 0, s, 1, 0)(image, how), (0.27, -0.9)),
    "translate_x": (lambda image, s, how: affine(1, 0, s, 0, 1, 0)(image, how), (3.0, -24.7)),
    "translate_y": (lambda image, s, how: affine(1, 0, 0, 0, 1, s)(image, how), (3.0, -24.7)),
    "rotate": (rotate, (27.3, -9.0, 134.0)),
}


@pytest.fixture(scope="module")
def images():
    """Odd ones among them: noise, a photograph's ramps, few levels, a single colour, colours that differ by little."""
    random, (x, y) = np.random.default_rng(0), np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    ramps = np.stack([x * 3, y * 2 + 40, (x + y) + random.integers(0, 9, x.shape)], axis=2)
    few = random.choice([17, 90, 91, 200], (SIDE, SIDE, 3))
    noise = random.integers(0, 256, (SIDE, SIDE, 3))
    flat = np.broadcast_to([10, 200, 77], noise.shape)
    dim = 100 + (noise > 250) + (noise > 128)
    return np.stack([noise, ramps, few, flat, dim]).astype(np.uint8)


def apply(name, images, strength, sampling):
    operation = OPERATIONS[name]
    parameters = operation.parameters(np.full(len(images), strength, np.float64), SIDE)
    assert parameters.shape == (len(images), operation.num_parameters)
    changed = images.copy()
    operation(torch.from_numpy(changed), torch.arange(len(images)), torch.from_numpy(parameters), sampling)
    return changed


@pytest.fixture(params=["cpu", "torch"])
def anywhere(request, monkeypatch):
    """The functions for a CPU, and those for other devices, which compute on any."""
    if request.param == "torch":
        monkeypatch.setattr(pixels, "_on_host", lambda images: False)


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_is_pillows(name, images, anywhere):
    if name in TONES:
        reference, strengths = TONES[name]
        for strength in strengths:
            expected = [np.asarray(reference(Image.fromarray(image), strength)) for image in images]
            np.testing.assert_array_equal(apply(name, images, strength, Sampling("nearest", (0, 0, 0))), expected)
        return
    reference, strengths = GEOMETRY[name]
    for strength in strengths:
        for interpolation in INTERPOLATIONS:
            sampling = Sampling(interpolation, GREY)
            expected = [np.asarray(reference(Image.fromarray(image), strength, sampling)) for image in images]
            changed = apply(name, images, strength, sampling)
            np.testing.assert_array_equal(changed, expected, err_msg=f"{strength} {interpolation}")
