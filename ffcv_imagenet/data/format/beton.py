"""Opening a .beton file: its tables, checked before anything else reads them.

A .beton is a head (header, field descriptors, a metadata record per sample), pages of image bytes, and the allocation
table (which bytes belong to which sample). FFCV's own Reader trusts all of it; here everything is checked, so that
whatever the tables of an opened file point to lies inside the file.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np

from ffcv_imagenet.data.format.manifest import MAX_PIXELS, Manifest, not_found
from ffcv_imagenet.data.format.records import (
    ALLOCATION,
    FIELD_DESCRIPTOR,
    FIELDS,
    HEADER,
    JPEG_MODE,
    MIN_PAGE_SIZE,
    RAW_MODE,
    VERSION,
    sample_type,
)


@dataclass(frozen=True)
class Samples:
    """The samples of a .beton file.

    Attributes:
        metadata: FFCV's records, one per sample.
        fields: their names, in the order of the records' columns.
        size: [samples] uint64, bytes of each image.
        tables_checksum: see :func:`tables_checksum`.
        stock_names: what the file itself calls the fields, which stock FFCV leaves to its user.
    """

    metadata: np.ndarray
    fields: tuple[str, ...]
    size: np.ndarray
    tables_checksum: str
    stock_names: tuple[str, ...]

    @property
    def image(self) -> np.ndarray:
        """FFCV's records of the images, [samples]."""
        return self._column("image")

    @property
    def pointer(self) -> np.ndarray:
        """Where each image begins in the file, [samples] uint64."""
        return self.image["data_ptr"]

    @property
    def mode(self) -> np.ndarray:
        """JPEG_MODE or RAW_MODE, [samples] uint8."""
        return self.image["mode"]

    @property
    def is_jpeg(self) -> np.ndarray:
        """True for a JPEG, False for raw pixels, [samples] bool."""
        return self.mode == JPEG_MODE

    @property
    def height(self) -> np.ndarray:
        """In pixels, [samples] uint16."""
        return self.image["height"]

    @property
    def width(self) -> np.ndarray:
        """In pixels, [samples] uint16."""
        return self.image["width"]

    @property
    def label(self) -> np.ndarray:
        """Classes, [samples] int64."""
        return self._column("label")

    def _column(self, name: str) -> np.ndarray:
        return self.metadata[f"f{self.fields.index(name)}"]


def read_samples(beton: Path, manifest: Manifest | None = None) -> Samples:
    """Open a .beton file with a field of images and one of integer labels: read and check its tables.

    The images themselves are not read, so that this takes well under a second for ImageNet.

    Args:
        beton: the file, ours or one of stock FFCV.
        manifest: what the file must hold. Without it, a changed label goes unnoticed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a .beton file, one with other fields, a truncated or damaged one, or not that of the manifest.
    """
    if not beton.is_file():
        raise FileNotFoundError(not_found(beton))
    try:
        with beton.open("rb", buffering=0) as file:
            return _read(file, manifest)
    except ValueError as error:
        raise ValueError(f"{beton} {error}") from None


def tables_checksum(header_and_fields: bytes, metadata: bytes, allocation_table: bytes) -> str:
    """SHA-256 of a .beton without its pages, hexadecimal."""
    checksum = hashlib.sha256(header_and_fields)
    checksum.update(metadata)
    checksum.update(allocation_table)
    return checksum.hexdigest()


