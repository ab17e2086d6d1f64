"""Common corruptions of 32 x 32 images with the severities of CIFAR-10-C (Hendrycks and Dietterich, arXiv 1903.12261).

The arrays that were published cannot be made again to the byte: their random numbers are not known, and they passed
through ImageMagick. What is drawn here has the same distributions and the same severities. ``frost`` is not here: it
needs photographs of ice. Every image has random numbers of its own, so that it does not matter in which order, in how
many processes or next to which others it is corrupted.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage

#: Side of the images, in pixels.
SIDE = 32
LEVELS = 5

Generator = np.random.Generator
#: An image [32, 32, 3] in 0..1, the severity's numbers, the random numbers -> an image whose values may lie outside.
Corruption = Callable[[np.ndarray, Any, Generator], np.ndarray]


def gaussian_noise(x: np.ndarray, sd: float, draw: Generator) -> np.ndarray:
    """Add normal noise."""
    return x + draw.normal(0, sd, x.shape)


def shot_noise(x: np.ndarray, photons: float, draw: Generator) -> np.ndarray:
    """Count photons."""
    return draw.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, share: float, draw: Generator) -> np.ndarray:
    """Make some values 0 or 1, each as likely."""
    hit, salt = draw.random(x.shape) < share, draw.random(x.shape) < 0.5
    return np.where(hit, salt, x)


def speckle_noise(x: np.ndarray, sd: float, draw: Generator) -> np.ndarray:
    """Add noise that grows with the value."""
    return x * (1 + draw.normal(0, sd, x.shape))


def gaussian_blur(x: np.ndarray, sigma: float, draw: Generator) -> np.ndarray:
    """Blur."""
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def defocus_blur(x: np.ndarray, level: tuple[float, float], draw: Generator) -> np.ndarray:
    """Blur with a disk, whose edge is softened."""
    radius, soft = level
    line = np.arange(-8, 9)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float64)
    kernel = cv2.GaussianBlur(disk / disk.sum(), (3, 3), soft)
    return cv2.filter2D(x, -1, kernel)


def glass_blur(x: np.ndarray, level: tuple[float, int, int], draw: Generator) -> np.ndarray:
    """Blur, swap pixels with near ones, one after the other from the last to the first, and blur."""
    sigma, reach, rounds = level
    # As 8-bit values in between, as in the published arrays.
    x = np.floor(255 * ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")) / 255
    places = range(SIDE - reach - 1, reach - 1, -1)
    for _ in range(rounds):
        shifts = draw.integers(-reach, reach, (len(places), len(places), 2)).tolist()
        for row, line in zip(places, shifts, strict=True):
            for column, (down, right) in zip(places, line, strict=True):
                kept = x[row, column].copy()
                x[row, column] = x[row + down, column + right]
                x[row + down, column + right] = kept
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def motion_blur(x: np.ndarray, level: tuple[int, float], draw: Generator) -> np.ndarray:
    """Blur along a line of a random direction within 45 degrees of the horizontal."""
    return _blur_along(x, *level, float(draw.uniform(-45, 45)))


def zoom_blur(x: np.ndarray, end: float, draw: Generator) -> np.ndarray:
    """Average the image with enlargements of it, in steps of 1 %."""
    factors = np.arange(1, end, 0.01)
    return (x + sum(_zoomed(x, factor) for factor in factors)) / (len(factors) + 1)


def snow(x: np.ndarray, level: tuple[float, ...], draw: Generator) -> np.ndarray:
    """Whiten the image, and let flakes fall on it."""
    mean, sd, zoom, threshold, radius, sigma, kept = level
    layer = _zoomed(draw.normal(mean, sd, (SIDE, SIDE, 1)), zoom)
    layer = np.round(255 * np.clip(np.where(layer < threshold, 0, layer), 0, 1)) / 255
    layer = np.round(255 * _blur_along(layer, int(radius), sigma, float(draw.uniform(-135, -45)))) / 255
    grey = (x @ (0.299, 0.587, 0.114))[:, :, None]
    return kept * x + (1 - kept) * np.maximum(x, 1.5 * grey + 0.5) + layer + np.rot90(layer, 2)


def fog(x: np.ndarray, level: tuple[float, float], draw: Generator) -> np.ndarray:
    """Add a cloud, and darken the sum to the image's brightest value."""
    amount, decay = level
    most = x.max()
    return (x + amount * _plasma(decay, draw)[:, :, None]) * most / (most + amount)


