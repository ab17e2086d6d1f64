"""The functions of :mod:`~ffcv_imagenet.augment.pixels` on a CPU: one thread per image, one pass over its pixels.

The images stay where they are: memory for changed ones would be new for every batch, and the system takes longer to
clear it than most functions here to compute.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from ffcv_imagenet.compiled import cached_njit


@cached_njit(parallel=True, nogil=True)
def look_up(pixels, numbers, tables):  # type: ignore[no-untyped-def]
    """See :func:`~ffcv_imagenet.augment.pixels.look_up`."""
    for i in prange(len(numbers)):
        flat, table = pixels[numbers[i]].reshape(-1, 3), tables[i]
        for k in range(len(flat)):
            for channel in range(3):
                flat[k, channel] = table[channel, flat[k, channel]]


@cached_njit(parallel=True, nogil=True)
def count_values(pixels, numbers, out):  # type: ignore[no-untyped-def]
    """Add to ``out [n, 3, 256]``; see :func:`~ffcv_imagenet.augment.pixels.count_values`."""
    for i in prange(len(numbers)):
        flat, counts = pixels[numbers[i]].reshape(-1, 3), out[i]
        for k in range(len(flat)):
            for channel in range(3):
                counts[channel, flat[k, channel]] += 1


@cached_njit()
def _luma(red, green, blue):  # type: ignore[no-untyped-def]
    """Pillow's grey, in float32, which holds these whole numbers exactly and keeps the loops in vectors."""
    weighted = np.float32(red) * np.float32(19595) + np.float32(green) * np.float32(38470)
    return np.floor((weighted + np.float32(blue) * np.float32(7471) + np.float32(0x8000)) * np.float32(2**-16))


@cached_njit()
def _blend(base, value, factor):  # type: ignore[no-untyped-def]
    """Between two levels in float32, or beyond, as Pillow's ``blend`` rounds it."""
    return np.uint8(min(max(base + factor * (value - base), np.float32(0)), np.float32(255)))


@cached_njit(parallel=True, nogil=True)
def sum_luma(pixels, numbers, out):  # type: ignore[no-untyped-def]
    """Fill ``out [n] int64``; see :func:`~ffcv_imagenet.augment.pixels.mean_luma`."""
    for i in prange(len(numbers)):
        flat, total = pixels[numbers[i]].reshape(-1, 3), np.int64(0)
        for k in range(len(flat)):
            total += np.int64(_luma(flat[k, 0], flat[k, 1], flat[k, 2]))
        out[i] = total


@cached_njit(parallel=True, nogil=True)
def saturate(pixels, numbers, factors):  # type: ignore[no-untyped-def]
    """See :func:`~ffcv_imagenet.augment.pixels.saturate`."""
    for i in prange(len(numbers)):
        flat, factor = pixels[numbers[i]].reshape(-1, 3), factors[i]
        for k in range(len(flat)):
            luma = _luma(flat[k, 0], flat[k, 1], flat[k, 2])
            for channel in range(3):
                flat[k, channel] = _blend(luma, np.float32(flat[k, channel]), factor)


@cached_njit()
def _hue_and_saturation(red, green, blue, top, low):  # type: ignore[no-untyped-def]
    """Both in 0..255, as Pillow's HSV images have them."""
    if top == low:
        return 0, 0
    spread = np.float32(top - low)
    r, g, b = np.float32(top - red) / spread, np.float32(top - green) / spread, np.float32(top - blue) / spread
    if red == top:
        hue = b - g
    elif green == top:
        hue = np.float32(2 + r - b)
    else:
        hue = np.float32(4 + g - r)
    hue = np.float32((hue / 6.0 + 1.0) % 1.0)
    return int(hue * 255.0), int(spread / np.float32(top) * 255.0)


@cached_njit(parallel=True, nogil=True)
def turn_hue(pixels, numbers, steps):  # type: ignore[no-untyped-def]
    """See :func:`~ffcv_imagenet.augment.pixels.turn_hue`."""
    for i in prange(len(numbers)):
        flat = pixels[numbers[i]].reshape(-1, 3)
        for k in range(len(flat)):
            red, green, blue = np.int64(flat[k, 0]), np.int64(flat[k, 1]), np.int64(flat[k, 2])
            top = max(red, green, blue)
            hue, saturation = _hue_and_saturation(red, green, blue, top, min(red, green, blue))
            hue = (hue + steps[i]) % 256
            sector = int(hue * 6.0 / 255.0)
            rest, share = np.float32(hue * 6.0 / 255.0 - sector), np.float32(saturation / 255.0)
            p = int(top * (1 - share) + 0.5)
            q = int(top * (1 - share * rest) + 0.5)
            t = int(top * (1 - share * (1 - rest)) + 0.5)
            sector %= 6
            if sector == 0:
                colour = (top, t, p)
            elif sector == 1:
                colour = (q, top, p)
            elif sector == 2:
                colour = (p, top, t)
            elif sector == 3:
                colour = (p, q, top)
            elif sector == 4:
                colour = (t, p, top)
            else:
                colour = (top, p, q)
            for channel in range(3):
                flat[k, channel] = colour[channel]


