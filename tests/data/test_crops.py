import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from ffcv_imagenet.data.read.crops import (
    center_crop,
    random_flip,
    random_part,
    random_resized_crop,
    sample_key,
    uniform,
)

RATIO = (3 / 4, 4 / 3)


def key_of(seed, epoch, index):
    return np.uint64(sample_key(seed, epoch, index))


def ours(height, width, n, seed=0, scale=(0.08, 1.0)):
    return np.array([random_resized_crop(key_of(seed, 0, i), height, width, *scale, *RATIO) for i in range(n)])


def torchvisions(height, width, n, scale=(0.08, 1.0)):
    image = torch.empty(1, height, width)
    torch.manual_seed(0)
    return np.array([RandomResizedCrop.get_params(image, scale, RATIO) for _ in range(n)])


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (256, 256), (100, 180)])
def test_distribution_is_torchvisions(height, width):
    n = 4000
    for column, (a, b) in enumerate(zip(ours(height, width, n).T, torchvisions(height, width, n).T, strict=True)):
        assert stats.ks_2samp(a, b).pvalue > 1e-4, f"column {column} of (top, left, height, width)"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (2, 3), (7, 1000), (65535, 65535)])
def test_boxes_lie_inside_the_image(height, width):
    top, left, h, w = ours(height, width, 300).T
    assert (h > 0).all()
    assert (w > 0).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


@pytest.mark.parametrize(("height", "width"), [(100, 1000), (1000, 100), (3, 4)])
def test_fall_back_is_torchvisions_centre_box(height, width):
    # A box larger than the image is asked for, so that no try fits.
    box = random_resized_crop(key_of(0, 0, 0), height, width, 4.0, 4.0, *RATIO)
    expected = RandomResizedCrop.get_params(torch.empty(1, height, width), (4.0, 4.0), RATIO)
    assert tuple(box) == tuple(expected)


def test_a_sample_is_a_function_of_seed_epoch_and_index():
    boxes = {(s, e, i): random_resized_crop(key_of(s, e, i), 400, 500, 0.08, 1.0, *RATIO)
             for s in range(4) for e in range(4) for i in range(4)}  # fmt: skip
    assert len(set(boxes.values())) == len(boxes)
    for (s, e, i), box in boxes.items():
        assert random_resized_crop(key_of(s, e, i), 400, 500, 0.08, 1.0, *RATIO) == box


def test_random_numbers_are_uniform_and_uncorrelated_between_neighbours():
    draws = np.array([[uniform(key_of(1, epoch, i), d) for d in range(8)] for epoch in range(2) for i in range(2000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-4
    correlation = np.corrcoef(draws.T) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(draws))
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 5 / np.sqrt(len(draws))


def test_half_of_the_samples_are_mirrored():
    flips = [random_flip(key_of(3, 0, i)) for i in range(4000)]
    assert stats.binomtest(sum(flips), 4000).pvalue > 1e-4


@pytest.mark.parametrize(
    ("height", "width", "box"), [(256, 256, (16, 16, 224, 224)), (300, 256, (38, 16, 224, 224)), (1, 5, (0, 2, 1, 1))]
)
def test_center_crop(height, width, box):
    assert center_crop(height, width, 224 / 256) == box


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (32, 32), (1, 7)])
@pytest.mark.parametrize("squash", [False, True])
def test_a_part_of_constant_size_lies_anywhere(height, width, squash):
    """As RandomCrop(224) after Resize(256), or after Resize((256, 256)): the position is uniform in what is left."""
    top, left, h, w = np.array([random_part(key_of(0, 0, i), height, width, 0.875, squash) for i in range(2000)]).T
    sides = (height, width) if squash else (min(height, width),) * 2
    assert set(h) == {max(1, round(0.875 * sides[0]))}
    assert set(w) == {max(1, round(0.875 * sides[1]))}
    for start, left_over in ((top, height - h[0]), (left, width - w[0])):
        count = np.bincount(start, minlength=left_over + 1)
        assert len(count) == left_over + 1
        expected = 2000 / len(count)
        assert np.abs(count - expected).max() < 5 * np.sqrt(expected)


def test_a_part_of_everything_is_the_whole_image():
    assert random_part(key_of(0, 0, 0), 40, 70, 1.0, True) == (0, 0, 40, 70)
