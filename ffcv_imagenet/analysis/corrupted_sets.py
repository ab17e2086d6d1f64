"""Corrupted images that are given, as they are published: CIFAR-10-C's arrays, ImageNet-C's folders, .beton files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ffcv_imagenet.analysis.corrupt import LEVELS, SEVERITIES
from ffcv_imagenet.analysis.folders import opened
from ffcv_imagenet.analysis.outputs import ImageReader, Images
from ffcv_imagenet.analysis.subject import Subject
from ffcv_imagenet.data.format.manifest import Manifest, file_checksum
from ffcv_imagenet.data.read.orders import ShardedOrder
from ffcv_imagenet.data.sources.folder import scan_folder
from ffcv_imagenet.names import shown

#: Side of the images in arrays.
ARRAY_SIDE = SEVERITIES["cifar"].side


def list_names(folder: Path) -> list[str]:
    """The corruptions in a folder: ``NAME.npy``, ``NAME/1`` to ``NAME/5``, or ``NAME/1.beton`` to ``NAME/5.beton``.

    Raises:
        FileNotFoundError: there is none.
    """
    arrays = [file.stem for file in folder.glob("*.npy") if file.stem != "labels"]
    cells = [place.name for place in folder.glob("*") if _cell(place, 1).exists()]
    if not arrays and not cells:
        raise FileNotFoundError(f"no NAME.npy, NAME/1/<class>/<image> or NAME/1.beton in {shown(folder)}")
    return sorted({*arrays, *cells})


def is_array(folder: Path, name: str) -> bool:
    """Whether a corruption is a file NAME.npy."""
    return (folder / f"{name}.npy").is_file()


def checksums(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """What says whether these are the same images: of folders, a hash of the names and sizes of their files.

    Raises:
        FileNotFoundError: a file or a folder is not there.
        ValueError: a folder without images, or a .beton without its manifest.
    """
    found: dict[str, str] = {}
    for name in names:
        if is_array(folder, name):
            if not (folder / "labels.npy").is_file():
                raise FileNotFoundError(f"labels.npy, the labels of {name}.npy, is not in {shown(folder)}")
            found |= {file: file_checksum(folder / file) for file in ("labels.npy", f"{name}.npy")}
            continue
        for severity in range(1, LEVELS + 1):
            cell = _cell(folder / name, severity)
            key = cell.relative_to(folder).as_posix()
            found[key] = scan_folder(cell).digest if cell.is_dir() else Manifest.read(cell).checksum
    return found


def _cell(folder: Path, severity: int) -> Path:
    beton = folder / f"{severity}.beton"
    return beton if beton.is_file() else folder / str(severity)


def read_corrupted(
    subject: Subject, folder: Path, name: str, severity: int, classes: Sequence[str]
) -> Iterator[Images]:
    """This rank's part of one severity of a corruption. Images in folders and .beton files are taken whole: they are
    cut out already.

    Raises:
        ValueError, OSError: arrays of another shape or type, labels or ``classes`` that do not fit, damaged images.
    """
    if is_array(folder, name):
        yield from _read_array(subject, folder, name, severity)
        return
    cell = _cell(folder / name, severity)
    with opened([str(cell)], subject.world) as found:
        (data,) = found.values()
        if list(data.manifest.classes) != list(classes):
            raise ValueError(f"{shown(cell)} has other classes than the validation images")
        yield from ImageReader(subject, data.path, crop_ratio=1.0)


def _read_array(subject: Subject, folder: Path, name: str, severity: int) -> Iterator[Images]:
    images, labels = _arrays(folder, name, subject.num_classes)
    count, world, batch = len(images) // LEVELS, subject.world, subject.config.validation.batch_size
    own = ShardedOrder(count, world.rank, world.size).sample_order(0)
    for first in range(0, len(own), batch):
        numbers = own[first : first + batch]
        rows = slice((severity - 1) * count + int(numbers[0]), (severity - 1) * count + int(numbers[-1]) + 1)
        pixels = torch.from_numpy(np.array(images[rows])).permute(0, 3, 1, 2)
        target = np.array(labels[rows] if len(labels) == len(images) else labels[numbers]).astype(np.int64)
        yield Images(numbers, pixels.to(world.device), torch.from_numpy(target).to(world.device))


def _arrays(folder: Path, name: str, num_classes: int) -> tuple[Any, Any]:
    images, labels = (np.load(folder / f"{file}.npy", mmap_mode="r", allow_pickle=False) for file in (name, "labels"))
    side = ARRAY_SIDE
    if images.dtype != np.uint8 or images.shape[1:] != (side, side, 3) or len(images) % LEVELS:
        raise ValueError(f"{folder / name}.npy: got {images.dtype} {images.shape}, allowed is uint8 [5 N, 32, 32, 3]")
    if labels.shape not in ((len(images) // LEVELS,), (len(images),)) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{folder / 'labels.npy'}: got {labels.dtype} {labels.shape}, allowed are {len(images)} labels"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"{folder / 'labels.npy'}: allowed are labels from 0 to {num_classes - 1}")
    return images, labels
