"""From image files to the bytes that are stored, in worker processes.

The workers import this module and nothing of ffcv or torch, which would cost each of them seconds.

Each worker has a pipe of its own, because the queues of ``concurrent.futures`` are shared: a worker that is killed
while it sends a large result leaves everybody else waiting for ever. Here its pipe ends, and that is an error.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import signal
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ffcv_imagenet import native
from ffcv_imagenet.data.index import EVERY
from ffcv_imagenet.data.manifest import WriteParameters
from ffcv_imagenet.data.sources import decode_image, is_jpeg, read_file

#: Images that a worker gets, and returns, at a time.
CHUNK_SIZE = 16

#: Chunks per worker that may be handed out and not yet consumed; it bounds the memory.
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
    image = _shrunk_jpeg(content, parameters) if is_jpeg(content) else None
    if image is None:
        image = decode_image(content)
        height, width = stored_size(image.shape[0], image.shape[1], parameters.max_resolution)
        if (height, width) != image.shape[:2]:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return encode_image(image, mode, parameters)


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
        data = native.write_jpeg(image, parameters.jpeg_quality)
    else:
        data = image.tobytes()
    if mode == "smart":
        assert parameters.smart_threshold is not None
        if image.nbytes <= parameters.smart_threshold * len(data):
            is_jpeg, data = False, image.tobytes()
    if len(data) > parameters.page_size_mib << 20:
        raise ValueError(
            f"{width} x {height} pixels take {len(data)} bytes, more than a page of {parameters.page_size_mib} MiB: "
            "shrink it by --write.max_resolution or give a larger --write.page_size_mib"
        )
    return EncodedImage(is_jpeg, height, width, data, native.build_index(data, EVERY) if is_jpeg else b"")


def encode_files(
    paths: Sequence[str], modes: Sequence[str], parameters: WriteParameters, num_workers: int
) -> Generator[EncodedImage, None, None]:
    """Read and encode image files in ``num_workers`` processes; yields in the order of ``paths``.

    Close the generator (``contextlib.closing``) to stop the workers early.

    Args:
        paths: image files.
        modes: how to store each of them, see :func:`encode_image`.
        parameters: size limit and quality.
        num_workers: number of processes, >= 1. The results do not depend on it.

    Raises:
        ValueError: a file cannot be decoded or stored; names the first such file.
        ChildProcessError: a worker died.
    """
    starts = range(0, len(paths), CHUNK_SIZE)
    chunks = [(paths[start : start + CHUNK_SIZE], modes[start : start + CHUNK_SIZE]) for start in starts]
    workers: list[_Worker] = []
    try:
        for _ in range(min(num_workers, len(chunks))):
            workers.append(_Worker(parameters))
        for result in _in_order(workers, chunks):
            if isinstance(result, ValueError):
                raise result
            yield from result
    finally:
        for worker in workers:
            worker.stop()


Chunk = tuple[Sequence[str], Sequence[str]]
Result = list[EncodedImage] | ValueError


class _Worker:
    """A worker process, seen from the main process."""

    def __init__(self, parameters: WriteParameters):
        # Not fork: the main process has threads (torch's, numba's), and a forked copy of a held lock never opens.
        context = multiprocessing.get_context("spawn")
        self.connection, child = context.Pipe()
        self.process = context.Process(target=_work, args=(child, parameters), daemon=True)
        self.process.start()
        child.close()  # the worker now has the only copy: when it dies, the connection ends
        self.num_waiting = 0  # chunks sent and not yet returned

    def send(self, number: int, chunk: Chunk) -> None:
        with self._alive():
            self.connection.send((number, chunk))
        self.num_waiting += 1

    def receive(self) -> tuple[int, Result]:
        with self._alive():
            answer = self.connection.recv()
        self.num_waiting -= 1
        return answer

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            hint = " (out of memory? use fewer --write.num_workers)" if code == -signal.SIGKILL else ""
            raise ChildProcessError(f"a worker process {how}{hint}") from None


def _in_order(workers: Sequence[_Worker], chunks: Sequence[Chunk]) -> Iterator[Result]:
    """Hand out ``chunks`` to ``workers`` and yield the results in order."""
    num_sent = 0
    results: dict[int, Result] = {}
    for number in range(len(chunks)):
        limit = min(len(chunks), number + CHUNKS_AHEAD * len(workers))
        while number not in results:
            for num_waiting in (0, 1):  # a second chunk per worker, so that none waits for the main process
                for worker in workers:
                    if worker.num_waiting == num_waiting and num_sent < limit:
                        worker.send(num_sent, chunks[num_sent])
                        num_sent += 1
            busy = {worker.connection: worker for worker in workers if worker.num_waiting}
            for connection in multiprocessing.connection.wait(list(busy)):
                answered, result = busy[connection].receive()  # type: ignore[index]
                results[answered] = result
        yield results.pop(number)


def _work(connection: multiprocessing.connection.Connection, parameters: WriteParameters) -> None:
    """Run a worker process: chunks in, results out, until the main process closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the main process stops the workers
    cv2.setNumThreads(1)
    warnings.filterwarnings("ignore", module="PIL")  # about metadata; they would fill the terminal
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, (paths, modes) = connection.recv()
            result: Result
            try:
                result = [encode_file(path, mode, parameters) for path, mode in zip(paths, modes, strict=True)]
            except ValueError as error:
                result = error
            connection.send((number, result))


def encode_file(path: str, mode: str, parameters: WriteParameters) -> EncodedImage:
    """Store an image file; see :func:`encode_content`. The error names the file."""
    content = read_file(path)
    try:
        return encode_content(content, mode, parameters)
    except ValueError as error:
        raise ValueError(f"cannot store {path}: {error}") from error


def _shrunk_jpeg(content: bytes, parameters: WriteParameters) -> np.ndarray | None:
    """A JPEG that is too large, decoded and shrunk in one go by the crop decoder; None where that is not to be done.

    It is several times faster than decoding the whole image and shrinking that.
    """
    try:
        size = native.image_size(content)
        target = stored_size(*size, parameters.max_resolution)
        return native.decode_crop(content, size, (0, 0, *size), target) if target != size else None
    except ValueError:  # damaged, perhaps; Pillow decides about it
        return None


def _kept(content: bytes, parameters: WriteParameters) -> EncodedImage | None:
    """A JPEG file as it is, where it is small enough and the crop decoder reads it; else None."""
    if not is_jpeg(content):
        return None
    try:
        height, width = native.image_size(content)
        entries = native.build_index(content, EVERY)  # reads it to its end: a damaged file is not kept
    except ValueError:
        return None
    small = stored_size(height, width, parameters.max_resolution) == (height, width)
    fits = len(content) <= parameters.page_size_mib << 20
    return EncodedImage(True, height, width, content, entries) if small and fits and entries else None
