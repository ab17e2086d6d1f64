"""Decoding on the CPU: FFCV operations from a sample's bytes to its cropped, resized and mirrored pixels.

Give them to an FFCV Loader (with ``os_cache=True``) as the first operation of an image pipeline. numba's parallel loop
calls the native crop decoder, which writes straight into the batch. The compiled loop is kept on disk, and the
resolution may change between epochs without compiling anything.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import carray, prange, types
from numba.extending import intrinsic

from ffcv_imagenet import native
from ffcv_imagenet.compiled import cached_njit
from ffcv_imagenet.data.ffcv_imports import AllocationQuery, Compiler, SimpleRGBImageDecoder, State
from ffcv_imagenet.data.format.index import EntryIndex
from ffcv_imagenet.data.format.records import JPEG_MODE
from ffcv_imagenet.data.read.beton_file import BetonFile, Storage
from ffcv_imagenet.data.read.crops import center_boxes, random_boxes, random_part_boxes
from ffcv_imagenet.imagenet import IMAGENET_CENTER_CROP

#: Error code, in addition to the library's, of a sample that lies outside the file.
OUTSIDE_FILE = -100

# Through their names, not through ctypes objects, so that numba can keep the compiled callers on disk.
llvmlite.binding.load_library_permanently(str(native.LIBRARY))
_int32, _address = types.int32, types.uintp
_decode_crop = types.ExternalFunction(
    "fic_decode_crop",
    _int32(_address, _address, types.int64, *[_int32] * 10, _address, types.int64, _int32, _address),
)
_resize_crop = types.ExternalFunction("fic_resize_crop", _int32(_address, _address, *[_int32] * 10, _address))


def error_message(code: int) -> str:
    """What the error code of a sample means."""
    return "it lies outside the file" if code == OUTSIDE_FILE else native.error_message(code)


@intrinsic
def _void_pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """A memory address as a pointer."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.uintp), generate


