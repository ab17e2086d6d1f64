"""The host's part of decoding on a GPU: a batch's compressed bytes, gathered into one buffer.

The work is done by ``fic_gpu_gather`` (``native/gpu_gather.c``), called once per batch: it parses the headers, finds
the entry points that each crop needs, and copies just those bytes. It holds neither the GIL nor more than one core.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ffcv_imagenet import native
from ffcv_imagenet.data.format.beton import Samples
from ffcv_imagenet.data.format.index import EntryIndex

#: ``fic_gather_sample`` and ``fic_gather_result`` of native/fic.h.
_SAMPLE = np.dtype(
    [
        ("jpeg", "u8"), ("size", "i8"), ("index", "u8"), ("index_size", "i8"), ("width", "i4"), ("height", "i4"),
        ("x", "i4"), ("y", "i4"), ("w", "i4"), ("h", "i4"), ("flip", "i4"), ("padding", "i4"),
    ]
)  # fmt: skip
_RESULT = np.dtype([("used", "i8"), ("workspace", "i8"), ("pixels", "i8"), ("num_on_cpu", "i4"), ("max_items", "i4")])

#: What the images' offset in the buffer must be a multiple of.
ALIGNMENT = 16


class Gathered(NamedTuple):
    """What lies in the buffer.

    ``used`` bytes of it are to be copied to the device, where the kernels need ``workspace`` bytes besides. From
    ``pixels`` on is the room for the pixels of the ``num_on_cpu`` samples that the CPU decodes. ``max_items`` is the
    largest number of entry points of one image.
    """

    used: int
    workspace: int
    pixels: int
    num_on_cpu: int
    max_items: int


class Gatherer:
    """Gathers batches of one .beton file.

    Args:
        content: the file, [bytes] uint8.
        stored: where its samples lie.
        index: its entry points.
    """

    def __init__(self, content: np.ndarray, stored: Samples, index: EntryIndex):
        self._content, self._stored, self._index = content, stored, index

    def gather(
        self,
        samples: np.ndarray,
        boxes: np.ndarray,
        on_cpu: np.ndarray,
        resolution: int,
        resize: str,
        buffer: np.ndarray,
        begin: int,
    ) -> Gathered | int:
        """Gather a batch.

        Args:
            samples: [B] indices in the file.
            boxes: [B, 5] int32: top, left, height, width, flip.
            on_cpu: [B] bool, samples that the CPU decodes in any case; set for all that it has to decode.
            resolution: side of the output in pixels.
            resize: the filter, one of ``native.RESIZE_FILTERS``.
            buffer: [bytes] uint8, the output.
            begin: the images' offset in it, a multiple of ``ALIGNMENT``.

        Returns:
            What lies in the buffer, or the size that it needs if it is too small.
        """
        stored, index = self._stored, self._index
        rows = np.zeros(len(samples), _SAMPLE)
        rows["jpeg"] = np.where(
            stored.is_jpeg[samples], stored.pointer[samples] + np.uint64(self._content.ctypes.data), 0
        )
        for name in ("size", "width", "height"):
            rows[name] = getattr(stored, name)[samples]
        first, end = index.offsets[samples], index.offsets[samples + 1]
        rows["index"] = np.where(end > first, first + np.uint64(index.entries.ctypes.data), 0)
        rows["index_size"] = end - first
        for column, name in enumerate(("y", "x", "h", "w", "flip")):
            rows[name] = boxes[:, column]
        result = np.zeros((), _RESULT)
        code = native.gpu_gather(
            rows.ctypes.data, on_cpu.ctypes.data, len(rows), index.every, resolution, resolution,
            native.RESIZE_FILTERS[resize], buffer.ctypes.data, begin, buffer.size, result.ctypes.data,
        )  # fmt: skip
        if code == native.Error.CAPACITY:
            return int(result["used"])
        if code:
            raise ValueError(native.error_message(code))
        return Gathered(*(int(result[name]) for name in Gathered._fields))
