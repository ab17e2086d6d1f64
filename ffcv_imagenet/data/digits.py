"""Scikit-learn's handwritten digits as an image folder, for the demonstration and the tests.

1,797 real images (8 x 8 pixels, 17 grey levels) of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten
Digits", UCI Machine Learning Repository, 1998, which come with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ffcv_imagenet.script import OneLineParser, run_script

#: Every so many-th image of a class is for validation.
_VAL_EVERY = 5

_SIDE = 40


def draw_digits(folder: Path) -> None:
    """Write ``folder/train/<digit>/NNNN.png`` and ``folder/val/...``, grey images of 40 x 40 pixels.

    Each class gives every fifth image to ``val``: 1,442 images for training, 355 for validation.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    seen = np.zeros(10, dtype=int)
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        split = "val" if seen[label] % _VAL_EVERY == 0 else "train"
        seen[label] += 1
        image = Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8))
        target = folder / split / str(label) / f"{number:04d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(target)


def main(argv: Sequence[str]) -> None:
    """``python -m ffcv_imagenet.data.digits FOLDER``."""
    parser = OneLineParser(
        prog="python -m ffcv_imagenet.data.digits",
        description="Write scikit-learn's handwritten digits as an image folder.",
    )
    parser.add_argument("folder", type=Path, help="where train/ and val/ go")
    draw_digits(parser.parse_args(argv).folder)


if __name__ == "__main__":
    run_script(main)
