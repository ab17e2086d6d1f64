"""What operations do with the pixels of a batch, exactly as Pillow does it with those of one image.

``pixels [B, H, W, 3] uint8`` are those of a batch, contiguous; ``numbers [n] int64`` are the images that are meant, in
ascending order. Those are changed, or counted, and the others stay as they are. On a CPU
:mod:`~ffcv_imagenet.augment.pixels_cpu` computes, on other devices what is here, with the same results.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numba
import torch
from torch import Tensor

from ffcv_imagenet.augment import pixels_cpu

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


class Sampling(NamedTuple):
    """How geometric operations read pixels: one of :data:`INTERPOLATIONS`, and a colour for what lies outside."""

    interpolation: str
    fill: tuple[int, int, int]


def look_up(pixels: Tensor, numbers: Tensor, tables: Tensor) -> None:
    """Replace each level of red, green and blue by that in ``tables [n, 3, 256] uint8``."""
    _change(pixels, numbers, pixels_cpu.look_up, _look_up, tables)


def count_values(pixels: Tensor, numbers: Tensor) -> Tensor:
    """How often each level occurs, [n, 3, 256] int32."""
    counts = torch.zeros(len(numbers), 3, 256, dtype=torch.int32, device=pixels.device)
    if _on_host(pixels):
        _on_cpu(pixels_cpu.count_values, pixels, numbers, counts)
    else:
        bins = _bins(pixels.index_select(0, numbers))
        counts.view(len(numbers), -1).scatter_add_(1, bins, counts.new_ones(()).expand_as(bins))
    return counts


def mean_luma(pixels: Tensor, numbers: Tensor) -> Tensor:
    """Mean of the images as greys, [n] float64."""
    if _on_host(pixels):
        total = torch.empty(len(numbers), dtype=torch.int64)
        _on_cpu(pixels_cpu.sum_luma, pixels, numbers, total)
    else:
        total = _luma(pixels.index_select(0, numbers)).flatten(1).sum(dim=1)
    return total.double() / (pixels.shape[1] * pixels.shape[2])


def saturate(pixels: Tensor, numbers: Tensor, factors: Tensor) -> None:
    """Grey for a factor of 0, the image for 1, more than its colours above; ``factors [n] float32``."""
    _change(pixels, numbers, pixels_cpu.saturate, _saturated, factors)


def turn_hue(pixels: Tensor, numbers: Tensor, steps: Tensor) -> None:
    """Move hues, in 0..255, by ``steps [n] int64`` modulo 256, as torchvision does it with Pillow's HSV images."""
    _change(pixels, numbers, pixels_cpu.turn_hue, _turned, steps)


def sharpen(pixels: Tensor, numbers: Tensor, factors: Tensor) -> None:
    """Smoothed by 3x3 pixels for a factor of 0, the image for 1, sharper above; ``factors [n] float32``.

    Pixels of the border stay as they are.
    """
    _change(pixels, numbers, pixels_cpu.sharpen, _sharpened, factors)


def blur(pixels: Tensor, numbers: Tensor, weights: Tensor) -> None:
    """Blur three times along the rows and three times along the columns, as Pillow's GaussianBlur does.

    ``weights [n, 3] int64`` are those of a pixel, of its two neighbours, and of theirs, in 2^-24.
    """
    _change(pixels, numbers, pixels_cpu.blur, _blurred, weights)


def transform(pixels: Tensor, numbers: Tensor, matrices: Tensor, sampling: Sampling) -> None:
    """Move pixels: that at (x, y) comes from (a x + b y + c, d x + e y + f).

    Args:
        pixels: of the batch.
        numbers: of the images.
        matrices: [n, 6] float64, a to f, from pixels to pixels; whole numbers lie between pixels.
        sampling: how pixels are read.
    """
    kernel = getattr(pixels_cpu, f"transform_{sampling.interpolation}")
    if _on_host(pixels):
        _on_cpu(kernel, pixels, numbers, matrices, torch.tensor(sampling.fill, dtype=torch.uint8))
    else:
        _change(pixels, numbers, kernel, functools.partial(_moved, sampling=sampling), matrices)


def blend(base: Tensor, values: Tensor, factor: Tensor) -> Tensor:
    """``base`` for a factor of 0, ``values`` for 1, rounded to uint8 as Pillow's ``blend`` does it, in float32."""
    base = base.float()
    return (base + factor.float() * (values.float() - base)).clamp(0, 255).to(torch.uint8)


def _look_up(pixels: Tensor, tables: Tensor) -> Tensor:
    return tables.flatten(1).gather(1, _bins(pixels)).view_as(pixels)


def _saturated(pixels: Tensor, factors: Tensor) -> Tensor:
    return blend(_luma(pixels)[..., None], pixels, factors[:, None, None, None])


def _turned(pixels: Tensor, steps: Tensor) -> Tensor:
    red, green, blue = pixels.float().unbind(3)
    top, low = pixels.amax(dim=3), pixels.amin(dim=3)
    spread = (top - low).float()
    some = spread.clamp(min=1)
    # Numbers that Pillow keeps in float32 are rounded to it, and computed with in float64.
    r, g, b = (((top.float() - value) / some).double() for value in (red, green, blue))
    hue = torch.where(red == top, b - g, torch.where(green == top, 2 + r - b, 4 + g - r))
    hue = (hue.float().double() / 6 + 1).remainder(1).float()
    hue = torch.where(spread == 0, 0, (hue.double() * 255).long())
    hue = (hue + steps[:, None, None]) % 256
    saturation = torch.where(spread == 0, 0, ((spread / top.clamp(min=1)).double() * 255).long())
    sector = (hue.double() * 6 / 255).floor()
    rest, share, value = (hue.double() * 6 / 255 - sector).float().double(), (saturation / 255).double(), top.double()
    p, q, t = ((value * (1 - share * factor) + 0.5).floor() for factor in (torch.ones_like(rest), rest, 1 - rest))
    sector = sector.long() % 6
    colours = ((value, t, p), (q, value, p), (p, value, t), (p, q, value), (t, p, value), (value, p, q))
    turned = torch.stack(colours[5], dim=3)
    for number, colour in enumerate(colours[:5]):
        turned = torch.stack(colour, dim=3).where((sector == number)[..., None], turned)
    return turned.to(torch.uint8)