def brightness(x: np.ndarray, more: float, draw: Generator) -> np.ndarray:
    """Raise the value in HSV."""
    hsv = cv2.cvtColor(x.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[:, :, 2] = np.clip(hsv[:, :, 2] + more, 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def contrast(x: np.ndarray, factor: float, draw: Generator) -> np.ndarray:
    """Move values towards the mean of their channel."""
    mean = x.mean(axis=(0, 1))
    return (x - mean) * factor + mean


def elastic_transform(x: np.ndarray, level: tuple[float, float, float], draw: Generator) -> np.ndarray:
    """Shear the image by moving three of its points, and stretch it."""
    strength, smoothness, shear = (SIDE * number for number in level)
    third = SIDE // 3
    points = (np.array([[1, 1], [1, -1], [-1, -1]]) * third + SIDE // 2).astype(np.float32)
    moved = points + draw.uniform(-shear, shear, points.shape).astype(np.float32)
    x = cv2.warpAffine(x, cv2.getAffineTransform(points, moved), (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101)
    shifts = draw.uniform(-1, 1, (2, SIDE, SIDE))
    smooth = [ndimage.gaussian_filter(shift, smoothness, mode="reflect", truncate=3) for shift in shifts]
    rows, columns = np.mgrid[:SIDE, :SIDE] + strength * np.stack(smooth)
    channels = [
        ndimage.map_coordinates(x[:, :, c], (rows, columns), order=1, mode="reflect") for c in range(x.shape[2])
    ]
    return np.stack(channels, axis=2)


def pixelate(x: np.ndarray, scale: float, draw: Generator) -> np.ndarray:
    """Shrink and enlarge."""
    small = int(SIDE * scale)
    image = Image.fromarray(to_bytes(x)).resize((small, small), Image.Resampling.BOX)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)) / 255


def jpeg_compression(x: np.ndarray, quality: int, draw: Generator) -> np.ndarray:
    """Store as a JPEG."""
    file = io.BytesIO()
    Image.fromarray(to_bytes(x)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255


#: Each corruption with the numbers of its five severities. The order numbers them for the seeds: add at the end.
CORRUPTIONS: dict[str, tuple[Corruption, Sequence[Any]]] = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": (glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))),
    "motion_blur": (motion_blur, ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))),
    "zoom_blur": (zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26)),
    "snow": (
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "fog": (fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic_transform": (
        elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (jpeg_compression, (80, 65, 58, 50, 40)),
    "speckle_noise": (speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": (gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
}
#: The corruptions of CIFAR-10-C's mean; others are extra.
IN_THE_MEAN = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip


def corrupt(images: np.ndarray, numbers: Sequence[int], name: str, severity: int, seed: int) -> np.ndarray:
    """Corrupt uint8 images [B, 32, 32, 3]; the random numbers of each are those of its number.

    Args:
        images: RGB.
        numbers: of the images in their data set.
        name: one of :data:`CORRUPTIONS`.
        severity: 1..5.
        seed: of all.
    """
    function, levels = CORRUPTIONS[name]
    kind = list(CORRUPTIONS).index(name)
    found = np.empty_like(images)
    for place, number in enumerate(numbers):
        draw = np.random.default_rng((seed, kind, severity, int(number)))
        found[place] = to_bytes(function(images[place] / 255, levels[severity - 1], draw))
    return found


def to_bytes(x: np.ndarray) -> np.ndarray:
    """Values in 0..1 as uint8, cut off below as in the published arrays; what lies outside becomes 0 or 255."""
    return (np.clip(x, 0, 1) * 255 + 1e-6).astype(np.uint8)


def _zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """The centre of the image, enlarged to its size (bilinear)."""
    side = int(np.ceil(SIDE / factor))
    first = (SIDE - side) // 2
    large = ndimage.zoom(x[first : first + side, first : first + side], (factor, factor, 1), order=1)
    trim = (len(large) - SIDE) // 2
    return large[trim : trim + SIDE, trim : trim + SIDE]


def _blur_along(x: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """A moving average with one-sided normal weights along a line, as ImageMagick's motion blur."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    angle = np.deg2rad(degrees)
    right = np.ceil(steps * np.cos(angle) - 0.5).astype(int)
    down = np.ceil(steps * np.sin(angle) - 0.5).astype(int)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    total = np.zeros_like(x)
    for weight, dx, dy in zip(weights / weights.sum(), right, down, strict=True):
        total += weight * x[np.clip(rows + dy, 0, SIDE - 1), np.clip(columns + dx, 0, SIDE - 1)]
    return total


def _plasma(decay: float, draw: Generator) -> np.ndarray:
    """A fractal [32, 32] on a torus, from 0 to 1: each midpoint is the mean of four plus a shrinking random part."""
    cloud, step, roughness = np.zeros((SIDE, SIDE)), SIDE, 100.0

    def with_noise(total: np.ndarray) -> np.ndarray:
        return total / 4 + roughness * draw.uniform(-roughness, roughness, total.shape)

    while step >= 2:
        half = step // 2
        corners = cloud[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        cloud[half::step, half::step] = with_noise(pairs + np.roll(pairs, -1, axis=1))
        centres = cloud[half::step, half::step]
        across = centres + np.roll(centres, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        along = centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        cloud[::step, half::step], cloud[half::step, ::step] = with_noise(across), with_noise(along)
        step, roughness = half, roughness / decay
    cloud -= cloud.min()
    return cloud / cloud.max()
