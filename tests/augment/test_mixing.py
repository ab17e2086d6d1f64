"""Mixup and CutMix: what is drawn, against timm's and torchvision's definitions, and what becomes of the images."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ffcv_imagenet.augment.mixing import UNMIXED, Mixing, mix_images, swap_neighbours

SIDE, DRAWS = 64, 4000


def mixing(**options):
    return Mixing(**{"mixup": 0.0, "cutmix": 0.0, "prob": 1.0, "switch": 0.5, "first_unmixed": 10, "seed": 0} | options)


def draw(**options):
    chosen = mixing(**options)
    return [chosen.draw(epoch, step, SIDE) for epoch in range(4) for step in range(DRAWS // 4)]


def test_mixup_shares_are_a_beta_distributions():
    drawn = draw(mixup=0.8)
    assert all(m[2:] == (0, 0, SIDE, SIDE) and m.weight == m.share for m in drawn)
    assert stats.kstest([m.share for m in drawn], stats.beta(0.8, 0.8).cdf).pvalue > 0.01


def test_cutmix_boxes_are_those_of_the_definition():
    """timm and torchvision: sides of sqrt(1 - s), centre on any pixel, cut at the border; the share is the area's."""
    drawn, generator = draw(cutmix=1.0), np.random.default_rng(1)
    assert all(m.weight == 0 and 0 <= m.top <= m.bottom <= SIDE and 0 <= m.left <= m.right <= SIDE for m in drawn)
    shares = [m.share for m in drawn]
    assert shares == [1 - (m.bottom - m.top) * (m.right - m.left) / SIDE**2 for m in drawn]
    expected = []
    for _ in range(DRAWS):
        half = int(SIDE * math.sqrt(1 - generator.beta(1, 1))) // 2
        y, x = generator.integers(0, SIDE, 2)
        expected.append([*np.clip([y - half, x - half], 0, SIDE), *np.clip([y + half, x + half], 0, SIDE)])
    top, left, bottom, right = np.transpose(expected)
    assert stats.ks_2samp(shares, 1 - (bottom - top) * (right - left) / SIDE**2).pvalue > 0.01
    for name, values in {"top": top, "left": left, "bottom": bottom, "right": right}.items():
        assert stats.ks_2samp([getattr(m, name) for m in drawn], values).pvalue > 0.01


def test_how_often_which_is_taken():
    drawn = draw(mixup=0.8, cutmix=1.0, prob=0.75, switch=0.25)
    unmixed, cut = (sum(test(m) for m in drawn) for test in (lambda m: m == UNMIXED, lambda m: m.weight == 0))
    for count, share in ((unmixed, 0.25), (cut, 0.75 * 0.25)):
        assert abs(count - share * DRAWS) < 4 * math.sqrt(DRAWS * share * (1 - share))


def test_nothing_is_mixed_at_the_end():
    chosen = mixing(mixup=0.8, first_unmixed=3)
    assert chosen.draw(2, 0, SIDE) != UNMIXED
    assert all(chosen.draw(epoch, step, SIDE) == UNMIXED for epoch in (3, 4) for step in range(5))


@pytest.fixture(scope="module")
def images():
    return torch.randn(8, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}])
def test_images_are_mixed_with_their_neighbours(images, options):
    for step in range(5):
        mixture = mixing(**options).draw(0, step, SIDE)
        mixed = mix_images(images, torch.tensor(mixture))
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        for i, image in enumerate(images.double()):
            expected, partner = image.clone(), images[i ^ 1].double()
            rows, columns = slice(mixture.top, mixture.bottom), slice(mixture.left, mixture.right)
            weight = float(torch.tensor(mixture.weight))
            expected[:, rows, columns] *= weight
            expected[:, rows, columns] += (1 - weight) * partner[:, rows, columns]
            torch.testing.assert_close(mixed[i].double(), expected, rtol=1e-6, atol=1e-6)


def test_an_unmixed_batch_is_what_it_was(images):
    assert torch.equal(mix_images(images, torch.tensor(UNMIXED)), images)


def test_micro_batches_and_ranks_mix_the_same_images(images):
    mixture = torch.tensor(mixing(mixup=1.0).draw(0, 0, SIDE))
    parts = torch.cat([mix_images(part, mixture) for part in images.split(2)])
    assert torch.equal(parts, mix_images(images, mixture))
    assert swap_neighbours(torch.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]