@intrinsic
def _take_next(typing_context, address):  # type: ignore[no-untyped-def]
    """Return the int64 at ``address`` and add 1 to it, in one step: threads get different numbers."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        number = ir.IntType(64)
        pointer = builder.inttoptr(arguments[0], number.as_pointer())
        return builder.atomic_rmw("add", pointer, number(1), "monotonic")

    return types.int64(types.uintp), generate


#: What the compiled code needs to know besides the batch. It is read from memory at every batch, because numba compiles
#: numbers of an enclosing function into the code: a new epoch, or the addresses of the next start, would be new code.
_JOB = np.dtype(
    [
        ("seed", "u8"),
        ("epoch", "u8"),
        ("min_area", "f8"),  # smallest and largest random crop as a share of the image's area
        ("max_area", "f8"),
        ("min_ratio", "f8"),  # its smallest and largest aspect ratio
        ("max_ratio", "f8"),
        ("share", "f8"),  # sides of a random crop of constant size as a share of the image's
        ("squash", "u1"),  # of each of them, not of the shorter one
        ("flip", "u1"),  # mirror half of the random crops
        ("resize", "i4"),  # number of the filter
        ("center_ratio", "f8"),  # side of a centre crop as a share of the shorter side
        ("every", "u4"),  # MCUs between entry points, 0 without an index
        ("num_samples", "u8"),  # in the file
        ("num_decoders", "u8"),
        ("decoders", "u8"),  # address of the addresses of a native decoder per thread
        ("offsets", "u8"),  # address of the index's offsets, [num_samples + 1] uint64
        ("entries", "u8"),  # address of the index's entries
        ("num_repeats", "u8"),  # samples of the epoch, 0 where none is repeated
        ("repeats", "u8"),  # address of their numbers of copies, int64
        ("position", "u8"),  # of the batch in the epoch
    ],
    align=True,
)


@cached_njit(nogil=True)
def _decode_sample(sample, field, box, out, content, pointers, sizes, decoder, job, offsets):  # type: ignore[no-untyped-def]
    """Decode one sample into ``out``; returns 0 or an error code. See :func:`decode_batch`."""
    pointer = field["data_ptr"]
    position = np.searchsorted(pointers, pointer)
    if position >= len(pointers) or pointers[position] != pointer:
        return OUTSIDE_FILE
    size, length = sizes[position], np.uint64(len(content))
    if size > length or pointer > length - size:
        return OUTSIDE_FILE
    height, width = np.int64(field["height"]), np.int64(field["width"])
    top, left, h, w, flip = box[0], box[1], box[2], box[3], box[4]
    data = np.uintp(content.ctypes.data) + np.uintp(pointer)
    target = np.uintp(out.ctypes.data)
    rows, columns = np.int32(out.shape[0]), np.int32(out.shape[1])
    if field["mode"] != JPEG_MODE:
        if size < np.uint64(height * width * 3):
            return OUTSIDE_FILE
        return _resize_crop(decoder, data, width, height, left, top, w, h, columns, rows, flip, job["resize"], target)
    every, index, index_size = np.int32(0), np.uintp(0), np.int64(0)
    if job["every"] and offsets[sample + 1] > offsets[sample]:  # empty: this file has no entry points
        every = np.int32(job["every"])
        index = np.uintp(job["entries"] + offsets[sample])
        index_size = np.int64(offsets[sample + 1] - offsets[sample])
    return _decode_crop(
        decoder, data, size, width, height, left, top, w, h, columns, rows, flip, job["resize"], index, index_size,
        every, target,
    )  # fmt: skip


@cached_njit(nogil=True)
def _decode_share(taken, samples, boxes, batch, codes, metadata, content, pointers, sizes, decoder, jobs, offsets):  # type: ignore[no-untyped-def]
    """Decode samples that no other thread has taken, until there are none: some take ten times as long as others."""
    i = _take_next(taken.ctypes.data)
    while i < len(samples):
        sample = samples[i]
        codes[i, 0] = _decode_sample(
            sample, metadata[sample], boxes[i], batch[i], content, pointers, sizes, decoder, jobs[0], offsets
        )
        if codes[i, 0] != 0:
            batch[i] = 0
        i = _take_next(taken.ctypes.data)


@cached_njit(parallel=True, nogil=True)
def decode_batch(samples, boxes, batch, codes, metadata, content, pointers, sizes, jobs):  # type: ignore[no-untyped-def]
    """Decode samples in parallel. One that cannot be decoded leaves its error code, and black pixels.

    It does not raise: numba never frees what a compiled function holds at that moment, a batch here.

    Args:
        samples: [B] indices in the file.
        boxes: [B, 5] int32: top, left, height, width, flip.
        batch: [B, height, width, 3] uint8, the output.
        codes: [B, 1] int32, output: 0, or why a sample cannot be decoded (:func:`error_message`).
        metadata: FFCV's records of the image field.
        content: the whole file, [bytes] uint8.
        pointers: where stored bytes begin in the file, sorted, uint64.
        sizes: how many they are, in the order of ``pointers``, uint64.
        jobs: [1] ``_JOB``.
    """
    job = jobs[0]
    decoders = carray(_void_pointer(job["decoders"]), job["num_decoders"], np.uint64)
    offsets = carray(_void_pointer(job["offsets"]), job["num_samples"] + 1 if job["every"] else 0, np.uint64)
    taken = np.zeros(1, np.int64)
    for _ in prange(len(decoders)):
        decoder = decoders[numba.get_thread_id()]
        _decode_share(taken, samples, boxes, batch, codes, metadata, content, pointers, sizes, decoder, jobs, offsets)


class CropDecoder(SimpleRGBImageDecoder):
    """Decode, crop and resize to ``[B, resolution, resolution, 3] uint8``.

    Attributes:
        resolution: side of the output in pixels; may change between epochs.
        resize: the filter, one of ``native.RESIZE_FILTERS``.
        metadata: FFCV's records of the images, [samples]; a Loader sets them.
        index: entry points of the file, None to do without; set before the Loader is made.
    """

    def __init__(self, resolution: int, *, resize: str = "triangle"):
        super().__init__()
        self.resolution, self.resize = resolution, resize
        self.index: EntryIndex | None = None
        self._threads = [native.Decoder() for _ in range(numba.config.NUMBA_NUM_THREADS)]  # type: ignore[attr-defined]
        self._decoders = np.array([decoder.address for decoder in self._threads], np.uint64)
        self._job = np.zeros((), _JOB)
        self._no_repeats = np.zeros(0, np.int64)
        self.set_repeats(self._no_repeats)
        self._job["resize"] = native.RESIZE_FILTERS[resize]

    def read_from(self, file: BetonFile) -> None:
        """Take records and entry points from ``file``."""
        self.metadata, self.index = file.samples.image, file.index

    def start_epoch(self, epoch: int, resolution: int) -> None:
        """Choose the crops of an epoch and the side of the output in pixels, for all batches from now on.

        FFCV's compiled code reads them from here, so that the epochs of one decoder follow one another.
        """
        self.resolution = resolution
        self._job["epoch"] = epoch

    def set_repeats(self, repeats: np.ndarray) -> None:
        """Say of all samples of the epoch which copy they are, [samples] int64; empty: no sample is repeated."""
        self._repeats = repeats
        self._job["num_repeats"], self._job["repeats"] = len(repeats), repeats.ctypes.data

    def begin_batch(self, position: int) -> None:
        """Say where in the epoch the next batch begins, for :meth:`set_repeats`."""
        self._job["position"] = position

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, tuple[AllocationQuery, ...]]:
        """Ask FFCV for the output, and for a crop box and, last, an error code per sample, which the loader reads."""
        shape, byte, int32 = (self.resolution, self.resolution, 3), np.dtype("u1"), np.dtype("i4")
        state = replace(previous_state, jit_mode=True, shape=shape, dtype=byte)
        return state, (AllocationQuery(shape, byte), AllocationQuery((5,), int32), AllocationQuery((1,), int32))

    @abstractmethod
    def box_function(self) -> Callable:
        """A function ``(samples, metadata, job, boxes)`` for numba that fills the crop boxes of a batch."""

    @abstractmethod
    def fill_boxes(self, samples: np.ndarray, repeats: np.ndarray, boxes: np.ndarray) -> None:
        """Fill the crop boxes of a batch.

        Args:
            samples: [B] int64, indices in the file.
            repeats: [B] int64, which copy of its sample each is; empty: no sample is repeated.
            boxes: [B, 5] int32, output: top, left, height, width, flip.
        """

    def boxes(self, samples: np.ndarray) -> np.ndarray:
        """Crop boxes of ``samples [B] int64``, none of them repeated: ``[B, 5] int32``."""
        boxes = np.empty((len(samples), 5), np.int32)
        self.fill_boxes(samples, self._no_repeats, boxes)
        return boxes

    def decode(
        self,
        samples: np.ndarray,
        boxes: np.ndarray,
        batch: np.ndarray,
        codes: np.ndarray,
        storage: Storage,
    ) -> None:
        """:func:`decode_batch` outside of a Loader, of the samples in :attr:`metadata`."""
        self._describe_job(len(self.metadata))
        content, pointers, sizes = storage
        # Read-only, as a Loader's: with a second signature numba's type inference of a Loader's stage does not end.
        if content.flags.writeable:
            content = content.view()
            content.flags.writeable = False
        decode_batch(samples, boxes, batch, codes, self.metadata, content, pointers, sizes, self._job.reshape(1))

    def _describe_job(self, num_samples: int) -> None:
        self._job["num_samples"] = num_samples
        self._job["num_decoders"], self._job["decoders"] = len(self._decoders), self._decoders.ctypes.data
        self._job["every"] = 0
        if self.index is not None:
            self._job["every"] = self.index.every
            self._job["offsets"], self._job["entries"] = self.index.offsets.ctypes.data, self.index.entries.ctypes.data

    def run(
        self, samples: np.ndarray, memory: tuple[np.ndarray, ...], metadata: np.ndarray, storage: Storage
    ) -> np.ndarray:
        """Decode the batch that begins at :meth:`begin_batch` into FFCV's memory."""
        batch, boxes, codes = memory
        position = int(self._job["position"])
        self.fill_boxes(samples, self._repeats[position : position + len(samples)], boxes)
        self.decode(samples, boxes, batch, codes, storage)
        return batch[: len(samples)]

    def generate_code(self) -> Callable:
        """The function that FFCV compiles and calls for every batch; the work is in functions kept on disk.

        Where FFCV compiles nothing it is :meth:`run`, which starts at once.
        """
        if not Compiler.is_enabled:
            return self.run
        self._describe_job(len(self.metadata))
        address = self._job.ctypes.data
        fill_boxes = Compiler.compile(self.box_function())

        def decode(batch_indices, memory, metadata, storage):  # type: ignore[no-untyped-def]
            jobs = carray(_void_pointer(address), 1, _JOB)
            batch, boxes, codes = memory
            fill_boxes(batch_indices, metadata, jobs[0], boxes)
            decode_batch(batch_indices, boxes, batch, codes, metadata, storage[0], storage[1], storage[2], jobs)
            return batch[: len(batch_indices)]

        return decode


