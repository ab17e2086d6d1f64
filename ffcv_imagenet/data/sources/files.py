"""Files in a folder, for the formats whose labels stand elsewhere than in the folders' names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ffcv_imagenet.data.sources.members import Members
from ffcv_imagenet.data.sources.pixels import read_file


class FolderMembers(Members):
    """Files in a folder, as if it were an archive."""

    def __init__(self, folder: Path, names: Sequence[str]):
        """Take the files of these names, relative to ``folder`` or absolute."""
        self.place = str(folder)
        self.names = names
        self.damage: dict[str, str] = {}
        self.sizes = np.array([_size(self.where(number)) for number in range(len(names))], np.int64)

    @classmethod
    def below(cls, folder: Path) -> FolderMembers:
        """All files in a folder and the folders in it."""
        found = []
        for where, _, files in os.walk(folder, followlinks=True):
            start = os.path.relpath(where, folder)
            found += files if start == "." else [f"{start}/{file}" for file in files]
        return cls(folder, found)

    def read(self, number: int) -> bytes:
        """Content of a file; raises ValueError with the reason where it cannot be read."""
        return read_file(self.where(number))

    _read = read

    def where(self, number: int) -> str:
        """Path of a file."""
        name = self.names[number]
        return name if name.startswith("/") else f"{self.place}/{name}"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 (a Path for each of a million files takes a minute)
    except OSError:
        return -1  # reading it will say what is wrong
