"""Image files named one by one, without classes: what is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ffcv_imagenet.data.sources.pixels import read_file
from ffcv_imagenet.data.sources.source import Source


class SingleFiles(Source):
    """Files in the order in which they are named; their label is 0. ``files`` are their whole paths."""

    @classmethod
    def of(cls, files: Sequence[Path]) -> SingleFiles:
        """The source of some files."""
        return cls(
            format="files",
            place="the files named",
            name="files",
            classes=("image",),
            files=[str(file.resolve()) for file in files],
            labels=np.zeros(len(files), np.int64),
            digest="",
        )

    def read(self, number: int) -> bytes:
        """See :meth:`Source.read`."""
        return read_file(self.files[number])

    def where(self, number: int) -> str:
        """See :meth:`Source.where`."""
        return self.files[number]
