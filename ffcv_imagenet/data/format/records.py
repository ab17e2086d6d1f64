"""The records of a .beton file, byte for byte as FFCV has them.

They are plain numbers here, because FFCV's own definitions come with torch and numba, which take seconds to import.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: FFCV's format; a file begins with it.
VERSION = 2

#: The beginning of a file.
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),  # where the allocation table begins in the file
    ],
    align=True,
)

#: After the header, one per field: what it holds. Images and labels have no arguments.
FIELD_DESCRIPTOR = np.dtype([("type_id", "u1"), ("name", "u1", 16), ("arguments", "u1", (1024,))], align=True)

#: At the end of a file, one per sample: which bytes belong to it.
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])

#: FFCV's smallest page, in bytes.
MIN_PAGE_SIZE = 2 << 20

#: How an image is stored.
JPEG_MODE, RAW_MODE = 0, 1


class Field(NamedTuple):
    """A kind of field: its number in the field descriptor, and what a sample's record says of it."""

    type_id: int
    record: np.dtype


#: The fields of our files; stock FFCV may have written them the other way round.
FIELDS = {
    "image": Field(2, np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])),
    "label": Field(1, np.dtype("<i8")),
}


def sample_type(names: tuple[str, ...]) -> np.dtype:
    """The record of a sample with these fields in this order, in columns ``f0``, ``f1``."""
    return np.dtype([("", FIELDS[name].record) for name in names], align=True)
