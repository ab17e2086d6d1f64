"""Random numbers of the augmentations: by position, and uniform."""

import numpy as np
import pytest

from ffcv_imagenet.augment.draws import Purpose, generator, uniforms


@pytest.mark.parametrize("draws", [1, 4, 7])
def test_a_positions_numbers_are_the_same_whatever_is_drawn_with_it(draws):
    whole = uniforms(3, 5, Purpose.MIXING, 0, 24, draws)
    assert whole.shape == (24, draws)
    parts = [uniforms(3, 5, Purpose.MIXING, first, 8, draws) for first in (0, 8, 16)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_every_seed_epoch_and_position_has_its_own_uniform_numbers():
    keys = [(seed, epoch) for seed in (0, 1, 2**31) for epoch in (0, 1, 299)]
    numbers = np.stack([uniforms(*key, Purpose.MIXING, 0, 2000, 5) for key in keys])
    assert len(np.unique(numbers)) == numbers.size
    assert 0 <= numbers.min() < 0.001
    assert 0.999 < numbers.max() < 1
    # Of 90,000 numbers each tenth has 9,000 with a standard deviation of 90; neighbours don't depend on each other.
    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] - 9000).max() < 4 * 90
    flat = numbers.reshape(-1, 5)
    assert np.abs(np.corrcoef(flat.T) - np.eye(5)).max() < 4 / np.sqrt(len(flat))
    assert abs(np.corrcoef(flat[:-1, 0], flat[1:, 0])[0, 1]) < 4 / np.sqrt(len(flat))


def test_a_generator_belongs_to_a_position():
    first, again, next_one = (generator(1, 2, Purpose.MIXING, position).random(1000) for position in (6, 6, 7))
    assert np.array_equal(first, again)
    assert not np.isin(first, next_one).any()
