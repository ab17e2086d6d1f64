"""The entry-point index ``<name>.beton.mcu``: where a decoder can start inside the JPEG samples of a .beton.

docs/mcu_index.md documents the file's layout. It is optional: the .beton stays as it is, and without the index
everything works, a little slower.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ffcv_imagenet.data.format import manifest as manifests
from ffcv_imagenet.data.format.manifest import Manifest

MAGIC = b"FFCVMCU\0"

VERSION = 1

#: MCUs between entry points.
EVERY = 4

# Magic, version, MCUs between entries, samples, size of the entries, checksums of the .beton, the offsets, the entries.
_HEADER = struct.Struct("<8sII QQ 32s 32s 32s")


@dataclass(frozen=True)
class EntryIndex:
    """An opened index, memory-mapped.

    ``entries[offsets[i]:offsets[i + 1]]`` are the entry points of sample i, empty if it has none; ``offsets`` is
    [samples + 1] uint64, ``entries`` is uint8. They are not trusted: the decoder checks whatever it reads, so that
    opening need not read them; :meth:`verify` compares their ``checksum``.
    """

    file: Path
    every: int
    offsets: np.ndarray
    entries: np.ndarray
    checksum: bytes

    @staticmethod
    def path(beton: Path) -> Path:
        """Where the index of a .beton file lies."""
        return beton.with_name(beton.name + ".mcu")

    @classmethod
    def open(cls, beton: Path, checksum: str, num_samples: int) -> EntryIndex | None:
        """Open the index next to a .beton file; None if there is none.

        Args:
            beton: the .beton file.
            checksum: its checksum, from the manifest.
            num_samples: its number of samples.

        Raises:
            ValueError: a damaged index, or one of another .beton file.
        """
        path = cls.path(beton)
        if not path.is_file():
            return None
        again = f"remove it, or make it again: python -m ffcv_imagenet.data.index {beton}"
        size = path.stat().st_size
        offsets_size = 8 * (num_samples + 1)
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(MAGIC):
            raise ValueError(f"{path} is not an entry-point index; {again}")
        _, version, every, samples, entries_size, of_beton, of_offsets, of_entries = _HEADER.unpack(header)
        if version != VERSION:
            raise ValueError(f"{path} has version {version}, allowed is {VERSION}; {again}")
        if of_beton.hex() != checksum or samples != num_samples:
            raise ValueError(f"{path} belongs to another .beton file; {again}")
        if size != _HEADER.size + offsets_size + entries_size or not 1 <= every <= 255:
            raise ValueError(f"{path} is damaged: {size} bytes; {again}")
        content = np.memmap(path, np.uint8, mode="r")
        offsets = content[_HEADER.size : _HEADER.size + offsets_size].view("<u8")
        if manifests.digest(offsets.tobytes()) != of_offsets:
            raise ValueError(f"{path} is damaged: its offsets have another checksum; {again}")
        if offsets[0] != 0 or offsets[-1] != entries_size or np.any(offsets[1:] < offsets[:-1]):
            raise ValueError(f"{path} is damaged: its offsets do not fit its size; {again}")
        return cls(path, every, offsets, content[_HEADER.size + offsets_size :], of_entries)

    def verify(self) -> None:
        """Read all entries and compare their checksum.

        Raises:
            ValueError: the entries are not those that were written.
        """
        if hashlib.sha256(self.entries.data).digest() != self.checksum:
            raise ValueError(f"{self.file} is damaged: its entries have another checksum")


class IndexWriter:
    """Writes an index sample by sample: the entries at once, offsets and header at the end."""

    def __init__(self, file: BinaryIO, num_samples: int):
        """Begin an index of at most ``num_samples``; ``file`` is open for reading and writing."""
        self._file = file
        self._offsets = np.zeros(num_samples + 1, "<u8")
        self._appended = 0
        self._checksum = hashlib.sha256()
        file.seek(_HEADER.size + self._offsets.nbytes)

    def append(self, entries: bytes) -> None:
        """Add the next sample's entry points, ``b""`` if it has none."""
        self._file.write(entries)
        self._checksum.update(entries)
        self._appended += 1
        self._offsets[self._appended] = int(self._offsets[self._appended - 1]) + len(entries)

    def finish(self, checksum: str) -> None:
        """Write what belongs before the entries; ``checksum`` is that of the .beton file.

        There may be fewer samples than announced.
        """
        self._close_gap()
        offsets = self._offsets.tobytes()
        of_offsets = manifests.digest(offsets)
        size = int(self._offsets[-1])
        checksums = (bytes.fromhex(checksum), of_offsets, self._checksum.digest())
        header = _HEADER.pack(MAGIC, VERSION, EVERY, self._appended, size, *checksums)
        self._file.seek(0)
        self._file.write(header + offsets)

    def _close_gap(self) -> None:
        """Move the entries down, to follow the offsets of the samples that were appended."""
        position = _HEADER.size + self._offsets.nbytes
        self._offsets = self._offsets[: self._appended + 1]
        gap = position - _HEADER.size - self._offsets.nbytes
        if gap == 0:
            return
        self._file.seek(position)
        while block := self._file.read(manifests.CHECKSUM_BLOCK):
            self._file.seek(position - gap)
            self._file.write(block)
            position += len(block)
            self._file.seek(position)
        self._file.truncate(position - gap)


def verify_index(beton: Path) -> None:
    """Check the index of a .beton file completely.

    Raises:
        FileNotFoundError: the .beton, its manifest or its index is not there.
        ValueError: the index is damaged or belongs to another file.
    """
    manifest = Manifest.read(beton)
    index = EntryIndex.open(beton, manifest.checksum, manifest.num_samples)
    if index is None:
        raise FileNotFoundError(f"{beton} has no index {EntryIndex.path(beton).name}")
    index.verify()