def _sharpened(pixels: Tensor, factors: Tensor) -> Tensor:
    wide = pixels.int()
    height, width = pixels.shape[1:3]
    total = 4 * wide[:, 1:-1, 1:-1]
    for row in range(3):
        for column in range(3):
            total += wide[:, row : height - 2 + row, column : width - 2 + column]
    smooth = wide.clone()
    smooth[:, 1:-1, 1:-1] = (2 * total + 13) // 26
    return blend(smooth, pixels, factors[:, None, None, None])


def _blurred(pixels: Tensor, weights: Tensor) -> Tensor:
    w0, w1, w2 = weights[:, :, None, None, None].unbind(1)
    blurred = pixels.long()
    for dim in (2, 2, 2, 1, 1, 1):
        size = blurred.shape[dim]
        places = torch.arange(size, device=pixels.device)
        near, far = (
            blurred.index_select(dim, (places - k).clamp(min=0))
            + blurred.index_select(dim, (places + k).clamp(max=size - 1))
            for k in (1, 2)
        )
        blurred = (w0 * blurred + w1 * near + w2 * far + 0x800000) >> 24
    return blurred.to(torch.uint8)


def _moved(pixels: Tensor, matrices: Tensor, sampling: Sampling) -> Tensor:
    height, width = pixels.shape[1:3]
    if sampling.interpolation == "nearest":
        x, y = (_fixed_point(matrices[:, k : k + 3], height, width) >> 16 for k in (0, 3))
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        moved: Tensor = _read(pixels, y, x)
    else:
        column, row = (torch.arange(size, device=pixels.device) + 0.5 for size in (width, height))
        a, b, c, d, e, f = matrices[:, :, None, None].unbind(1)
        x, y = a * column + b * row[:, None] + c, d * column + e * row[:, None] + f
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        left, top = (x - 0.5).floor(), (y - 0.5).floor()
        dx, dy = ((x - 0.5) - left)[..., None], ((y - 0.5) - top)[..., None]
        taps, mix = {"bilinear": ((0, 1), _linear), "bicubic": ((-1, 0, 1, 2), _cubic)}[sampling.interpolation]
        rows = [
            mix(*(_read(pixels, top.long() + i, left.long() + j).double() for j in taps), dx)  # type: ignore[operator]
            for i in taps
        ]
        moved = mix(*rows, dy).clamp(0, 255).to(torch.uint8)  # type: ignore[operator]
    fill = pixels.new_empty(3)
    for channel, level in enumerate(sampling.fill):
        fill[channel].fill_(level)  # Copied from a list, the device would be waited for.
    return moved.where(inside[..., None], fill)


def _linear(v0: Tensor, v1: Tensor, d: Tensor) -> Tensor:
    return v0 + (v1 - v0) * d


def _cubic(v0: Tensor, v1: Tensor, v2: Tensor, v3: Tensor, d: Tensor) -> Tensor:
    return v1 + d * (-v0 + v2 + d * (2 * (v0 - v1) + v2 - v3 + d * (-v0 + v1 - v2 + v3)))


def _fixed_point(row: Tensor, height: int, width: int) -> Tensor:
    """A coordinate of every pixel's origin, [n, H, W] int64 in 1/65536 pixel."""
    dx, dy, start = (
        (value * 65536 + 0.5).floor().long()[:, None, None]
        for value in (row[:, 0], row[:, 1], row[:, 2] + row[:, 0] * 0.5 + row[:, 1] * 0.5)
    )
    columns, rows = (torch.arange(size, device=row.device) for size in (width, height))
    return start + rows[:, None] * dy + columns * dx


def _read(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``pixels[i, rows, columns]``, [n, H, W, 3], those outside from the nearest of the border."""
    count, height, width = pixels.shape[:3]
    first = torch.arange(count, device=pixels.device)[:, None, None] * height
    index = (first + rows.clamp(0, height - 1)) * width + columns.clamp(0, width - 1)
    return pixels.view(-1, 3).index_select(0, index.view(-1)).view_as(pixels)


def _luma(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.int().unbind(3)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _bins(pixels: Tensor) -> Tensor:
    """Where each level is counted: [n, H W 3] int64 into [3 x 256]."""
    return (pixels.long() + 256 * torch.arange(3, device=pixels.device)).flatten(1)


def _on_host(pixels: Tensor) -> bool:
    return pixels.device.type == "cpu"


def _set_threads() -> None:
    """As many of numba's threads as torch has."""
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def _on_cpu(kernel: Callable, *arguments: Tensor) -> None:
    _set_threads()
    kernel(*(argument.numpy() for argument in arguments))


def _change(pixels: Tensor, numbers: Tensor, kernel: Callable, function: Callable, *arguments: Tensor) -> None:
    """Overwrite the images, by ``kernel`` on a CPU; elsewhere by what ``function`` makes of them."""
    if _on_host(pixels):
        _on_cpu(kernel, pixels, numbers, *arguments)
    elif len(numbers) == len(pixels):
        pixels.copy_(function(pixels, *arguments))
    else:
        pixels.index_copy_(0, numbers, function(pixels.index_select(0, numbers), *arguments))