def _read(file: FileIO, manifest: Manifest | None) -> Samples:
    file_size = os.fstat(file.fileno()).st_size
    metadata_start = HEADER.itemsize + len(FIELDS) * FIELD_DESCRIPTOR.itemsize
    if file_size < metadata_start:
        raise ValueError(f"is not a .beton file: it has {file_size} bytes")
    head = file.read(metadata_start)
    header = np.frombuffer(head, HEADER, 1)[0]
    if header["version"] != VERSION:
        version = header["version"]
        raise ValueError(f"is not a .beton file of FFCV's format {VERSION}: it begins with {version}")
    if header["num_fields"] != len(FIELDS):
        raise ValueError(f"has {header['num_fields']} fields, allowed are two: image (RGB) and label (integer)")
    fields, stock_names = _field_names(np.frombuffer(head, FIELD_DESCRIPTOR, len(FIELDS), HEADER.itemsize))
    metadata_type = sample_type(fields)

    # From here on with Python's integers, because products of hostile numbers must not wrap around.
    num_samples, page_size = int(header["num_samples"]), int(header["page_size"])
    pages_end = int(header["alloc_table_ptr"])
    if pages_end == 0:
        raise ValueError("is damaged: it was not written to its end")
    if page_size < MIN_PAGE_SIZE or page_size & (page_size - 1):
        raise ValueError(f"is damaged: its page size is {page_size}, allowed is a power of 2 from {MIN_PAGE_SIZE} on")
    metadata_size = num_samples * metadata_type.itemsize
    pages_start = -(-(metadata_start + metadata_size) // page_size) * page_size  # rounded up
    table_size = num_samples * ALLOCATION.itemsize
    if num_samples == 0 or pages_end % page_size or pages_end <= pages_start or file_size != pages_end + table_size:
        raise ValueError(
            f"is damaged: its {file_size} bytes do not fit its header, which says {num_samples} samples and an "
            f"allocation table at byte {pages_end}"
        )
    metadata_bytes = file.read(metadata_size)
    file.seek(pages_end)
    table_bytes = file.read(table_size)
    if len(metadata_bytes) != metadata_size or len(table_bytes) != table_size:
        raise ValueError("is damaged: it cannot be read to its end")
    metadata, table = np.frombuffer(metadata_bytes, metadata_type), np.frombuffer(table_bytes, ALLOCATION)
    checksum = tables_checksum(head, metadata_bytes, table_bytes)
    samples = Samples(metadata, fields, _sizes(table), checksum, stock_names)
    _check_positions(samples, table, pages_start, pages_end, page_size)
    _check_contents(samples, manifest)
    if manifest is not None:
        _compare(samples, manifest, checksum)
    return samples


def _field_names(descriptors: np.ndarray) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fields as we call them, by their types, and as the file calls them."""
    of_type = {field.type_id: name for name, field in FIELDS.items()}
    names: tuple[str, ...] = ()
    stock_names: tuple[str, ...] = ()
    for descriptor in descriptors:
        stock_name = descriptor["name"].tobytes().split(b"\0")[0].decode("ascii", "replace")
        name = of_type.get(int(descriptor["type_id"]))
        if name is None or name in names:
            raise ValueError(
                f"has a field {stock_name!r} of type {descriptor['type_id']}, allowed are image (RGB) and label "
                "(integer), one of each"
            )
        names += (name,)
        stock_names += (stock_name,)
    return names, stock_names


def _sizes(table: np.ndarray) -> np.ndarray:
    """Bytes of each sample, [samples] uint64, from the allocation table, which may be in any order."""
    sample = table["sample_id"]
    seen = np.zeros(len(table), bool)
    seen[sample[sample < len(table)]] = True
    if not seen.all():
        raise ValueError(f"is damaged: sample {np.argmin(seen)} is not in the allocation table")
    sizes = np.empty(len(table), np.uint64)
    sizes[sample] = table["size"]
    return sizes


def _check_positions(samples: Samples, table: np.ndarray, pages_start: int, pages_end: int, page_size: int) -> None:
    """Every image lies in one page, and no two images have a byte in common."""
    pointer, size = samples.pointer, samples.size
    _check(samples, (pointer >= pages_start) & (pointer < pages_end), "it lies outside the file's pages")
    _check(samples, (size > 0) & (size <= page_size - pointer % page_size), "its size leads out of its page")
    same = np.ones(len(pointer), bool)
    same[table["sample_id"]] = table["ptr"] == pointer[table["sample_id"]]
    _check(samples, same, "metadata and allocation table have it at different places")
    order = np.argsort(pointer)
    apart = np.ones(len(pointer), bool)
    apart[order[1:]] = pointer[order[1:]] >= (pointer + size)[order[:-1]]
    _check(samples, apart, "it begins inside of another one")


def _check_contents(samples: Samples, manifest: Manifest | None) -> None:
    """What the records say about images and labels is possible."""
    mode, height, width = samples.mode, samples.height.astype(np.uint64), samples.width.astype(np.uint64)
    _check(samples, (mode == JPEG_MODE) | (mode == RAW_MODE), "it is neither a JPEG nor raw pixels")
    _check(samples, (height > 0) & (width > 0), "it has no width or no height")
    _check(samples, (mode == JPEG_MODE) | (samples.size == 3 * height * width), "its size does not fit its raw pixels")
    # Before anything is allocated for an image: the decoder refuses a JPEG of another size than the one stored here.
    most = MAX_PIXELS if manifest is None else manifest.parameters.max_pixels
    _check(samples, height * width <= most, f"it has more than {most} pixels")
    below = np.iinfo(np.int64).max if manifest is None else manifest.num_classes
    _check(samples, (samples.label >= 0) & (samples.label < below), "its label is none of the classes")


def _check(samples: Samples, good: np.ndarray, reason: str) -> None:
    if not good.all():
        sample = int(np.argmin(good))
        raise ValueError(f"is damaged: sample {sample} (byte {samples.pointer[sample]}): {reason}")


def _compare(samples: Samples, manifest: Manifest, checksum: str) -> None:
    """The tables are those for which the manifest was written."""
    if len(samples.metadata) != manifest.num_samples:
        raise ValueError(
            f"is damaged: it has {len(samples.metadata)} samples, its manifest says {manifest.num_samples}"
        )
    if checksum != manifest.tables_checksum:
        raise ValueError("is damaged, or its manifest is of another file: the checksum of its tables differs")
    count = np.bincount(samples.label, minlength=manifest.num_classes)
    if count.tolist() != list(manifest.images_per_class):
        raise ValueError("is damaged, or its manifest is of another file: its classes have other numbers of images")