class RandomResizedCropDecoder(CropDecoder):
    """For training: a random crop and mirroring that depend on (seed, epoch, sample) alone.

    Args:
        resolution: side of the output in pixels.
        seed: of the crops and flips.
        min_area: smallest crop as a share of the image's area.
        max_area: largest crop.
        ratio: smallest and largest aspect ratio.
        flip: mirror half of the samples.
        resize: the filter, see :class:`CropDecoder`.
    """

    def __init__(
        self,
        resolution: int,
        *,
        seed: int,
        min_area: float = 0.08,
        max_area: float = 1.0,
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool = True,
        resize: str = "triangle",
    ):
        super().__init__(resolution, resize=resize)
        self._job["seed"], self._job["flip"] = seed, flip
        self._job["min_area"], self._job["max_area"] = min_area, max_area
        self._job["min_ratio"], self._job["max_ratio"] = ratio

    def box_function(self) -> Callable:
        """See :class:`CropDecoder`."""

        def fill_boxes(samples, metadata, job, boxes):  # type: ignore[no-untyped-def]
            area, ratio = (job["min_area"], job["max_area"]), (job["min_ratio"], job["max_ratio"])
            repeats = carray(_void_pointer(job["repeats"]), job["num_repeats"], np.int64)
            repeats = repeats[job["position"] : job["position"] + len(samples)]
            random_boxes(samples, repeats, metadata, job["seed"], job["epoch"], area, ratio, job["flip"], boxes)

        return fill_boxes

    def fill_boxes(self, samples: np.ndarray, repeats: np.ndarray, boxes: np.ndarray) -> None:
        """See :class:`CropDecoder`."""
        job = self._job[()]
        area, ratio = (job["min_area"], job["max_area"]), (job["min_ratio"], job["max_ratio"])
        random_boxes(samples, repeats, self.metadata, job["seed"], job["epoch"], area, ratio, job["flip"], boxes)


