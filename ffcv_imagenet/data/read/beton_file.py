"""A .beton file, opened for reading batches: tables, index and mapped bytes. Every loader reads one."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ffcv_imagenet.data.format.beton import Samples, read_samples
from ffcv_imagenet.data.format.index import EntryIndex
from ffcv_imagenet.data.format.manifest import Manifest


class Storage(NamedTuple):
    """The bytes of a file and where its samples lie, in the form that FFCV hands to its operations.

    ``content [bytes] uint8`` is the whole file; ``pointers [samples] uint64``, sorted, are where the samples' bytes
    begin, and ``sizes [samples] uint64`` how many they are, in the order of ``pointers``.
    """

    content: np.ndarray
    pointers: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, content: np.ndarray, samples: Samples) -> Storage:
        """The storage of a file with these bytes and samples."""
        order = np.argsort(samples.pointer)
        return cls(content, samples.pointer[order], samples.size[order])


@dataclass(frozen=True)
class BetonFile:
    """An opened .beton file. ``index`` is None if there is no entry-point index next to it."""

    path: Path
    samples: Samples
    index: EntryIndex | None
    storage: Storage

    @classmethod
    def open(cls, path: Path, manifest: Manifest | None = None) -> BetonFile:
        """Open a .beton with the fields ``image`` and ``label``; its manifest is read here unless given.

        Raises:
            FileNotFoundError: the file or its manifest is not there.
            ValueError: a damaged or foreign file, manifest or index.
        """
        manifest = manifest or Manifest.read(path)
        samples = read_samples(path, manifest)
        index = EntryIndex.open(path, manifest.checksum, manifest.num_samples)
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        mapping.madvise(mmap.MADV_RANDOM)  # read_ahead.py asks for what is needed
        return cls(path, samples, index, Storage.of(np.frombuffer(mapping, np.uint8), samples))

    @property
    def num_samples(self) -> int:
        """Images in the file."""
        return len(self.samples.size)
