"""Random numbers that depend on (seed, epoch, position) alone, not on ranks, workers or interruptions.

Philox4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) turns a key and a counter into random
bits. The key is (seed, epoch, purpose), and the counter is a position in the epoch: of an image, or of a step.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch

_WORDS = 4  # 64-bit words that Philox makes of each value of its counter


class Purpose(IntEnum):
    """What numbers are drawn for: each purpose has its own."""

    MIXING = 0
    POLICY = 1
    JITTER = 2
    GRAYSCALE = 3
    BLUR = 4
    SOLARIZE = 5
    ERASING = 6
    SHIFT = 7


_MOST_PURPOSES = 64


def uniforms(seed: int, epoch: int, purpose: Purpose, first: int, count: int, draws: int) -> np.ndarray:
    """``[count, draws]`` float64, uniform in [0, 1): ``draws`` for each of the positions ``first`` and following."""
    blocks = -(-draws // _WORDS)  # rounded up
    words = _philox(seed, epoch, purpose, first * blocks).random_raw(count * blocks * _WORDS)
    return (words.reshape(count, -1)[:, :draws] >> np.uint64(11)) * 2.0**-53


def generator(seed: int, epoch: int, purpose: Purpose, position: int) -> np.random.Generator:
    """A generator for one position, for numbers that take an unknown amount of random bits."""
    return np.random.Generator(_philox(seed, epoch, purpose, position << 128))


def _philox(seed: int, epoch: int, purpose: Purpose, counter: int) -> np.random.Philox:
    return np.random.Philox(counter=counter, key=np.array([seed, epoch * _MOST_PURPOSES + purpose], np.uint64))


def to_device(numbers: np.ndarray, device: torch.device) -> torch.Tensor:
    """``numbers`` on ``device``, which is not waited for."""
    host = torch.from_numpy(numbers)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host
