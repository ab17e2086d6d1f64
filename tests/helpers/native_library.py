"""The native decoder through ctypes, for tests and benchmarks."""

import ctypes
import os
from pathlib import Path

import numpy as np

from ffcv_imagenet import native
from ffcv_imagenet.native import RESIZE_FILTERS, JpegInfo, load_library


def load():
    """The installed library, or one built in another way: FIC_LIBRARY names it."""
    return load_library(Path(os.environ.get("FIC_LIBRARY", native.LIBRARY)))


class NativeError(Exception):
    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


def as_bytes(jpeg):
    """uint8 array over an exact heap copy, so that a sanitizer sees reads beyond its end."""
    return np.frombuffer(jpeg, np.uint8).copy()


class Decoder:
    def __init__(self, simd=True):
        self.library = load()
        self.context = self.library.fic_decoder_new()
        assert self.context
        self.simd = bool(self.library.fic_set_simd(self.context, int(simd)))

    def __del__(self):
        self.library.fic_decoder_free(self.context)

    def check(self, code):
        if code < 0:
            raise NativeError(code, self.library.fic_error_message(code).decode())
        return code

    def probe(self, jpeg):
        data, info = as_bytes(jpeg), JpegInfo()
        self.check(self.library.fic_probe(data.ctypes.data, data.size, ctypes.byref(info)))
        return info

    def index(self, jpeg, k=4):
        """The index as uint8 array, empty when the file cannot be indexed."""
        data = as_bytes(jpeg)
        size = self.check(self.library.fic_build_index(self.context, data.ctypes.data, data.size, k, None, 0))
        out = np.zeros(size, np.uint8)
        if size:
            size = self.check(
                self.library.fic_build_index(self.context, data.ctypes.data, data.size, k, out.ctypes.data, size)
            )
        return out[:size]

    def crop(self, jpeg, size, box, out, flip=False, index=None, k=4, resize="triangle"):
        """size: (width, height); box: (x, y, w, h); out: (width, height) -> [height, width, 3] uint8."""
        data = as_bytes(jpeg)
        image = np.zeros((out[1], out[0], 3), np.uint8)
        entries = (None, 0, 0) if index is None else (index.ctypes.data, index.size, k)
        self.check(
            self.library.fic_decode_crop(
                self.context,
                data.ctypes.data,
                data.size,
                *size,
                *box,
                *out,
                int(flip),
                RESIZE_FILTERS[resize],
                *entries,
                image.ctypes.data,
            )
        )
        return image

    def resize(self, rgb, box, out, flip=False, resize="triangle"):
        rgb = np.ascontiguousarray(rgb)
        image = np.zeros((out[1], out[0], 3), np.uint8)
        self.check(
            self.library.fic_resize_crop(
                self.context,
                rgb.ctypes.data,
                rgb.shape[1],
                rgb.shape[0],
                *box,
                *out,
                int(flip),
                RESIZE_FILTERS[resize],
                image.ctypes.data,
            )
        )
        return image

    def read_plain(self, jpeg, size):
        """size: (width, height) -> [height, width, 3] uint8."""
        data, image = as_bytes(jpeg), np.empty((size[1], size[0], 3), np.uint8)
        self.check(
            self.library.fic_read_plain_image(self.context, data.ctypes.data, data.size, *size, image.ctypes.data)
        )
        return image

    def write(self, rgb, quality=90, k=4, capacity=None):
        """JPEG bytes and their index as uint8 array."""
        rgb, (height, width) = np.ascontiguousarray(rgb), rgb.shape[:2]
        if capacity is None:
            capacity = self.check(self.library.fic_written_capacity(width, height))
        out = np.empty(capacity, np.uint8)
        index = np.empty(self.check(self.library.fic_written_index_capacity(width, height, k)), np.uint8)
        index_size = ctypes.c_int64(index.size)
        size = self.check(
            self.library.fic_write_jpeg(
                self.context,
                rgb.ctypes.data,
                width,
                height,
                quality,
                out.ctypes.data,
                capacity,
                k,
                index.ctypes.data,
                ctypes.byref(index_size),
            )
        )
        return out[:size].tobytes(), index[: index_size.value]

    def shrink_area(self, rgb, size):
        """size: (width, height) -> [height, width, 3] uint8."""
        rgb, out = np.ascontiguousarray(rgb).copy(), np.empty((size[1], size[0], 3), np.uint8)
        self.check(
            self.library.fic_shrink_area(
                self.context, rgb.ctypes.data, rgb.shape[1], rgb.shape[0], *size, out.ctypes.data
            )
        )
        return out
