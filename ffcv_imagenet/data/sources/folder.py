"""Image folders: which files there are, and their labels."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffcv_imagenet.data.sources.pixels import read_file
from ffcv_imagenet.data.sources.root import Root
from ffcv_imagenet.data.sources.source import IMAGE_EXTENSIONS, Source, class_difference, listing_digest
from ffcv_imagenet.names import shown

#: What data sets call the images to validate on, besides ``val``. None is taken unasked: they may be for testing.
_OTHER_NAMES_OF_VAL = ("valid", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Source):
    """One split in torchvision's ImageFolder layout: ``folder/<class>/**/<image>``.

    Attributes:
        folder: folder of the split; ``files`` and ``repeated`` are relative to it.
    """

    folder: Path

    def read(self, number: int) -> bytes:
        """Content of the file of sample ``number``; raises ValueError with the reason where it cannot be read."""
        return read_file(self.where(number))

    def where(self, number: int) -> str:
        """Path of the file of sample ``number``."""
        return f"{self.folder}{os.sep}{self.files[number]}"


def looks_like(root: Root) -> bool:
    """Whether there is a folder of a split."""
    return any((root.path / split).is_dir() for split in ("train", "val"))


def open_splits(root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The splits of an image folder; raises as :func:`scan_splits`."""
    return dict(scan_splits(root.path, splits))


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
                f"{shown(root / split)} must have the classes of {shown(train)}: {class_difference(classes, expected)}"
            )
        scanned[split] = _scan(root / split, classes)
    return scanned


def scan_folder(folder: Path) -> ImageFolder:
    """List the images of one folder, ``folder/<class>/**/<image>``; raises as :func:`scan_splits`."""
    return _scan(folder, _class_names(folder))


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        others = [name for name in _OTHER_NAMES_OF_VAL if folder.name == "val" and (folder.parent / name).is_dir()]
        helps = f"; to take {others[0]} for it: ln -s {others[0]} {shown(folder)}" if others else ""
        raise FileNotFoundError(
            f"folder not found: {shown(folder)} (expected is {shown(folder)}/<class>/<image>{helps})"
        )
    names = tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()))
    if not names:
        raise FileNotFoundError(f"no class folders in {shown(folder)} (expected is {shown(folder)}/<class>/<image>)")
    return names


def _scan(folder: Path, classes: tuple[str, ...]) -> ImageFolder:
    files: list[str] = []
    labels: list[int] = []
    sizes: list[int] = []
    repeated: list[str] = []
    for label, name in enumerate(classes):
        before = len(files)
        for where, names in sorted(_walk(folder / name, repeated)):
            for file in sorted(names):
                if file.lower().endswith(IMAGE_EXTENSIONS):
                    path = os.path.join(where, file)  # noqa: PTH118 (a Path for each of a million files takes a minute)
                    files.append(path[len(str(folder)) + 1 :])
                    sizes.append(_size(path))
        if len(files) == before:
            raise ValueError(
                f"class folder {shown(folder / name)} has no images (names must end in {', '.join(IMAGE_EXTENSIONS)})"
            )
        labels.extend([label] * (len(files) - before))
    repeated = [os.path.relpath(path, folder) for path in repeated]
    return ImageFolder(
        format="folder",
        place=str(folder),
        name=folder.parent.resolve().name,
        classes=classes,
        files=files,
        labels=np.array(labels, np.int64),
        digest=listing_digest(classes, zip(files, sizes, strict=True)),
        repeated=tuple(repeated),
        folder=folder,
    )


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
