"""Part of a .beton file's samples: a list of their numbers, and the manifest of what is left."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from ffcv_imagenet.data.format.beton import read_samples
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.names import shown


def read_subset(path: Path, num_samples: int) -> np.ndarray:
    """The samples, counted from 0, that a file lists: one per line, or an array of whole numbers in an ``.npy`` file.

    Args:
        path: the list.
        num_samples: of the .beton file.

    Returns:
        [N] int64, in rising order, N > 0.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something else than such numbers, one that is not in the file, one twice, or none at all.
    """
    if not path.is_file():
        raise FileNotFoundError(f"data.subset: file not found: {shown(path)}")
    samples = _read_array(path) if path.suffix == ".npy" else _read_lines(path)
    if not len(samples):
        raise ValueError(f"data.subset: {shown(path)} lists no sample")
    for number in (samples.min(), samples.max()):
        if not 0 <= number < num_samples:
            raise ValueError(
                f"data.subset: {shown(path)} lists the sample {number}, allowed is 0 to {num_samples - 1}, those of "
                f"data.train"
            )
    once, counts = np.unique(samples, return_counts=True)
    if len(once) < len(samples):
        raise ValueError(f"data.subset: {shown(path)} lists the sample {once[counts > 1][0]} twice")
    return once


def restrict(manifest: Manifest, beton: Path, samples: np.ndarray) -> Manifest:
    """The manifest of some samples of a .beton file: their number, classes, and a checksum of file and choice."""
    labels = read_samples(beton, manifest).label[samples]
    digest = hashlib.sha256(f"{manifest.checksum} ".encode() + samples.astype("<i8").tobytes())
    return dataclasses.replace(
        manifest,
        num_samples=len(samples),
        images_per_class=tuple(np.bincount(labels, minlength=manifest.num_classes).tolist()),
        checksum=digest.hexdigest(),
    )


def _read_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"data.subset: {shown(path)} is not an .npy file: {error}") from None
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"data.subset: {shown(path)} holds {array.dtype} {array.shape}, allowed is a list of whole numbers"
        )
    return array.astype(np.int64)


def _read_lines(path: Path) -> np.ndarray:
    numbers = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        if word := line.strip():
            if not (word.isascii() and word.isdecimal()) or len(word) > 18:
                raise ValueError(
                    f"data.subset: {shown(path)}, line {number}: got {shown(word[:40])}, allowed is a sample's number"
                )
            numbers.append(int(word))
    return np.array(numbers, np.int64)
