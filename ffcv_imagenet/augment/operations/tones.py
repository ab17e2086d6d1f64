"""Operations that replace each level by another one: a table of 256 for each image and channel, and one pass."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from ffcv_imagenet.augment.operations.operation import Operation
from ffcv_imagenet.augment.pixels import Sampling, blend, count_values, look_up, mean_luma


class ToneOperation(Operation):
    """An operation that is a table."""

    @abstractmethod
    def tables(self, levels: Tensor, strengths: Tensor, pixels: Tensor, numbers: Tensor) -> Tensor:
        """``[n, 256]`` or ``[n, 3, 256]`` uint8 for ``levels [1, 256] uint8`` 0..255 and ``strengths [n, 1] float64``.

        ``pixels`` and ``numbers`` are for operations that depend on the images.
        """

    def __call__(self, pixels: Tensor, numbers: Tensor, parameters: Tensor, sampling: Sampling) -> None:
        """See :class:`Operation`."""
        levels = torch.arange(256, device=pixels.device).to(torch.uint8)[None]
        tables = self.tables(levels, parameters, pixels, numbers)
        if tables.ndim == 2:
            tables = tables[:, None]
        look_up(pixels, numbers, tables.expand(len(numbers), 3, 256).contiguous())


class Brightness(ToneOperation):
    """Black for 0, the image for 1, brighter above."""

    def tables(self, levels: Tensor, strengths: Tensor, pixels: Tensor, numbers: Tensor) -> Tensor:
        """See :class:`ToneOperation`."""
        return blend(torch.zeros_like(levels), levels, strengths)


class Contrast(ToneOperation):
    """The mean grey for 0, the image for 1, more contrast above."""

    def tables(self, levels: Tensor, strengths: Tensor, pixels: Tensor, numbers: Tensor) -> Tensor:
        """See :class:`ToneOperation`."""
        return blend((mean_luma(pixels, numbers) + 0.5).floor()[:, None], levels, strengths)


class Posterize(ToneOperation):
    """Keeps so many bits of the eight."""

    def tables(self, levels: Tensor, strengths: Tensor, pixels: Tensor, numbers: Tensor) -> Tensor:
        """See :class:`ToneOperation`."""
        return levels & (256 - 2 ** (8 - strengths)).to(torch.int64).to(torch.uint8)


class Solarize(ToneOperation):
    """Inverts levels from the threshold on."""

    def tables(self, levels: Tensor, strengths: Tensor, pixels: Tensor, numbers: Tensor) -> Tensor:
        """See :class:`ToneOperation`."""
        return levels.where(levels < strengths, 255 - levels)


class SolarizeAdd(ToneOperation):
    """Adds to the levels below 128."""

    def tables(self, levels: Tensor, strengths: Tensor, pixels: Tensor, numbers: Tensor) -> Tensor:
        """See :class:`ToneOperation`."""
        brighter = (levels + strengths).clamp(0, 255).to(torch.uint8)
        return brighter.where(levels < 128, levels)


class Invert(ToneOperation):
    """255 less the level; without a strength."""

    def tables(self, levels: Tensor, strengths: Tensor, pixels: Tensor, numbers: Tensor) -> Tensor:
        """See :class:`ToneOperation`."""
        return (255 - levels).expand(len(numbers), 256)


class AutoContrast(ToneOperation):
    """Stretches each channel's levels to 0..255; without a strength."""

    def tables(self, levels: Tensor, strengths: Tensor, pixels: Tensor, numbers: Tensor) -> Tensor:
        """See :class:`ToneOperation`."""
        occurs = count_values(pixels, numbers) > 0
        low, high = _first(occurs), 255 - _first(occurs.flip(2))
        scale = 255.0 / (high - low).clamp(min=1).double()
        stretched = (levels * scale + -low * scale).clamp(0, 255).to(torch.uint8)
        return stretched.where(high > low, levels)


class Equalize(ToneOperation):
    """Makes each channel's levels about equally frequent; without a strength."""

    def tables(self, levels: Tensor, strengths: Tensor, pixels: Tensor, numbers: Tensor) -> Tensor:
        """See :class:`ToneOperation`."""
        counts = count_values(pixels, numbers).long()
        highest = 255 - _first((counts > 0).flip(2))
        step = (counts.sum(dim=2, keepdim=True) - counts.gather(2, highest)) // 255
        below = counts.cumsum(dim=2) - counts
        equal = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255).to(torch.uint8)
        return equal.where(step > 0, levels)


def _first(occurs: Tensor) -> Tensor:
    """The first level that occurs, [n, 3, 1] int64, of ``occurs [n, 3, 256] bool``."""
    return occurs.to(torch.uint8).argmax(dim=2, keepdim=True)
