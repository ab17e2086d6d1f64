"""Encoded images to the pages and tables of a .beton file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ffcv_imagenet import native
from ffcv_imagenet.data.format import manifest as manifests
from ffcv_imagenet.data.format.beton import tables_checksum
from ffcv_imagenet.data.format.records import (
    ALLOCATION,
    FIELD_DESCRIPTOR,
    FIELDS,
    HEADER,
    JPEG_MODE,
    RAW_MODE,
    VERSION,
    sample_type,
)
from ffcv_imagenet.data.write.encode import EncodedImage
from ffcv_imagenet.files import WrittenFile
from ffcv_imagenet.names import shown

_NAMES = ("image", "label")


class Checksums(NamedTuple):
    """What a manifest keeps of a file: the checksum of all of it, and that of its tables."""

    file: str
    tables: str


def beton_size(num_samples: int, mean_bytes: float, page_size: int) -> int:
    """Bytes of a .beton of ``num_samples`` samples of ``mean_bytes`` each on average: head, pages, allocation table."""
    per_page = max(1, int(page_size / max(mean_bytes, 1)))
    num_pages = -(-_head_size(num_samples) // page_size) + -(-num_samples // per_page)  # both rounded up
    return num_pages * page_size + num_samples * ALLOCATION.itemsize


def page_size_of_pixels(files: Iterable[str | Path]) -> int:
    """The size of a page in MiB into which the pixels of each of these image files fit: a power of 2.

    Raises:
        ValueError: a file is no image.
    """
    from PIL import Image, UnidentifiedImageError

    largest = 1
    for file in files:
        try:
            with Image.open(file) as image:
                largest = max(largest, 3 * image.width * image.height)
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"{shown(file)} is no image that can be read: {error}") from None
    return page_size_of_bytes(largest)


def page_size_of_bytes(largest: int) -> int:
    """The size of a page in MiB into which so many bytes fit: a power of 2, as FFCV wants it 2 at least."""
    return max(2, 1 << (largest >> 20).bit_length())


def _head_size(num_samples: int) -> int:
    metadata = num_samples * sample_type(_NAMES).itemsize
    return HEADER.itemsize + len(_NAMES) * FIELD_DESCRIPTOR.itemsize + metadata


class BetonWriter:
    """Pack encoded images and their labels into a .beton file.

    The file is what ffcv.writer.DatasetWriter makes with one worker: a head (header, field descriptors, metadata
    of all samples), pages of sample data from the next multiple of the page size on, and the allocation table.
    No sample crosses a page.
    """

    def __init__(self, file: WrittenFile, num_samples: int, page_size: int):
        """Begin a file.

        Args:
            file: empty.
            num_samples: how often :meth:`append` is called, at most.
            page_size: in bytes, a power of 2 of at least 2 MiB.
        """
        self._file = file
        self._page = bytearray(page_size)
        self._page_used = 0
        self._num_appended = 0
        self._metadata = np.zeros(num_samples, sample_type(_NAMES))
        self._allocations = np.zeros(num_samples, ALLOCATION)
        self._page_start = -(-_head_size(num_samples) // page_size) * page_size  # rounded up
        self._data_start = self._page_start
        self._digests: list[bytes] = []

    def append(self, image: EncodedImage, label: int) -> None:
        """Add the next sample, of at most a page.

        Raises:
            OSError: the file cannot be written.
        """
        size = len(image.data)
        if self._page_used + size > len(self._page):
            self._flush_page()
        pointer = self._page_start + self._page_used
        self._page[self._page_used : self._page_used + size] = image.data
        self._page_used += size
        mode = JPEG_MODE if image.is_jpeg else RAW_MODE
        self._metadata[self._num_appended] = ((mode, image.width, image.height, pointer), label)
        self._allocations[self._num_appended] = (self._num_appended, pointer, size)
        self._num_appended += 1

    def finish(self) -> Checksums:
        """Write what is left and return the checksums for the manifest. There may be fewer samples than announced.

        The file is not on the disk then: sync it.

        Raises:
            OSError: the file cannot be written.
        """
        self._metadata = self._metadata[: self._num_appended]
        self._allocations = self._allocations[: self._num_appended]
        self._flush_page()
        table = self._allocations.tobytes()
        self._write(self._page_start, table)
        header, metadata = self._header(alloc_table_ptr=self._page_start), self._metadata.tobytes()
        self._write(0, header + metadata)  # and nothing up to the first page, which reads as zeros
        head = (header + metadata).ljust(self._data_start, b"\0")
        digests = manifests.block_digests(head) + self._digests + manifests.block_digests(table)
        return Checksums(manifests.combine_digests(digests), tables_checksum(header, metadata, table))

    def _flush_page(self) -> None:
        self._page[self._page_used :] = bytes(len(self._page) - self._page_used)
        self._write(self._page_start, self._page)
        # Left to itself the system stores a data set of some seconds when it is whole, which is waited for.
        native.begin_to_store(self._file.fileno(), self._page_start, len(self._page))
        self._digests += manifests.block_digests(self._page)
        self._page_start += len(self._page)
        self._page_used = 0

    def _header(self, alloc_table_ptr: int) -> bytes:
        header = np.zeros((), HEADER)
        header["version"] = VERSION
        header["num_fields"] = len(_NAMES)
        header["page_size"] = len(self._page)
        header["num_samples"] = len(self._metadata)
        header["alloc_table_ptr"] = alloc_table_ptr
        fields = np.zeros(len(_NAMES), FIELD_DESCRIPTOR)
        for descriptor, name in zip(fields, _NAMES, strict=True):
            descriptor["type_id"] = FIELDS[name].type_id
            descriptor["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
        return header.tobytes() + fields.tobytes()

    def _write(self, position: int, data: bytes | bytearray) -> None:
        rest = memoryview(data)
        self._file.seek(position)
        while rest:  # an unbuffered write may take only a part
            rest = rest[self._file.write(rest) :]
