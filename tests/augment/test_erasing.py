"""Random erasing: boxes distributed as timm's, and what is in them."""

import math
import random

import numpy as np
import pytest
import torch
from scipy import stats

from ffcv_imagenet.augment.erasing import Erasing, normal

SIDE, DRAWS = 64, 6000


def reference(count):
    """Height, width and top of boxes, as timm's RandomErasing draws them (with min_area=0.02, max_area=1/3)."""
    generator, boxes = random.Random(0), []
    while len(boxes) < DRAWS:
        for _ in range(10):
            area = generator.uniform(0.02, 1 / 3) * SIDE**2 / count
            ratio = math.exp(generator.uniform(math.log(0.3), math.log(1 / 0.3)))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height < SIDE and width < SIDE:
                boxes.append((height, width, generator.randint(0, SIDE - height), generator.randint(0, SIDE - width)))
                break
    return np.array(boxes).T


@pytest.mark.parametrize("count", [1, 3])
def test_boxes_are_distributed_as_timms(count):
    boxes, _ = Erasing(1.0, "pixel", count, seed=0).draw(0, 0, DRAWS, SIDE)
    assert boxes.shape == (DRAWS, count, 4)
    for number in range(count):
        top, left, height, width = boxes[:, number].T
        assert (top + height <= SIDE).all()
        assert (left + width <= SIDE).all()
        for ours, theirs in zip((height, width, top, left), reference(count), strict=True):
            assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_so_many_images_are_erased_and_the_rest_stays_as_it_is():
    images = torch.full((400, 3, 16, 16), 7.0).contiguous(memory_format=torch.channels_last)
    erasing = Erasing(0.25, "const", 1, seed=0)
    erasing(images, epoch=1, first=400)
    boxes, _ = erasing.draw(1, 400, 400, 16)
    assert abs((boxes[:, 0, 2] > 0).mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 400)
    for image, (top, left, height, width) in zip(images, boxes[:, 0].tolist(), strict=True):
        expected = torch.full((3, 16, 16), 7.0)
        expected[:, top : top + height, left : left + width] = 0
        assert torch.equal(image, expected)


def erased(mode, count=1):
    images = torch.full((64, 3, 32, 32), torch.nan).contiguous(memory_format=torch.channels_last)
    erasing = Erasing(1.0, mode, count, seed=2)
    erasing(images, epoch=0, first=0)
    return images, erasing.draw(0, 0, 64, 32)[0]


def test_noise_is_normal_and_each_pixels_and_channels_own():
    images, boxes = erased("pixel")
    values = images[images.isfinite()]
    assert len(values) == 3 * (boxes[:, 0, 2] * boxes[:, 0, 3]).sum()
    assert len(values.unique()) > 0.6 * len(values)
    assert stats.kstest(values, stats.norm.cdf).pvalue > 1e-3
    for image, (top, left, height, width) in zip(images, boxes[:, 0], strict=True):
        patch = image[:, top : top + height, left : left + width].flatten(1)
        for one, other in ((patch[0], patch[1]), (patch[:, :-1].flatten(), patch[:, 1:].flatten())):
            assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(len(one))


def test_a_random_colour_is_one_for_each_box():
    images, boxes = erased("rand")
    colours = []
    for image, (top, left, height, width) in zip(images, boxes[:, 0], strict=True):
        patch = image[:, top : top + height, left : left + width].flatten(1)
        assert (patch == patch[:, :1]).all()
        colours.append(patch[:, 0])
    assert stats.kstest(torch.cat(colours), stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("mode", ["pixel", "rand"])
def test_an_image_is_erased_alike_in_any_batch(mode):
    whole, _ = erased(mode, count=2)
    part = torch.full((8, 3, 32, 32), torch.nan).contiguous(memory_format=torch.channels_last)
    Erasing(1.0, mode, 2, seed=2)(part, epoch=0, first=24)
    assert torch.equal(part.nan_to_num(99), whole[24:32].nan_to_num(99))


def test_seeds_of_noise_do_not_depend_on_each_other():
    seeds, numbers = torch.arange(300)[:, None], torch.arange(300)
    values = normal(seeds, numbers)
    limit = 6 / math.sqrt(values.numel())
    for one, other in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1]), (values, values.T)):
        assert abs(np.corrcoef(one.flatten(), other.flatten())[0, 1]) < limit + (one is values) / 300
    assert stats.kstest(values.flatten(), stats.norm.cdf).pvalue > 1e-3
