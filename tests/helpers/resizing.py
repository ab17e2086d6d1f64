"""The resizing filters by their definition, in float64."""

import numpy as np


def triangle(x):
    return np.clip(1 - np.abs(x), 0, None)


def cubic(x, a=-0.5):
    """R. Keys, "Cubic convolution interpolation for digital image processing", 1981."""
    x = np.abs(x)
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def weights(resize, length, side):
    """What each of ``length`` pixels weighs for each of ``side``: [side, length]."""
    scale, pixels, outputs = length / side, np.arange(length), np.arange(side)[:, None]
    if resize == "area":
        shared = np.minimum(pixels + 1, (outputs + 1) * scale) - np.maximum(pixels, outputs * scale)
        weight = np.clip(shared, 0, None)
    else:
        distance = (pixels + 0.5 - (outputs + 0.5) * scale) / max(scale, 1)
        weight = {"triangle": triangle, "bicubic": cubic}[resize](distance)
    return weight / weight.sum(1, keepdims=True)


def resized(pixels, box, out, resize):
    """Crop ``box`` (x, y, w, h) of [H, W, C] and resize it to ``out`` (width, height), neither clipped nor rounded."""
    x, y, w, h = box
    crop = pixels[y : y + h, x : x + w].astype(float)
    down = np.tensordot(weights(resize, h, out[1]), crop, 1)
    return np.tensordot(weights(resize, w, out[0]), down, (1, 1)).transpose(1, 0, 2)
