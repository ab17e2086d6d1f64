"""Compare the native decoder's crops with Pillow's: whole image decoded, cropped, antialiased bilinear resize.

The images are made into JPEG of quality 90, of at most 500 px and of two chroma samplings, before.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from ffcv_imagenet.data.format.index import EVERY
from ffcv_imagenet.data.read.crops import random_resized_crop, sample_key
from ffcv_imagenet.data.sources.folder import scan_splits
from ffcv_imagenet.native import build_index, decode_crop


class Sampling(NamedTuple):
    """A chroma sampling, with the lowest median and minimum of the PSNR (dB) that are good enough."""

    name: str
    factor: int
    median: float
    minimum: float


SAMPLINGS = (
    Sampling("4:2:0", cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, 50, 36),
    Sampling("4:4:4", cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, 54, 45),
)

#: Largest mean signed difference that is good enough, of 255.
BIAS_TARGET = 0.2


class Comparison(NamedTuple):
    """Our crop against Pillow's: PSNR in dB, mean of ours - theirs, and whether our other ways give the same pixels."""

    psnr: float
    difference: float
    flip_is_mirror: bool
    index_is_equal: bool


def encode(pixels: np.ndarray, sampling: Sampling) -> bytes:
    """JPEG of quality 90 of [H, W, 3] uint8 RGB."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling.factor]
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    return jpeg.tobytes()


def compare(jpeg: bytes, number: int, resolution: int) -> Comparison:
    """Compare the ``number``-th seeded random crop of an image."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    size, output = (image.height, image.width), (resolution, resolution)
    key = np.uint64(sample_key(0, 0, number))
    box = random_resized_crop(key, *size, 0.08, 1.0, 3 / 4, 4 / 3)
    top, left, height, width = box
    part = image.crop((left, top, left + width, top + height))
    theirs = np.asarray(part.resize(output, Image.Resampling.BILINEAR)).astype(np.int32)
    ours = decode_crop(jpeg, size, box, output)
    difference = ours.astype(np.int32) - theirs
    mse = float(np.mean(difference**2))
    mirrored = decode_crop(jpeg, size, box, output, flip=True)
    indexed = decode_crop(jpeg, size, box, output, index=build_index(jpeg, EVERY), every=EVERY)
    return Comparison(
        10 * np.log10(255**2 / mse) if mse else np.inf,
        float(np.mean(difference)),
        np.array_equal(mirrored, ours[:, ::-1]),
        np.array_equal(indexed, ours),
    )


def row(sampling: Sampling, resolution: int, comparisons: Sequence[Comparison]) -> str:
    """A row of the table."""

    def judged(value: str, reached: bool) -> str:
        return f"{value}: {'met' if reached else '**not met**'}"

    psnr = [comparison.psnr for comparison in comparisons]
    difference = float(np.mean([comparison.difference for comparison in comparisons]))
    cells = (
        sampling.name,
        f"{resolution}",
        judged(f"{np.median(psnr):.1f} (>= {sampling.median})", bool(np.median(psnr) >= sampling.median)),
        judged(f"{min(psnr):.1f} (>= {sampling.minimum})", min(psnr) >= sampling.minimum),
        judged(f"{difference:+.3f} (within {BIAS_TARGET})", abs(difference) <= BIAS_TARGET),
        f"{sum(comparison.flip_is_mirror for comparison in comparisons)} of {len(comparisons)}",
        f"{sum(comparison.index_is_equal for comparison in comparisons)} of {len(comparisons)}",
    )
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="image folder, FOLDER/<class>/<image>")
    parser.add_argument("--crops", type=int, default=1000, help="random crops per row, over the images in turn")
    parser.add_argument("--resolutions", default="160,224", help="pixels: 160,224")
    arguments = parser.parse_args(argv)
    folder = arguments.images.resolve()
    files = scan_splits(folder.parent, (folder.name,))[folder.name].files
    resolutions = [int(number) for number in arguments.resolutions.split(",")]
    comparisons: dict[tuple[Sampling, int], list[Comparison]] = {
        (sampling, resolution): [] for sampling in SAMPLINGS for resolution in resolutions
    }
    for first in range(min(len(files), arguments.crops)):
        image = Image.open(folder / files[first]).convert("RGB")
        image.thumbnail((500, 500))
        for sampling in SAMPLINGS:
            jpeg = encode(np.asarray(image), sampling)
            for number in range(first, arguments.crops, len(files)):
                for resolution in resolutions:
                    comparisons[sampling, resolution].append(compare(jpeg, number, resolution))
    print("| sampling | px | PSNR median, dB | PSNR min, dB | mean difference, of 255 | mirrors | same with index |")
    print("|---|---|---|---|---|---|---|")
    for (sampling, resolution), results in comparisons.items():
        print(row(sampling, resolution, results))


if __name__ == "__main__":
    main()