class RandomPartDecoder(CropDecoder):
    """For training: a crop of constant size at random, and mirroring, which depend on (seed, epoch, sample) alone.

    Args:
        resolution: side of the output in pixels.
        seed: of the crops and flips.
        share: sides of the crop as a share of the image's.
        squash: of each of the image's sides; else the crop is a square, and it is of the shorter one.
        flip: mirror half of the samples.
        resize: the filter, see :class:`CropDecoder`.
    """

    def __init__(
        self, resolution: int, *, seed: int, share: float, squash: bool, flip: bool = True, resize: str = "triangle"
    ):
        super().__init__(resolution, resize=resize)
        self._job["seed"], self._job["flip"] = seed, flip
        self._job["share"], self._job["squash"] = share, squash

    def box_function(self) -> Callable:
        """See :class:`CropDecoder`."""

        def fill_boxes(samples, metadata, job, boxes):  # type: ignore[no-untyped-def]
            share, squash, flip = job["share"], job["squash"], job["flip"]
            repeats = carray(_void_pointer(job["repeats"]), job["num_repeats"], np.int64)
            repeats = repeats[job["position"] : job["position"] + len(samples)]
            random_part_boxes(samples, repeats, metadata, job["seed"], job["epoch"], share, squash, flip, boxes)

        return fill_boxes

    def fill_boxes(self, samples: np.ndarray, repeats: np.ndarray, boxes: np.ndarray) -> None:
        """See :class:`CropDecoder`."""
        job = self._job[()]
        share, squash, flip = job["share"], job["squash"], job["flip"]
        random_part_boxes(samples, repeats, self.metadata, job["seed"], job["epoch"], share, squash, flip, boxes)


class CenterCropDecoder(CropDecoder):
    """For validation: the centred square crop.

    Args:
        resolution: side of the output in pixels.
        ratio: side of the crop as a share of the image's shorter side.
        resize: the filter, see :class:`CropDecoder`.
    """

    def __init__(self, resolution: int, ratio: float = IMAGENET_CENTER_CROP, *, resize: str = "triangle"):
        super().__init__(resolution, resize=resize)
        self._job["center_ratio"] = ratio

    def box_function(self) -> Callable:
        """See :class:`CropDecoder`."""

        def fill_boxes(samples, metadata, job, boxes):  # type: ignore[no-untyped-def]
            center_boxes(samples, metadata, job["center_ratio"], boxes)

        return fill_boxes

    def fill_boxes(self, samples: np.ndarray, repeats: np.ndarray, boxes: np.ndarray) -> None:
        """See :class:`CropDecoder`."""
        center_boxes(samples, self.metadata, self._job[()]["center_ratio"], boxes)
