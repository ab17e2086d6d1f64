"""A small data set for a doctor who is given none: drawn images as large as ImageNet's."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from ffcv_imagenet.data.write.parameters import resolve_parameters
from ffcv_imagenet.data.write.splits import write_splits

#: Images of each split and class, each a shifted copy of one of a few that are drawn.
_PER_CLASS = {"train": 32, "val": 8}
_CLASSES, _DRAWN = 8, 4
#: ImageNet's usual size in pixels, and a quality that gives its usual bytes (some 110 kB).
_WIDTH, _HEIGHT, _QUALITY = 500, 375, 90


def write_sample(folder: Path) -> None:
    """Write ``folder/train.beton`` and ``folder/val.beton``, with their manifests and indices."""
    generator, images = np.random.default_rng(0), folder / "images"
    drawn = [_draw(generator) for _ in range(_DRAWN)]
    for split, count in _PER_CLASS.items():
        for label in range(_CLASSES):
            (images / split / str(label)).mkdir(parents=True)
            for number in range(count):
                shift = generator.integers(0, (_HEIGHT, _WIDTH))
                pixels = np.roll(drawn[number % _DRAWN], shift, axis=(0, 1))
                Image.fromarray(pixels).save(images / split / str(label) / f"{number}.jpg", quality=_QUALITY)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        write_splits(images, folder, tuple(_PER_CLASS), resolve_parameters(mode="jpg", reencode=False))


def _draw(generator: np.random.Generator) -> np.ndarray:
    """Noise of all scales, the coarser the stronger, as photographs have it: [height, width, 3] uint8."""
    whole = np.zeros((_HEIGHT, _WIDTH, 3), np.float32)
    for cells, strength in ((2, 50), (8, 30), (32, 20), (125, 15), (500, 14)):
        coarse = generator.normal(0, strength, (max(2, cells * 3 // 4), cells, 3)).astype(np.float32)
        for channel in range(3):
            scaled = Image.fromarray(coarse[..., channel]).resize((_WIDTH, _HEIGHT), Image.Resampling.BILINEAR)
            whole[..., channel] += np.asarray(scaled)
    return np.clip(whole + 128, 0, 255).astype(np.uint8)
