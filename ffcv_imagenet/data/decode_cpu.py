"""Decoding on the CPU: FFCV operations from a sample's bytes to its cropped, resized and mirrored pixels.

Give them to an FFCV Loader as the first operation of an image pipeline. Their resolution may change between epochs
without recompiling anything.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from ffcv.fields.rgb_image import IMAGE_MODES, SimpleRGBImageDecoder
from ffcv.libffcv import imdecode, resize_crop
from ffcv.pipeline.allocation_query import AllocationQuery
from ffcv.pipeline.compiler import Compiler
from ffcv.pipeline.state import State
from numba import carray, types
from numba.extending import intrinsic

from ffcv_imagenet.data.crops import center_crop, random_flip, random_resized_crop, sample_key

#: Crop side of validation images as a share of the shorter image side; FFCV's and torchvision's 224 / 256.
CENTER_CROP_RATIO = 224 / 256


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """A memory address as a pointer to 64-bit unsigned numbers."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.uint64)(types.uintp), generate


class CropDecoder(SimpleRGBImageDecoder):
    """Decode, crop and resize to ``[B, resolution, resolution, 3] uint8``."""

    def __init__(self, resolution: int):
        super().__init__()
        self.resolution = resolution

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, tuple[AllocationQuery, ...]]:
        """Ask for the output, and for room for one whole image per sample of a batch."""
        shape = (self.resolution, self.resolution, 3)
        largest = int(self.metadata["height"].max()) * int(self.metadata["width"].max()) * 3
        byte = np.dtype("u1")
        return (
            replace(previous_state, jit_mode=True, shape=shape, dtype=byte),
            (AllocationQuery(shape, byte), AllocationQuery((largest,), byte)),
        )

    @abstractmethod
    def crop_function(self) -> Callable:
        """A function ``(sample index, height, width) -> (top, left, height, width, flip)`` for numba."""

    def generate_code(self) -> Callable:
        """The function that FFCV compiles and calls for every batch."""
        read = self.memory_read
        samples = Compiler.get_iterator()
        decode_jpeg, resize = Compiler.compile(imdecode), Compiler.compile(resize_crop)
        crop_of = Compiler.compile(self.crop_function())
        jpeg_mode = IMAGE_MODES["jpg"]

        def decode(batch_indices, memory, metadata, storage):  # type: ignore[no-untyped-def]
            destination, images = memory
            for i in samples(len(batch_indices)):
                sample = batch_indices[i]
                field = metadata[sample]
                data = read(field["data_ptr"], storage)
                height, width = np.uint32(field["height"]), np.uint32(field["width"])
                if field["mode"] == jpeg_mode:
                    decode_jpeg(data, images[i], height, width, height, width, 0, 0, 1, 1, False, False)
                    data = images[i]
                image = data[: np.int64(height) * np.int64(width) * 3].reshape(height, width, 3)
                top, left, h, w, flip = crop_of(sample, height, width)
                resize(image, top, top + h, left, left + w, destination[i])
                if flip:
                    for row in range(destination.shape[1]):
                        destination[i, row] = destination[i, row, ::-1].copy()
            return destination[: len(batch_indices)]

        decode.is_parallel = True  # type: ignore[attr-defined]
        return decode


class RandomResizedCropDecoder(CropDecoder):
    """For training: a random crop and mirroring that depend on (seed, epoch, sample) alone.

    Args:
        resolution: side of the output in pixels.
        seed: of the crops and flips.
        min_area: smallest crop as a share of the image's area; the largest is all of it. Ratios are 3/4 to 4/3.
        flip: mirror half of the samples.
    """

    def __init__(self, resolution: int, *, seed: int, min_area: float = 0.08, flip: bool = True):
        super().__init__(resolution)
        self.min_area, self.flip = min_area, flip
        # Read by the compiled code through its address, so that a new epoch is not a new compilation.
        self._seed_and_epoch = np.array([seed, 0], dtype=np.uint64)

    def set_epoch(self, epoch: int) -> None:
        """Choose the crops and flips of an epoch."""
        self._seed_and_epoch[1] = epoch

    def crop_function(self) -> Callable:
        """See :class:`CropDecoder`."""
        address = self._seed_and_epoch.ctypes.data
        min_area, flip = self.min_area, self.flip

        def crop_of(sample: int, height: int, width: int) -> Any:
            state = carray(_pointer(address), 2)  # type: ignore[call-arg]
            key = sample_key(state[0], state[1], sample)
            top, left, h, w = random_resized_crop(key, height, width, min_area, 1.0, 3 / 4, 4 / 3)
            return top, left, h, w, flip and random_flip(key)

        return crop_of


class CenterCropDecoder(CropDecoder):
    """For validation: the centred square crop of :data:`CENTER_CROP_RATIO` of the shorter side."""

    def crop_function(self) -> Callable:
        """See :class:`CropDecoder`."""

        def crop_of(sample: int, height: int, width: int) -> Any:
            top, left, h, w = center_crop(height, width, CENTER_CROP_RATIO)
            return top, left, h, w, False

        return crop_of
