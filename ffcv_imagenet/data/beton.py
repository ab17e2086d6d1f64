"""Where the samples of a .beton file lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ffcv.fields import RGBImageField
from ffcv.fields.rgb_image import IMAGE_MODES
from ffcv.reader import Reader


@dataclass(frozen=True)
class Samples:
    """The images of a .beton file, an element per sample.

    ``pointer`` and ``size`` (uint64) are the place of the bytes in the file; ``is_jpeg`` tells JPEG from raw pixels;
    ``height`` and ``width`` are in pixels.
    """

    pointer: np.ndarray
    size: np.ndarray
    is_jpeg: np.ndarray
    height: np.ndarray
    width: np.ndarray


def read_samples(beton: Path) -> Samples:
    """Read the metadata of a .beton file with a field ``image``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a .beton file, one without images, or one whose tables point outside it.
    """
    if not beton.is_file():
        raise FileNotFoundError(f"data set not found: {beton}")
    try:
        reader = Reader(str(beton))
    except Exception as error:  # FFCV checks nothing but the version, so that anything may go wrong
        raise ValueError(f"{beton} is not a .beton file: {error or type(error).__name__}") from None
    if not isinstance(reader.handlers.get("image"), RGBImageField):
        raise ValueError(f"{beton} has the fields {', '.join(reader.handlers)}, needed is an image field 'image'")
    field = reader.metadata[f"f{reader.field_names.index('image')}"]
    order = np.argsort(reader.alloc_table["ptr"])
    pointers, sizes = reader.alloc_table["ptr"][order], reader.alloc_table["size"][order]
    place = np.minimum(np.searchsorted(pointers, field["data_ptr"]), max(len(pointers) - 1, 0))
    size = sizes[place] if len(pointers) else np.zeros(len(field), np.uint64)
    file_size = np.uint64(beton.stat().st_size)
    whole = len(pointers) and (pointers[place] == field["data_ptr"]) & (size <= file_size)
    if len(field) != int(reader.num_samples) or not np.all(whole & (field["data_ptr"] <= file_size - size)):
        raise ValueError(f"{beton} is damaged: samples lie outside the file")
    return Samples(field["data_ptr"], size, field["mode"] == IMAGE_MODES["jpg"], field["height"], field["width"])