@cached_njit(parallel=True, nogil=True)
def sharpen(pixels, numbers, factors):  # type: ignore[no-untyped-def]
    """See :func:`~ffcv_imagenet.augment.pixels.sharpen`."""
    for i in prange(len(numbers)):
        height, width, factor = pixels.shape[1], 3 * pixels.shape[2], factors[i]
        target = pixels[numbers[i]].reshape(height, width)
        flat, of_three_rows = target.copy(), np.empty(width, np.float32)
        for row in range(1, height - 1):
            above, here, below = flat[row - 1], flat[row], flat[row + 1]
            for k in range(width):
                of_three_rows[k] = np.float32(above[k]) + np.float32(here[k]) + np.float32(below[k])
            left, middle, right = of_three_rows[:-6], of_three_rows[3:-3], of_three_rows[6:]
            inner, smoothed = here[3:-3], target[row, 3:-3]
            for k in range(width - 6):
                total = left[k] + middle[k] + right[k] + np.float32(4) * np.float32(inner[k])
                smooth = np.floor(total * np.float32(1 / 13) + np.float32(0.5))
                smoothed[k] = _blend(smooth, np.float32(inner[k]), factor)


@cached_njit(parallel=True, nogil=True)
def transform_nearest(pixels, numbers, matrices, fill):  # type: ignore[no-untyped-def]
    """See :func:`~ffcv_imagenet.augment.pixels.transform`. Whole numbers of 1/65536 pixel, as Pillow."""
    height, width = pixels.shape[1], pixels.shape[2]
    for i in prange(len(numbers)):
        a, target = matrices[i], pixels[numbers[i]]
        source = target.copy()
        dx, dy = np.int64(math.floor(a[0] * 65536 + 0.5)), np.int64(math.floor(a[3] * 65536 + 0.5))
        row_dx, row_dy = np.int64(math.floor(a[1] * 65536 + 0.5)), np.int64(math.floor(a[4] * 65536 + 0.5))
        row_x = np.int64(math.floor((a[2] + a[0] * 0.5 + a[1] * 0.5) * 65536 + 0.5))
        row_y = np.int64(math.floor((a[5] + a[3] * 0.5 + a[4] * 0.5) * 65536 + 0.5))
        for row in range(height):
            x, y = row_x, row_y
            for column in range(width):
                from_column, from_row = x >> 16, y >> 16
                if 0 <= from_column < width and 0 <= from_row < height:
                    for channel in range(3):
                        target[row, column, channel] = source[from_row, from_column, channel]
                else:
                    for channel in range(3):
                        target[row, column, channel] = fill[channel]
                x += dx
                y += dy
            row_x += row_dx
            row_y += row_dy


@cached_njit()
def _offset(place, most, step):  # type: ignore[no-untyped-def]
    """Where a row or a column begins, the nearest one for a place outside; unsigned, which numba does not check."""
    return np.uintp(step * min(max(place, 0), most))


@cached_njit()
def _linear(flat, first, second, d):  # type: ignore[no-untyped-def]
    value = np.float64(flat[first])
    return value + (np.float64(flat[second]) - value) * d if d != 0 else value


@cached_njit(parallel=True, nogil=True)
def transform_bilinear(pixels, numbers, matrices, fill):  # type: ignore[no-untyped-def]
    """See :func:`~ffcv_imagenet.augment.pixels.transform`."""
    height, width = pixels.shape[1], pixels.shape[2]
    for i in prange(len(numbers)):
        a, target = matrices[i], pixels[numbers[i]]
        flat = target.copy().reshape(-1)
        for row in range(height):
            for column in range(width):
                x = a[0] * (column + 0.5) + a[1] * (row + 0.5) + a[2]
                y = a[3] * (column + 0.5) + a[4] * (row + 0.5) + a[5]
                if 0 <= x < width and 0 <= y < height:
                    left, top = np.int64(math.floor(x - 0.5)), np.int64(math.floor(y - 0.5))
                    dx, dy = x - 0.5 - left, y - 0.5 - top
                    c0, c1 = _offset(left, width - 1, 3), _offset(left + 1, width - 1, 3)
                    r0, r1 = _offset(top, height - 1, 3 * width), _offset(top + 1, height - 1, 3 * width)
                    for channel in range(3):
                        k = np.uintp(channel)
                        value = _linear(flat, r0 + c0 + k, r0 + c1 + k, dx)
                        if dy != 0:
                            value += (_linear(flat, r1 + c0 + k, r1 + c1 + k, dx) - value) * dy
                        target[row, column, channel] = np.uint8(value)
                else:
                    for channel in range(3):
                        target[row, column, channel] = fill[channel]


