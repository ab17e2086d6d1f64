"""Batches for training and validation, from FFCV's Loader."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from queue import Full
from typing import Any, NamedTuple

import numba
import torch
from ffcv.fields.basics import IntDecoder
from ffcv.loader import Loader as FFCVLoader
from ffcv.loader.epoch_iterator import IS_CUDA, EpochIterator
from ffcv.transforms import ToDevice, ToTensor, ToTorchImage
from torch import Tensor

from ffcv_imagenet.data.decode_cpu import CropDecoder, DamagedSampleError, RandomResizedCropDecoder
from ffcv_imagenet.data.index import EntryIndex
from ffcv_imagenet.data.manifest import Manifest
from ffcv_imagenet.data.orders import ShardedOrder, ShuffledOrder

_running: weakref.WeakSet[_BatchIterator] = weakref.WeakSet()


class Batch(NamedTuple):
    """``images [B, 3, H, W] uint8 0..255`` (channels_last) and ``labels [B] int64``, on the training device.

    On a CPU the memory is used again for the next batch but two: never keep one.
    """

    images: Tensor
    labels: Tensor


class BatchLoader(FFCVLoader):
    """An FFCV Loader of image batches whose errors reach the consumer.

    Args:
        path: a .beton file with the fields ``image`` and ``label``.
        decoder: first operation of the image pipeline.
        order: order of the samples, with this rank's part of them.
        batch_size: images per batch; the last batch of an epoch may be smaller.
        num_workers: decoding threads, 0: one per usable core.
        device: where the batches go.

    Raises:
        ValueError: more workers than numba has threads.
    """

    def __init__(
        self,
        path: Path,
        decoder: CropDecoder,
        order: ShuffledOrder | ShardedOrder,
        *,
        batch_size: int,
        num_workers: int,
        device: torch.device,
    ):
        manifest = Manifest.read(path)
        decoder.index = EntryIndex.open(path, manifest.checksum, manifest.num_samples)
        self.decoder = decoder
        most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        if num_workers > most:
            raise ValueError(f"data.num_workers: got {num_workers}, allowed are at most {most} (0: automatic)")
        to_device = [ToDevice(device)] if device.type == "cuda" else []
        with _torch_threads_kept():
            super().__init__(
                str(path),
                batch_size,
                num_workers=num_workers or min(len(os.sched_getaffinity(0)), most),
                order=order,
                seed=0,
                drop_last=False,
                pipelines={
                    "image": [decoder, ToTensor(), *to_device, ToTorchImage()],
                    "label": [IntDecoder(), ToTensor(), *to_device],
                },
            )

    def epoch(self, epoch: int, resolution: int) -> Iterator[Batch]:
        """This rank's batches of an epoch, images of side ``resolution``.

        Closing the generator, also by leaving a loop over it, stops the decoding thread.

        Raises:
            ValueError: a damaged sample; names it.
        """
        self.next_epoch = epoch
        self.decoder.resolution = resolution
        if isinstance(self.decoder, RandomResizedCropDecoder):
            self.decoder.set_epoch(epoch)
        batches = iter(self)
        try:
            for images, labels in batches:
                yield Batch(images, labels.view(-1))
        except DamagedSampleError as error:
            raise ValueError(f"{self.fname}: {error}") from None
        finally:
            batches.close()

    def __iter__(self) -> _BatchIterator:
        iterator = _BatchIterator(self, self.next_traversal_order())
        _running.add(iterator)
        return iterator


@contextlib.contextmanager
def _torch_threads_kept() -> Iterator[None]:
    """FFCV's Loader gives torch as many threads as itself; the training decides about torch's."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@atexit.register
def _close_all() -> None:
    """End the decoding threads that are left at the end of the program: Python would kill them in their C code."""
    for iterator in list(_running):
        iterator.close()


class _BatchIterator(EpochIterator):
    """FFCV's iterator, except that an exception in its thread is raised by ``next``, and that it can be closed."""

    def run(self) -> None:
        numba.set_num_threads(self.loader.num_workers)
        slots = self.loader.batches_ahead + 2
        events: list[Any] = [None] * slots
        try:
            for number, indices in enumerate(self.iter_ixes):
                slot = number % slots
                result = self.run_pipeline(number, indices, slot, events[slot])
                if not self._put((slot, result)):
                    return
                if IS_CUDA:
                    # The consumer has asked for the batch before this one, so all its work on the batch
                    # batches_ahead + 1 before is submitted; that slot is free once the work is done.
                    event = torch.cuda.Event()
                    event.record(self.current_stream)
                    events[(slot - self.loader.batches_ahead - 1) % slots] = event
            self._put(None)
        except Exception as error:
            self._put(error)

    def _put(self, item: Any) -> bool:
        """Hand ``item`` over; False when the consumer has left."""
        while not self.terminate_event.is_set():
            try:
                self.output_queue.put(item, timeout=0.1)
                return True
            except Full:
                pass
        return False

    def __next__(self) -> Any:
        item = self.output_queue.get()
        if item is None:
            raise StopIteration
        if isinstance(item, Exception):
            raise item
        slot, result = item
        if IS_CUDA:
            self.current_stream.wait_stream(self.cuda_streams[slot])
        return result

    def close(self) -> None:
        super().close()
        self.join()
        _running.discard(self)

    def __del__(self) -> None:
        self.terminate_event.set()
