"""Common corruptions with the severities of CIFAR-10-C and ImageNet-C (Hendrycks and Dietterich, arXiv 1903.12261).

The images that were published cannot be made again to the byte: their random numbers are not known, and they passed
through ImageMagick. What is drawn here has the same distributions and the same severities. ``frost`` needs photographs
of ice, which somebody has to give. Every image has random numbers of its own, so that it does not matter in which
order, in how many processes or next to which others it is corrupted.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from ffcv_imagenet.compiled import cached_njit
from ffcv_imagenet.data.sources.source import IMAGE_EXTENSIONS

LEVELS = 5

Generator = np.random.Generator
#: An image [S, S, 3] in 0..1, the severity's numbers, the random numbers -> an image whose values may lie outside.
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
    reach, edge = (8, 3) if radius <= 8 else (int(radius), 5)
    line = np.arange(-reach, reach + 1)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float64)
    kernel = cv2.GaussianBlur(disk / disk.sum(), (edge, edge), soft)
    return cv2.filter2D(x, -1, kernel)


def glass_blur(x: np.ndarray, level: tuple[float, int, int], draw: Generator) -> np.ndarray:
    """Blur, overwrite pixels by near ones, one after the other from the last to the first, and blur.

    The published images were made by a line that was to swap two pixels, and copies one over the other.
    """
    sigma, reach, rounds = level
    # As 8-bit values in between, as in the published images.
    x = np.floor(255 * ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")) / 255
    count = len(x) - 2 * reach
    for _ in range(rounds):
        _move_pixels(x, reach, draw.integers(-reach, reach, (count, count, 2)))
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


@cached_njit(nogil=True)
def _move_pixels(x: np.ndarray, reach: int, shifts: np.ndarray) -> None:
    """Overwrite pixels of ``x [S, S, 3]``, from the last but ``reach`` on, by those at their shifts down and right."""
    side = len(x)
    for i in range(len(shifts)):
        for j in range(len(shifts)):
            row, column = side - reach - i, side - reach - j
            for channel in range(x.shape[2]):
                x[row, column, channel] = x[row + shifts[i, j, 0], column + shifts[i, j, 1], channel]


def motion_blur(x: np.ndarray, level: tuple[int, float], draw: Generator) -> np.ndarray:
    """Blur along a line of a random direction within 45 degrees of the horizontal."""
    return _blur_along(x, *level, float(draw.uniform(-45, 45)))


def zoom_blur(x: np.ndarray, level: tuple[float, float], draw: Generator) -> np.ndarray:
    """Average the image with enlargements of it."""
    end, step = level
    factors = np.arange(1, end, step)
    return (x + sum(_zoomed(x, factor) for factor in factors)) / (len(factors) + 1)


def snow(x: np.ndarray, level: tuple[float, ...], draw: Generator) -> np.ndarray:
    """Whiten the image, and let flakes fall on it."""
    mean, sd, zoom, threshold, radius, sigma, kept = level
    layer = _zoomed(draw.normal(mean, sd, (*x.shape[:2], 1)), zoom)
    layer = np.round(255 * np.clip(np.where(layer < threshold, 0, layer), 0, 1)) / 255
    layer = np.round(255 * _blur_along(layer, int(radius), sigma, float(draw.uniform(-135, -45)))) / 255
    grey = (x @ (0.299, 0.587, 0.114))[:, :, None]
    return kept * x + (1 - kept) * np.maximum(x, 1.5 * grey + 0.5) + layer + np.rot90(layer, 2)


def frost(x: np.ndarray, level: tuple[float, float, np.ndarray], draw: Generator) -> np.ndarray:
    """Add a piece of a photograph of ice, [H, W, 3] in 0..1 with both sides longer than the image's."""
    kept, added, picture = level
    top, left = (int(draw.integers(0, longer - len(x))) for longer in picture.shape[:2])
    return kept * x + added * picture[top : top + len(x), left : left + len(x)]


def fog(x: np.ndarray, level: tuple[float, float], draw: Generator) -> np.ndarray:
    """Add a cloud, and darken the sum to the image's brightest value."""
    amount, decay = level
    most = x.max()
    return (x + amount * _plasma(len(x), decay, draw)[:, :, None]) * most / (most + amount)


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
    """Shear the image by moving three of its points, and stretch it; the numbers are shares of its side."""
    side = len(x)
    strength, smoothness, shear = (side * number for number in level)
    points = (np.array([[1, 1], [1, -1], [-1, -1]]) * (side // 3) + side // 2).astype(np.float32)
    moved = points + draw.uniform(-shear, shear, points.shape).astype(np.float32)
    x = cv2.warpAffine(x, cv2.getAffineTransform(points, moved), (side, side), borderMode=cv2.BORDER_REFLECT_101)
    shifts = draw.uniform(-1, 1, (2, side, side))
    smooth = [ndimage.gaussian_filter(shift, smoothness, mode="reflect", truncate=3) for shift in shifts]
    rows, columns = np.mgrid[:side, :side] + strength * np.stack(smooth)
    channels = [
        ndimage.map_coordinates(x[:, :, c], (rows, columns), order=1, mode="reflect") for c in range(x.shape[2])
    ]
    return np.stack(channels, axis=2)


def pixelate(x: np.ndarray, scale: float, draw: Generator) -> np.ndarray:
    """Shrink and enlarge."""
    side, small = len(x), int(len(x) * scale)
    image = Image.fromarray(to_bytes(x)).resize((small, small), Image.Resampling.BOX)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX)) / 255


def jpeg_compression(x: np.ndarray, quality: int, draw: Generator) -> np.ndarray:
    """Store as a JPEG."""
    return np.asarray(Image.open(_jpeg(to_bytes(x), quality))) / 255