@cached_njit()
def _cubic(v0, v1, v2, v3, d):  # type: ignore[no-untyped-def]
    """Keys's cubic convolution with a = -1, as Pillow's transformations have it."""
    return v1 + d * (-v0 + v2 + d * (2 * (v0 - v1) + v2 - v3 + d * (-v0 + v1 - v2 + v3)))


@cached_njit()
def _cubic_row(flat, start, c0, c1, c2, c3, d):  # type: ignore[no-untyped-def]
    if d == 0:
        return np.float64(flat[start + c1])
    return _cubic(
        np.float64(flat[start + c0]),
        np.float64(flat[start + c1]),
        np.float64(flat[start + c2]),
        np.float64(flat[start + c3]),
        d,
    )


@cached_njit(parallel=True, nogil=True)
def transform_bicubic(pixels, numbers, matrices, fill):  # type: ignore[no-untyped-def]
    """See :func:`~ffcv_imagenet.augment.pixels.transform`."""
    height, width = pixels.shape[1], pixels.shape[2]
    for i in prange(len(numbers)):
        a, target = matrices[i], pixels[numbers[i]]
        flat = target.copy().reshape(-1)
        for row in range(height):
            for column in range(width):
                x = a[0] * (column + 0.5) + a[1] * (row + 0.5) + a[2]
                y = a[3] * (column + 0.5) + a[4] * (row + 0.5) + a[5]
                if 0 <= x < width and 0 <= y < height:
                    left, top = np.int64(math.floor(x - 0.5)), np.int64(math.floor(y - 0.5))
                    dx, dy = x - 0.5 - left, y - 0.5 - top
                    c0, c1 = _offset(left - 1, width - 1, 3), _offset(left, width - 1, 3)
                    c2, c3 = _offset(left + 1, width - 1, 3), _offset(left + 2, width - 1, 3)
                    r0, r1 = _offset(top - 1, height - 1, 3 * width), _offset(top, height - 1, 3 * width)
                    r2, r3 = _offset(top + 1, height - 1, 3 * width), _offset(top + 2, height - 1, 3 * width)
                    for channel in range(3):
                        k = np.uintp(channel)
                        value = _cubic_row(flat, r1 + k, c0, c1, c2, c3, dx)
                        if dy != 0:
                            above = _cubic_row(flat, r0 + k, c0, c1, c2, c3, dx)
                            below = _cubic_row(flat, r2 + k, c0, c1, c2, c3, dx)
                            far_below = _cubic_row(flat, r3 + k, c0, c1, c2, c3, dx)
                            value = _cubic(above, value, below, far_below, dy)
                        target[row, column, channel] = np.uint8(min(max(value, 0.0), 255.0))
                else:
                    for channel in range(3):
                        target[row, column, channel] = fill[channel]


@cached_njit()
def _blur_rows(source, weights, target):  # type: ignore[no-untyped-def]
    """Each pixel from five of its column: see :func:`~ffcv_imagenet.augment.pixels.blur`."""
    height = len(source)
    for row in range(height):
        above, below = source[max(row - 1, 0)], source[min(row + 1, height - 1)]
        far_above, far_below = source[max(row - 2, 0)], source[min(row + 2, height - 1)]
        for column in range(source.shape[1]):
            for channel in range(3):
                total = weights[0] * source[row, column, channel] + 0x800000
                total += weights[1] * (np.int64(above[column, channel]) + below[column, channel])
                total += weights[2] * (np.int64(far_above[column, channel]) + far_below[column, channel])
                target[row, column, channel] = total >> 24


@cached_njit(parallel=True, nogil=True)
def blur(pixels, numbers, weights):  # type: ignore[no-untyped-def]
    """See :func:`~ffcv_imagenet.augment.pixels.blur`."""
    for i in prange(len(numbers)):
        target = pixels[numbers[i]]
        one = target.transpose(1, 0, 2).copy()
        other = np.empty_like(one)
        for _ in range(3):
            _blur_rows(one, weights[i], other)
            one, other = other, one
        one, other = one.transpose(1, 0, 2).copy(), other.transpose(1, 0, 2).copy()
        for _ in range(3):
            _blur_rows(one, weights[i], other)
            one, other = other, one
        target[:] = one
