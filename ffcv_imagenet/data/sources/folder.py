"""Image folders: which files there are, and their labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: What torchvision's ImageFolder takes for an image, by the end of its name in lower case.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageFolder:
    """One split of a data set in torchvision's ImageFolder layout: ``folder/<class>/**/<image>``.

    Attributes:
        folder: folder of the split.
        classes: class names, sorted; a label is an index into them.
        files: the images relative to ``folder``, in torchvision's order (by class, folder, name).
        labels: [N] int64, in ``0 .. len(classes) - 1``.
        digest: hash of the class names and of the names and sizes of all files. Two listings with the same
            digest hold the same data set, short of an edit that keeps a file's size.
    """

    folder: Path
    classes: tuple[str, ...]
    files: list[str]
    labels: np.ndarray
    digest: str


def scan_splits(root: Path, splits: Sequence[str]) -> dict[str, ImageFolder]:
    """List the images of ``root/<split>`` for each of ``splits`` (``train``, ``val``).

    Labels must mean the same in both splits, so every split has the classes of ``root/train`` (of itself where
    there is no train folder).

    Raises:
        FileNotFoundError: a folder that is not there, or one without class folders.
        ValueError: a class without images, or a split whose classes are not those of ``root/train``.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"image folder not found: {root}")
    train = root / "train"
    expected = _class_names(train) if train.is_dir() else None
    scanned = {}
    for split in splits:
        classes = _class_names(root / split)
        if expected is not None and classes != expected:
            raise ValueError(f"{root / split} must have the classes of {train}: {_difference(classes, expected)}")
        scanned[split] = _scan(root / split, classes)
    return scanned


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise FileNotFoundError(f"folder not found: {folder} (expected is {folder}/<class>/<image>)")
    names = tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()))
    if not names:
        raise FileNotFoundError(f"no class folders in {folder} (expected is {folder}/<class>/<image>)")
    return names


def _difference(got: Sequence[str], expected: Sequence[str]) -> str:
    parts = []
    for what, names in (("missing", set(expected) - set(got)), ("not in train", set(got) - set(expected))):
        if names:
            shown = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
            parts.append(f"{len(names)} {what} ({shown})")
    return "; ".join(parts)


def _scan(folder: Path, classes: tuple[str, ...]) -> ImageFolder:
    files: list[str] = []
    labels: list[int] = []
    digest = hashlib.blake2b(repr(classes).encode(), digest_size=16)
    for label, name in enumerate(classes):
        before = len(files)
        for where, _, names in sorted(os.walk(folder / name, followlinks=True)):
            for file in sorted(names):
                if file.lower().endswith(IMAGE_EXTENSIONS):
                    path = os.path.join(where, file)  # noqa: PTH118 (a Path for each of a million files takes a minute)
                    files.append(path[len(str(folder)) + 1 :])
                    digest.update(repr((files[-1], _size(path))).encode())
        if len(files) == before:
            raise ValueError(
                f"class folder {folder / name} has no images (names must end in {', '.join(IMAGE_EXTENSIONS)})"
            )
        labels.extend([label] * (len(files) - before))
    return ImageFolder(folder, classes, files, np.array(labels, np.int64), digest.hexdigest())


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 (as above)
    except OSError:
        return -1  # a dangling link, for one: decoding it will say what is wrong