#: The corruptions. The order numbers them for the seeds: add at the end.
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "speckle_noise": speckle_noise,
    "gaussian_blur": gaussian_blur,
    "frost": frost,
}


@dataclass(frozen=True)
class Severities:
    """The numbers of the five severities of each corruption.

    Attributes:
        name: of the published data set that has them.
        side: of its images, in pixels; the numbers of blurs, snow and frost are pixels of such images.
        levels: by corruption.
        picture_scale: by how much photographs of ice are shrunk.
        jpeg: quality of the JPEG files in which the published images are stored; None where they are arrays.
    """

    name: str
    side: int
    levels: Mapping[str, Sequence[Any]]
    picture_scale: float = 1.0
    jpeg: int | None = None


_CIFAR = Severities(
    "CIFAR-10-C",
    32,
    {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": (500, 250, 100, 75, 50),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion_blur": ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
        "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "elastic_transform": (
            (0, 0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
        "jpeg_compression": (80, 65, 58, 50, 40),
        "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
        "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
        "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    },
    picture_scale=0.2,
)
#: ImageNet-C's side in the numbers of its elastic transform, where its program has 244 for 224.
_SIDE_OF_ELASTIC = 244 / 224
_IMAGENET = Severities(
    "ImageNet-C",
    224,
    {
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": (60, 25, 12, 5, 3),
        "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "snow": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "elastic_transform": tuple(
            tuple(_SIDE_OF_ELASTIC * number for number in level)
            for level in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": (25, 18, 15, 10, 7),
        "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
        "gaussian_blur": (1, 2, 3, 4, 6),
        "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    },
    jpeg=85,
)
#: By the name that an option has.
SEVERITIES: dict[str, Severities] = {"cifar": _CIFAR, "imagenet": _IMAGENET}
#: The corruptions of the mean over all; others are extra.
IN_THE_MEAN = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip


def read_pictures(folder: Path, severities: Severities, side: int) -> list[np.ndarray]:
    """Photographs of ice for ``frost``, by name, at the scale that these severities have them.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: one is no image, or not larger than the images to corrupt.
    """
    pictures = []
    scale = severities.picture_scale
    for file in picture_files(folder):
        try:
            picture = np.asarray(Image.open(file).convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"corruptions.frost: {file} is no image that can be read: {error}") from None
        picture = cv2.resize(picture, (0, 0), fx=scale, fy=scale) if scale != 1 else picture
        if min(picture.shape[:2]) <= side:
            allowed = int(side / scale) + 1
            raise ValueError(f"corruptions.frost: {file} is too small, allowed are more than {allowed} pixels a side")
        pictures.append(picture / 255)
    return pictures


def picture_files(folder: Path) -> list[Path]:
    """The images in a folder, by name; raises FileNotFoundError where there is none."""
    files = sorted(file for file in folder.glob("*") if file.name.lower().endswith(IMAGE_EXTENSIONS))
    if not files:
        raise FileNotFoundError(f"corruptions.frost: no picture in {folder}")
    return files


def corrupt(
    image: np.ndarray,
    number: int,
    name: str,
    severity: int,
    seed: int,
    severities: Severities = _CIFAR,
    pictures: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Corrupt an image, [S, S, 3] uint8; any number of threads may call it.

    Args:
        image: RGB.
        number: of the image in its data set, which decides its random numbers.
        name: one of :data:`CORRUPTIONS`.
        severity: 1..5.
        seed: of all.
        severities: what the five are.
        pictures: of :func:`read_pictures`, for ``frost``; the random numbers choose one.
    """
    level = severities.levels[name][severity - 1]
    draw = np.random.default_rng((seed, list(CORRUPTIONS).index(name), severity, number))
    if name == "frost":
        level = (*level, pictures[int(draw.integers(len(pictures)))])
    found = to_bytes(CORRUPTIONS[name](image / 255, level, draw))
    if severities.jpeg is not None:
        return np.asarray(Image.open(_jpeg(found, severities.jpeg)))
    return found


def to_bytes(x: np.ndarray) -> np.ndarray:
    """Values in 0..1 as uint8, cut off below as in the published arrays; what lies outside becomes 0 or 255."""
    return (np.clip(x, 0, 1) * 255 + 1e-6).astype(np.uint8)


def _jpeg(image: np.ndarray, quality: int) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file


def _zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """The centre of the image, enlarged to its size (bilinear)."""
    whole = len(x)
    side = int(np.ceil(whole / factor))
    first = (whole - side) // 2
    large = ndimage.zoom(x[first : first + side, first : first + side], (factor, factor, 1), order=1)
    trim = (len(large) - whole) // 2
    return large[trim : trim + whole, trim : trim + whole]


def _blur_along(x: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """A moving average with one-sided normal weights along a line, as ImageMagick's motion blur."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    angle = np.deg2rad(degrees)
    right = np.ceil(steps * np.cos(angle) - 0.5).astype(int)
    down = np.ceil(steps * np.sin(angle) - 0.5).astype(int)
    side = len(x)
    rows, columns = np.mgrid[:side, :side]
    total = np.zeros_like(x)
    for weight, dx, dy in zip(weights / weights.sum(), right, down, strict=True):
        total += weight * x[np.clip(rows + dy, 0, side - 1), np.clip(columns + dx, 0, side - 1)]
    return total


def _plasma(side: int, decay: float, draw: Generator) -> np.ndarray:
    """A part [S, S] of a fractal on a torus, from 0 to 1: a midpoint is the mean of four plus a shrinking random part.

    The torus has the next power of 2 on each side.
    """
    whole = 1 << (side - 1).bit_length()
    cloud, step, roughness = np.zeros((whole, whole)), whole, 100.0

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
    return (cloud / cloud.max())[:side, :side]
