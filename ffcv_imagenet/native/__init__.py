"""The native crop decoder (C, built at installation): see ``fic.h`` for what each function does.

Python calls it through ctypes here, one image at a time; the loader calls the same functions from compiled code.
"""

from __future__ import annotations

import ctypes
import enum
import threading
import zlib
from pathlib import Path

import numpy as np

from ffcv_imagenet.native import _native  # type: ignore[attr-defined]

#: The shared library, whose functions are plain C.
LIBRARY = Path(_native.__file__)


#: The functions' declarations.
HEADER = Path(__file__).with_name("fic.h")


def check_interface(built_from: str, header: Path) -> None:
    """Check that the library was built from ``header``; ``built_from`` is the checksum that it was built with.

    Raises:
        ImportError: it was not: the source is newer, and calls would go wrong.
    """
    if built_from != f"{zlib.crc32(header.read_bytes()):08x}":
        raise ImportError(
            f"{LIBRARY} was built from another {header.name}: build it again (make setup, or pip install .)"
        )


check_interface(_native.interface, HEADER)


def load_library(path: Path) -> ctypes.CDLL:
    """Load the shared library at ``path`` and declare its functions."""
    library = ctypes.CDLL(str(path))
    pointer, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    for name, result, arguments in (
        ("fic_error_message", ctypes.c_char_p, [int32]),
        ("fic_decoder_new", pointer, []),
        ("fic_decoder_free", None, [pointer]),
        ("fic_set_simd", int32, [pointer, int32]),
        ("fic_decode_crop", int32, [pointer, pointer, int64, *[int32] * 10, pointer, int64, int32, pointer]),
        ("fic_resize_crop", int32, [pointer, pointer, *[int32] * 10, pointer]),
        ("fic_probe", int32, [pointer, int64, pointer]),
        ("fic_read_image", int32, [pointer, int64, int32, int32, pointer]),
        ("fic_read_plain_image", int32, [pointer, pointer, int64, int32, int32, pointer]),
        ("fic_write_jpeg", int64, [pointer, pointer, int32, int32, int32, pointer, int64, int32, pointer, pointer]),
        ("fic_written_capacity", int64, [int32, int32]),
        ("fic_written_index_capacity", int64, [int32, int32, int32]),
        ("fic_shrink_area", int32, [pointer, pointer, *[int32] * 4, pointer]),
        ("fic_build_index", int64, [pointer, pointer, int64, int32, pointer, int64]),
        ("fic_will_need", None, [pointer, pointer, pointer, int64]),
        ("fic_begin_to_store", None, [int32, int64, int64]),
        ("fic_gpu_gather", int32, [pointer, pointer, *[int32] * 5, pointer, int64, int64, pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


_library = load_library(LIBRARY)

#: The resizing filters and their numbers in C: Pillow's BILINEAR, OpenCV's INTER_AREA, Pillow's BICUBIC.
RESIZE_FILTERS = {"triangle": 0, "area": 1, "bicubic": 2}

#: See ``fic.h``; all arguments are numbers.
gpu_gather = _library.fic_gpu_gather


class Error(enum.IntEnum):
    """``enum fic_error`` of ``fic.h``, which says what each code means."""

    ARGUMENT = -1
    MEMORY = -2
    NOT_JPEG = -3
    HEADER = -4
    SIZE_MISMATCH = -5
    HUFFMAN_TABLE = -6
    TRUNCATED = -7
    CODE = -8
    COEFFICIENT = -9
    RESTART = -10
    INDEX = -11
    UNSUPPORTED = -12
    FALLBACK = -13
    CAPACITY = -14


class JpegInfo(ctypes.Structure):
    """``fic_jpeg_info`` of ``fic.h``: what a JPEG's header says."""

    _fields_ = (
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("components", ctypes.c_int32),
        ("subsampling_x", ctypes.c_int32),  # luma samples per chroma sample: 1 or 2; 0 when it is neither
        ("subsampling_y", ctypes.c_int32),
        ("progressive", ctypes.c_int32),
        ("indexable", ctypes.c_int32),
        ("restart_interval", ctypes.c_int32),  # in MCUs, 0: none
        ("plain", ctypes.c_int32),
    )


#: The GPU's part of the decoder: CUDA C++ that includes headers of this folder.
GPU_KERNELS = Path(__file__).with_name("gpu_kernels.cu")


class Decoder:
    """Scratch memory and tables of one thread."""

    _free = staticmethod(_library.fic_decoder_free)  # kept here: at the program's end module names are gone first

    def __init__(self) -> None:
        self.address: int | None = _library.fic_decoder_new()
        if self.address is None:
            raise MemoryError("no memory for a decoder")

    def __del__(self) -> None:
        if getattr(self, "address", None) is not None:
            self._free(self.address)


_of_thread = threading.local()


def _decoder() -> int:
    if not hasattr(_of_thread, "decoder"):
        _of_thread.decoder = Decoder()
    return _of_thread.decoder.address


def error_message(code: int) -> str:
    """What an error code of the library means."""
    return _library.fic_error_message(code).decode()


def decode_crop(
    jpeg: bytes | np.ndarray,
    image_size: tuple[int, int],
    box: tuple[int, int, int, int],
    output_size: tuple[int, int],
    *,
    flip: bool = False,
    resize: str = "triangle",
    index: bytes | np.ndarray | None = None,
    every: int = 0,
) -> np.ndarray:
    """Decode a crop of a JPEG and resize it.

    Args:
        jpeg: the file, uint8.
        image_size: (height, width) that the file is known to have.
        box: (top, left, height, width) inside the image.
        output_size: (height, width).
        flip: mirror horizontally.
        resize: one of :data:`RESIZE_FILTERS`.
        index: entry points of this file, made by :func:`build_index` with the same ``every``.
        every: MCUs between entry points.

    Returns:
        [height, width, 3] uint8 RGB.

    Raises:
        ValueError: damaged bytes, or a box or a size that does not fit the image.
    """
    data, entries = _bytes(jpeg), _bytes(b"" if index is None else index)
    out = np.empty((*output_size, 3), np.uint8)
    top, left, height, width = box
    code = _library.fic_decode_crop(
        _decoder(), data.ctypes.data, data.size, image_size[1], image_size[0], left, top, width, height,
        output_size[1], output_size[0], flip, RESIZE_FILTERS[resize], entries.ctypes.data if entries.size else None,
        entries.size, every, out.ctypes.data,
    )  # fmt: skip
    _check(code)
    return out


def resize_crop(
    image: np.ndarray,
    box: tuple[int, int, int, int],
    output_size: tuple[int, int],
    *,
    flip: bool = False,
    resize: str = "triangle",
) -> np.ndarray:
    """What :func:`decode_crop` does, from the pixels of an image, [H, W, 3] uint8 RGB."""
    image, out = np.ascontiguousarray(image), np.empty((*output_size, 3), np.uint8)
    top, left, height, width = box
    code = _library.fic_resize_crop(
        _decoder(), image.ctypes.data, image.shape[1], image.shape[0], left, top, width, height,
        output_size[1], output_size[0], flip, RESIZE_FILTERS[resize], out.ctypes.data,
    )  # fmt: skip
    _check(code)
    return out


def shrink_area(image: np.ndarray, output_size: tuple[int, int]) -> np.ndarray | None:
    """Shrink [H, W, 3] uint8 along both axes to (height, width), exactly as OpenCV's INTER_AREA does on x86.

    Returns:
        [height, width, 3] uint8; None where both ratios are integers: OpenCV has another method for those.

    Raises:
        ValueError: not smaller, or a side of more than 65,535 pixels.
    """
    image, out = np.ascontiguousarray(image), np.empty((*output_size, 3), np.uint8)
    (height, width), sizes = image.shape[:2], output_size[::-1]
    code = _library.fic_shrink_area(_decoder(), image.ctypes.data, width, height, *sizes, out.ctypes.data)
    if code == Error.UNSUPPORTED:
        return None
    _check(code)
    return out


def build_index(jpeg: bytes | np.ndarray, every: int) -> bytes:
    """Entry points at every ``every``-th MCU of a JPEG; empty if it is decoded without them.

    Raises:
        ValueError: damaged bytes.
    """
    data = _bytes(jpeg)
    capacity = _library.fic_build_index(_decoder(), data.ctypes.data, data.size, every, None, 0)
    _check(capacity)
    entries = np.empty(max(capacity, 1), np.uint8)
    written = _library.fic_build_index(_decoder(), data.ctypes.data, data.size, every, entries.ctypes.data, capacity)
    _check(written)
    return entries[:written].tobytes()


def will_need(content: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> None:
    """Ask the system to read parts of a mapped file, without waiting for them.

    Args:
        content: the file, [bytes] uint8, a mapping.
        starts: [N] uint64, first bytes of the parts, which lie inside the file.
        sizes: [N] uint64, in bytes.
    """
    starts, sizes = np.ascontiguousarray(starts, np.uint64), np.ascontiguousarray(sizes, np.uint64)
    _library.fic_will_need(content.ctypes.data, starts.ctypes.data, sizes.ctypes.data, len(starts))


def begin_to_store(descriptor: int, start: int, size: int) -> None:
    """Ask the system to bring a part of a written file to the disk, without waiting for it."""
    _library.fic_begin_to_store(descriptor, start, size)


def read_image(jpeg: bytes) -> np.ndarray:
    """Decode a whole JPEG, exactly as Pillow does.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        ValueError: damaged bytes, or a kind of JPEG for which that does not hold: CMYK, and progressive ones. Where
            those lack scans, each version of libjpeg-turbo fills the gaps in its own way.
    """
    info = _probe(jpeg)
    if info.progressive:
        raise ValueError("a progressive JPEG")
    image = read_plain_image(jpeg, info.width * info.height)
    if image is None:
        image = np.empty((info.height, info.width, 3), np.uint8)
        _check(_library.fic_read_image(jpeg, len(jpeg), info.width, info.height, image.ctypes.data))
    return image


def read_plain_image(jpeg: bytes, max_pixels: int) -> np.ndarray | None:
    """Decode a whole JPEG of the common kinds exactly as Pillow does, which would not refuse it.

    Returns:
        [H, W, 3] uint8 RGB; None where others have to say what it is: not plain, damaged, or of more than
        ``max_pixels`` pixels.
    """
    info = JpegInfo()
    if _library.fic_probe(jpeg, len(jpeg), ctypes.byref(info)) < 0 or not info.plain:
        return None
    if info.width * info.height > max_pixels:
        return None
    out = np.empty((info.height, info.width, 3), np.uint8)
    code = _library.fic_read_plain_image(_decoder(), jpeg, len(jpeg), info.width, info.height, out.ctypes.data)
    return out if code == 0 else None


def write_jpeg(image: np.ndarray, quality: int, every: int = 1) -> tuple[bytes, bytes]:
    """Encode [H, W, 3] uint8 RGB as a baseline 4:2:0 JPEG, exactly as OpenCV does.

    Returns:
        The file, and its entry points at every ``every``-th MCU, as :func:`build_index` would make them.

    Raises:
        ValueError: a side of more than 65,500 pixels.
    """
    image = np.ascontiguousarray(image)
    height, width = image.shape[:2]
    capacity = _library.fic_written_capacity(width, height)
    _check(capacity)
    index_size = ctypes.c_int64(_library.fic_written_index_capacity(width, height, every))
    _check(index_size.value)
    out, entries = np.empty(capacity, np.uint8), np.empty(index_size.value, np.uint8)
    size = _library.fic_write_jpeg(
        _decoder(), image.ctypes.data, width, height, quality, out.ctypes.data, capacity,
        every, entries.ctypes.data, ctypes.byref(index_size),
    )  # fmt: skip
    _check(size)
    return out[:size].tobytes(), entries[: index_size.value].tobytes()


def image_size(jpeg: bytes) -> tuple[int, int]:
    """(height, width) of a JPEG in pixels, from its header.

    Raises:
        ValueError: not a JPEG.
    """
    info = _probe(jpeg)
    return info.height, info.width


def _probe(jpeg: bytes) -> JpegInfo:
    data, info = _bytes(jpeg), JpegInfo()
    _check(_library.fic_probe(data.ctypes.data, data.size, ctypes.byref(info)))
    return info


def _bytes(data: bytes | np.ndarray) -> np.ndarray:
    return np.frombuffer(data, np.uint8) if isinstance(data, bytes) else np.ascontiguousarray(data, np.uint8)


def _check(code: int) -> None:
    if code < 0:
        raise ValueError(error_message(code))
