"""From image files, wherever they lie, to the bytes that are stored, in threads.

The slow parts (reading, decoding, encoding, the index) are native code that releases the GIL, so threads are as fast
as processes, without their start and without copying every image between them.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ffcv_imagenet import native
from ffcv_imagenet.data.format.index import EVERY
from ffcv_imagenet.data.format.manifest import WriteParameters
from ffcv_imagenet.data.sources.pixels import decode_image, is_jpeg, open_image

#: Images that a worker encodes at a time.
CHUNK_SIZE = 8

#: Chunks per worker that may be encoded or waiting for their turn; it bounds the memory.
CHUNKS_AHEAD = 4

#: Longest side that OpenCV stores as JPEG; FFCV's format ends at 65535.
MAX_SIDE = 65500


class EncodedImage(NamedTuple):
    """An image as it is stored: JPEG with its entry points, or raw pixels ([height, width, 3] uint8 RGB)."""

    is_jpeg: bool
    height: int
    width: int
    data: bytes
    entries: bytes = b""


def stored_size(height: int, width: int, max_resolution: int | None) -> tuple[int, int]:
    """Height and width at which an image is stored: its longest side is at most ``max_resolution`` pixels.

    Rounds as FFCV does (down), but leaves at least 1 pixel.
    """
    if max_resolution is None or max(height, width) <= max_resolution:
        return height, width
    ratio = max_resolution / max(height, width)
    return max(1, int(ratio * height)), max(1, int(ratio * width))


def encode_content(content: bytes, mode: str, parameters: WriteParameters) -> EncodedImage:
    """Store the content of an image file as ``mode`` says: ``jpg``, ``raw``, or ``smart`` (choose by size).

    Raises:
        ValueError: it cannot be decoded, or does not fit into the format.
    """
    if mode == "jpg" and not parameters.reencode:
        kept = _kept(content, parameters)
        if kept is not None:
            return kept
    image = decode_image(content, parameters.max_pixels)
    size = stored_size(image.shape[0], image.shape[1], parameters.max_resolution)
    if size != image.shape[:2]:
        assert parameters.resize is not None
        image = shrink(image, size, parameters.resize)
    return encode_image(image, mode, parameters)


def shrink(image: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
    """Resize [H, W, 3] uint8 to ``size`` (height, width), exactly as FFCV does when ``resize`` is ``area``."""
    if resize == "area":
        small = native.shrink_area(image, size)  # in a fraction of OpenCV's time
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA) if small is None else small
    return native.resize_crop(image, (0, 0, *image.shape[:2]), size, resize=resize)


def encode_image(image: np.ndarray, mode: str, parameters: WriteParameters) -> EncodedImage:
    """Store [H, W, 3] uint8 RGB; see :func:`encode_content`."""
    height, width = image.shape[:2]
    if max(height, width) > MAX_SIDE:
        raise ValueError(
            f"{width} x {height} pixels, allowed are {MAX_SIDE} a side: shrink it by --write.max_resolution"
        )
    is_jpeg = mode != "raw"
    if is_jpeg:
        assert parameters.jpeg_quality is not None
        data, entries = native.write_jpeg(image, parameters.jpeg_quality, EVERY)
    else:
        data, entries = image.tobytes(), b""
    if mode == "smart":
        assert parameters.smart_threshold is not None
        if image.nbytes <= parameters.smart_threshold * len(data):
            is_jpeg, data, entries = False, image.tobytes(), b""
    if len(data) > parameters.page_size_mib << 20:
        raise ValueError(
            f"{width} x {height} pixels take {len(data)} bytes, more than a page of {parameters.page_size_mib} MiB: "
            "shrink it by --write.max_resolution or give a larger --write.page_size_mib"
        )
    return EncodedImage(is_jpeg, height, width, data, entries)


def encode_samples(
    read: Callable[[int], bytes],
    numbers: Sequence[int],
    modes: Sequence[str],
    parameters: WriteParameters,
    num_workers: int,
) -> Generator[EncodedImage | ValueError, None, None]:
    """Read and encode samples of a source in ``num_workers`` threads; yields in the order of ``numbers``.

    Close the generator (``contextlib.closing``) to stop the workers early.

    Args:
        read: content of the image file of a sample, see :meth:`Source.read`.
        numbers: of the samples.
        modes: how to store each of them, see :func:`encode_image`.
        parameters: size limit and quality.
        num_workers: number of threads, >= 1. The results do not depend on it.

    Yields:
        The encoded image, or the reason why a file cannot be read, decoded or stored.
    """
    cv2.setNumThreads(1)
    warnings.filterwarnings("ignore", module="PIL")  # about metadata; they would fill the terminal
    num_chunks = -(-len(numbers) // CHUNK_SIZE)  # rounded up
    tasks: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    results: dict[int, list[EncodedImage | ValueError] | BaseException] = {}
    arrived = threading.Condition()

    def work() -> None:
        while (chunk := tasks.get()) is not None:
            part = slice(chunk * CHUNK_SIZE, (chunk + 1) * CHUNK_SIZE)
            result: list[EncodedImage | ValueError] | BaseException
            try:
                samples = zip(numbers[part], modes[part], strict=True)
                result = [encode_sample(read, number, mode, parameters) for number, mode in samples]
            except BaseException as error:  # not the file's fault: out of memory, or our own mistake
                result = error
            with arrived:
                results[chunk] = result
                arrived.notify()

    ahead = CHUNKS_AHEAD * num_workers
    for chunk in range(min(ahead, num_chunks)):
        tasks.put(chunk)
    for _ in range(num_workers):
        # Daemons: a file system that does not answer must not keep the program from ending.
        threading.Thread(target=work, daemon=True).start()
    try:
        for chunk in range(num_chunks):
            with arrived:
                while chunk not in results:
                    arrived.wait()
                result = results.pop(chunk)
            if isinstance(result, BaseException):
                raise result
            if chunk + ahead < num_chunks:
                tasks.put(chunk + ahead)
            yield from result
    finally:
        with contextlib.suppress(queue.Empty):
            while True:
                tasks.get_nowait()
        for _ in range(num_workers):
            tasks.put(None)


def encode_sample(
    read: Callable[[int], bytes], number: int, mode: str, parameters: WriteParameters
) -> EncodedImage | ValueError:
    """Store a sample's image file, see :func:`encode_content`; returns the reason if that cannot be done."""
    try:
        return encode_content(read(number), mode, parameters)
    except ValueError as error:
        return error
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        return ValueError("there is not enough memory to store it")


def _kept(content: bytes, parameters: WriteParameters) -> EncodedImage | None:
    """A JPEG file as it is, if it is small enough and the crop decoder reads it; else None.

    Raises:
        ValueError: Pillow refuses its header.
    """
    if not is_jpeg(content):
        return None
    width, height = open_image(content, parameters.max_pixels).size
    small = stored_size(height, width, parameters.max_resolution) == (height, width)
    if not small or len(content) > parameters.page_size_mib << 20:
        return None
    try:
        entries = native.build_index(content, EVERY)  # reads it to its end: a damaged file is not kept
    except ValueError:
        return None
    return EncodedImage(True, height, width, content, entries) if entries else None
