"""Small image files and folders, drawn for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from ffcv_imagenet.data.format.manifest import MAX_PIXELS
from ffcv_imagenet.data.sources.pixels import decode_image, read_file


def draw(height: int, width: int, seed: int = 0, noise: int = 20) -> np.ndarray:
    """A coloured gradient with noise, [height, width, 3] uint8; different for every seed."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(0, 1, height)[:, None, None]
    columns = np.linspace(0, 1, width)[None, :, None]
    corners = rng.uniform(30, 220, (3, 3))
    picture = corners[0] + rows * (corners[1] - corners[0]) + columns * (corners[2] - corners[0]) / 2
    picture = picture + rng.uniform(-noise, noise, (height, width, 3))
    return picture.clip(0, 255).astype(np.uint8)


def read_image(path: Path) -> np.ndarray:
    """Pixels of an image file as the writer reads them."""
    return decode_image(read_file(str(path)), MAX_PIXELS)


def draw_folder(
    root: Path,
    train: int = 4,
    val: int = 2,
    classes: tuple[str, ...] = ("cat", "dog"),
    size: tuple[int, int] = (24, 32),
    extension: str = ".png",
) -> Path:
    """An image folder with ``train`` and ``val`` images per class; returns ``root``."""
    seed = 0
    for split, count in (("train", train), ("val", val)):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(draw(*size, seed=seed)).save(folder / f"{number:03}{extension}")
                seed += 1
    return root
