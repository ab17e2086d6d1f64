"""Image folders: which files there are, and their labels."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffcv_imagenet.names import shown

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
        repeated: folders relative to ``folder`` that are links to one that is read already.
    """

    folder: Path
    classes: tuple[str, ...]
    files: list[str]
    labels: np.ndarray
    digest: str
    repeated: tuple[str, ...] = ()


def scan_splits(root: Path, splits: Sequence[str]) -> dict[str, ImageFolder]:
    """List the images of ``root/<split>`` for each of ``splits`` (``train``, ``val``).

    Labels must mean the same in both splits, so every split has the classes of ``root/train`` (of itself where
    there is no train folder).

    Raises:
        FileNotFoundError: a folder that is not there, or one without class folders.
        ValueError: a class without images, or a split whose classes are not those of ``root/train``.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"image folder not found: {shown(root)}")
    train = root / "train"
    expected = _class_names(train) if train.is_dir() else None
    scanned = {}
    for split in splits:
        classes = _class_names(root / split)
        if expected is not None and classes != expected:
            raise ValueError(
                f"{shown(root / split)} must have the classes of {shown(train)}: {_difference(classes, expected)}"
            )
        scanned[split] = _scan(root / split, classes)
    return scanned


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise FileNotFoundError(f"folder not found: {shown(folder)} (expected is {shown(folder)}/<class>/<image>)")
    names = tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()))
    if not names:
        raise FileNotFoundError(f"no class folders in {shown(folder)} (expected is {shown(folder)}/<class>/<image>)")
    return names


def _difference(got: Sequence[str], expected: Sequence[str]) -> str:
    parts = []
    for what, names in (("missing", set(expected) - set(got)), ("not in train", set(got) - set(expected))):
        if names:
            some = ", ".join(shown(name) for name in sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
            parts.append(f"{len(names)} {what} ({some})")
    return "; ".join(parts)


def _scan(folder: Path, classes: tuple[str, ...]) -> ImageFolder:
    files: list[str] = []
    labels: list[int] = []
    repeated: list[str] = []
    digest = hashlib.blake2b(repr(classes).encode(), digest_size=16)
    for label, name in enumerate(classes):
        before = len(files)
        for where, names in sorted(_walk(folder / name, repeated)):
            for file in sorted(names):
                if file.lower().endswith(IMAGE_EXTENSIONS):
                    path = os.path.join(where, file)  # noqa: PTH118 (a Path for each of a million files takes a minute)
                    files.append(path[len(str(folder)) + 1 :])
                    digest.update(repr((files[-1], _size(path))).encode())
        if len(files) == before:
            raise ValueError(
                f"class folder {shown(folder / name)} has no images (names must end in {', '.join(IMAGE_EXTENSIONS)})"
            )
        labels.extend([label] * (len(files) - before))
    repeated = [os.path.relpath(path, folder) for path in repeated]
    return ImageFolder(folder, classes, files, np.array(labels, np.int64), digest.hexdigest(), tuple(repeated))


def _walk(top: Path, repeated: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The folders in ``top`` with the names of their files; links to folders are followed.

    Each real folder comes once, and none that ``top`` lies in: a link to one of those goes in a circle. The paths of
    the links that are left out are added to ``repeated``.
    """
    seen = {_identity(folder) for folder in top.resolve().parents}
    waiting = deque([str(top)])
    while waiting:
        where = waiting.popleft()
        identity = _identity(where)
        if identity in seen:
            repeated.append(where)
            continue
        seen.add(identity)
        names = []
        with os.scandir(where) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not entry.is_dir():
                    names.append(entry.name)
                elif entry.is_symlink():  # Later, so that a folder goes by its own name.
                    waiting.append(entry.path)
                else:
                    waiting.appendleft(entry.path)
        yield where, names


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116 (a text or a Path)
    return status.st_dev, status.st_ino


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 (as above)
    except OSError:
        return -1  # a dangling link, for one: decoding it will say what is wrong
