"""Random erasing: boxes of noise, or of the mean colour, in normalised images."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ffcv_imagenet.augment.draws import Purpose, to_device, uniforms

#: A box is drawn at most so often until it fits into the image.
TRIES = 10
#: Share of the image's area that all boxes together have, and ratio of height to width: the ends of their ranges.
AREA = (0.02, 1 / 3)
RATIO = (0.3, 1 / 0.3)

_LEVELS = 1 << 16  # of the noise
_32_BITS = (1 << 32) - 1


@dataclass(frozen=True)
class Erasing:
    """Erases boxes in a share ``prob`` of the images.

    Zhong et al., "Random Erasing Data Augmentation", arXiv 1708.04896; distributed as timm's RandomErasing, in
    images that are normalised.

    Attributes:
        prob: share of the images.
        mode: ``const`` for zeros, the mean colour; ``rand`` for one normally distributed colour per box, ``pixel`` for
            one per pixel.
        count: boxes per image, which share the area.
        seed: of the draws.
    """

    prob: float
    mode: str
    count: int
    seed: int

    def draw(self, epoch: int, first: int, count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of images at the positions ``first`` and following of an epoch.

        Returns:
            [count, boxes, 4] int64: top, left, height, width, all 0 for none; and [count, boxes] int64, seeds of their
            noise in 32 bits.
        """
        draws = uniforms(self.seed, epoch, Purpose.ERASING, first, count, 1 + self.count * (1 + 4 * TRIES))
        each = draws[:, 1:].reshape(count, self.count, -1)
        area, ratio, down, right = np.moveaxis(each[:, :, 1:].reshape(count, self.count, TRIES, 4), -1, 0)
        area = (AREA[0] + (AREA[1] - AREA[0]) * area) * side**2 / self.count
        ratio = np.exp(math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * ratio)
        height, width = np.sqrt(area * ratio).round().astype(int), np.sqrt(area / ratio).round().astype(int)
        top, left = (down * (side - height + 1)).astype(int), (right * (side - width + 1)).astype(int)
        fits = (height < side) & (width < side)
        chosen = fits.argmax(axis=2)[:, :, None, None]  # the first one that fits
        boxes = np.take_along_axis(np.stack([top, left, height, width], axis=3), chosen, axis=2)[:, :, 0]
        boxes *= (fits.any(axis=2) & (draws[:, :1] < self.prob))[:, :, None]
        return boxes, (each[:, :, 0] * 2**32).astype(np.int64)

    def __call__(self, images: Tensor, epoch: int, first: int) -> None:
        """Erase in ``images [B, 3, H, H]`` (floating-point, channels_last), in place; never waits for the device."""
        boxes, seeds = self.draw(epoch, first, len(images), images.shape[-1])
        pixels = images.permute(0, 2, 3, 1).view(-1, 3)
        for number in range(self.count):  # One after the other, so that each overwrites those before.
            self._erase(pixels, boxes[:, number], seeds[:, number], images.shape[-1])

    def _erase(self, pixels: Tensor, boxes: np.ndarray, seeds: np.ndarray, side: int) -> None:
        """Erase a box in each image; ``pixels [B H W, 3]``, ``boxes [B, 4]``, ``seeds [B]``."""
        areas = boxes[:, 2] * boxes[:, 3]
        [erased] = areas.nonzero()
        if not len(erased):
            return
        top, left, _, width = boxes[erased].T
        area, total = areas[erased], int(areas.sum())
        rows = np.stack([(erased * side + top) * side + left, width, area.cumsum() - area, seeds[erased], area])
        start, width, before, seed, area = to_device(rows, pixels.device)
        # The host knows how many pixels there are, so the device is not asked.
        box = torch.repeat_interleave(area, output_size=total)
        inside = torch.arange(total, device=pixels.device) - before[box]
        place = start[box] + inside // width[box] * side + inside % width[box]
        if self.mode == "const":
            values = pixels.new_zeros(total, 3)
        else:
            element = inside if self.mode == "pixel" else torch.zeros_like(inside)
            channels = torch.arange(3, device=pixels.device)
            values = normal(seed[box][:, None], element[:, None] * 3 + channels).to(pixels.dtype)
        pixels.index_copy_(0, place, values)


def normal(seeds: Tensor, numbers: Tensor) -> Tensor:
    """Float32 of a standard normal distribution, in 65,536 equally likely values; the same on every device.

    Args:
        seeds: int64 in 0..2^32 - 1.
        numbers: int64, which of a seed's values; broadcast against ``seeds``.
    """
    # Multiplication by an odd constant, then the finalizer of MurmurHash3 (Appleby): all bits depend on all bits.
    bits = seeds ^ ((numbers * 0x9E3779B1) & _32_BITS)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = ((bits ^ (bits >> shift)) * factor) & _32_BITS
    bits = bits ^ (bits >> 16)
    return _quantiles(numbers.device)[bits >> 16]


@functools.cache
def _quantiles(device: torch.device) -> Tensor:
    shares = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS
    return torch.special.ndtri(shares).float().to(device)
