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
import numpy as np
import torch
from ffcv.fields.basics import IntDecoder
from ffcv.loader import Loader as FFCVLoader
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.memory_managers import OSCacheManager
from ffcv.memory_managers.os_cache import OSCacheContext
from ffcv.pipeline import Compiler, PipelineSpec
from ffcv.pipeline.graph import Graph
from ffcv.reader import Reader
from ffcv.transforms import ToDevice, ToTensor, ToTorchImage
from torch import Tensor

from ffcv_imagenet.data.decode_cpu import CropDecoder, DamagedSampleError, RandomResizedCropDecoder
from ffcv_imagenet.data.index import EntryIndex
from ffcv_imagenet.data.manifest import Manifest
from ffcv_imagenet.data.orders import ShardedOrder, ShuffledOrder

#: Batches that are decoded before the consumer asks for them.
BATCHES_AHEAD = 3


class Batch(NamedTuple):
    """``images [B, 3, H, W] uint8 0..255`` (channels_last) and ``labels [B] int64``, on the training device.

    Valid until the next batch is asked for: its memory is used again.
    """

    images: Tensor
    labels: Tensor


class BatchLoader(FFCVLoader):
    """An FFCV Loader of image batches that starts fast and whose errors reach the consumer.

    Args:
        path: a .beton file with the fields ``image`` and ``label``, and its manifest. An entry-point index beside it
            is used.
        decoder: first operation of the image pipeline.
        order: order of the samples, with this rank's part of them.
        batch_size: images per batch; the last batch of an epoch may be smaller.
        num_workers: decoding threads, 0: one per usable core.
        device: where the batches go.

    Raises:
        FileNotFoundError: the file or its manifest is not there.
        ValueError: a damaged or foreign file, manifest or index, or more workers than numba has threads.
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
        # FFCV's own constructor is left out: it builds Python sets over all samples, seconds and hundreds of MB for
        # ImageNet, which only its other memory manager needs. This sets the same attributes.
        most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        if num_workers > most:
            raise ValueError(f"data.num_workers: got {num_workers}, allowed are at most {most} (0: automatic)")
        manifest = Manifest.read(path)
        self.fname, self.batch_size, self.batches_ahead = str(path), batch_size, BATCHES_AHEAD
        self.num_workers = num_workers or min(len(os.sched_getaffinity(0)), most)
        self.device, self.decoder, self.traversal_order = device, decoder, order
        self.drop_last, self.recompile, self.next_epoch, self.first_batch = False, False, 0, 0
        self.reader = _read(path, manifest)
        decoder.index = EntryIndex.open(path, manifest.checksum, manifest.num_samples)
        self.memory_manager = _FileMemory(self.reader)
        to_device = [ToDevice(device)] if device.type == "cuda" else []
        self.pipeline_specs = {
            "image": PipelineSpec("image", transforms=[decoder, ToTensor(), *to_device, ToTorchImage()]),
            "label": PipelineSpec("label", transforms=[IntDecoder(), ToTensor(), *to_device]),
        }
        with _torch_threads_kept():
            Compiler.set_num_threads(self.num_workers)
            fields = {name: number for number, name in enumerate(self.reader.handlers)}
            memory_read = self.memory_manager.compile_reader()
            self.graph = Graph(self.pipeline_specs, self.reader.handlers, fields, self.reader.metadata, memory_read)
            self.generate_code()
        self.first_traversal_order = self.next_traversal_order()

    def epoch(self, epoch: int, resolution: int, first_batch: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch from ``first_batch`` on, images of side ``resolution``.

        Closing the generator, also by leaving a loop over it, stops the decoding thread.

        Raises:
            ValueError: a damaged sample; names it.
        """
        self.next_epoch, self.first_batch = epoch, first_batch
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
        iterator = _BatchIterator(self, self.next_traversal_order()[self.first_batch * self.batch_size :])
        _running.add(iterator)
        return iterator


class _FileMemory(OSCacheManager):
    """The whole file, mapped into memory; without FFCV's tables of pages, which a mapped file does not need."""

    def __init__(self, reader: Reader):
        self.reader = reader
        order = np.argsort(reader.alloc_table["ptr"])
        self.ptrs, self.sizes = reader.alloc_table["ptr"][order], reader.alloc_table["size"][order]
        self.context = OSCacheContext(self)


class _BatchIterator(EpochIterator):
    """FFCV's iterator, except that an exception in its thread is raised by ``next``, and that it can be closed."""

    def run(self) -> None:
        on_gpu = self.loader.device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(self.loader.device)  # A thread begins on the first GPU.
        numba.set_num_threads(self.loader.num_workers)
        slots = self.loader.batches_ahead + 2
        copied: list[Any] = [None] * slots
        used: list[Any] = [None] * slots
        try:
            for number, indices in enumerate(self.iter_ixes):
                slot = number % slots
                if copied[slot] is not None:
                    # The host's memory of the slot is written at once, so that its last copy must be over.
                    copied[slot].synchronize()
                result = self.run_pipeline(number, indices, slot, used[slot])
                if on_gpu:
                    copied[slot] = torch.cuda.Event()
                    copied[slot].record(self.cuda_streams[slot])
                if not self._put((slot, result)):
                    return
                if on_gpu:
                    # The consumer has asked for the batch before this one, so all its work on the batch
                    # batches_ahead + 1 before is submitted; that slot is free once the work is done.
                    event = torch.cuda.Event()
                    event.record(self.current_stream)
                    used[(slot - self.loader.batches_ahead - 1) % slots] = event
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
        if self.loader.device.type == "cuda":
            self.current_stream.wait_stream(self.cuda_streams[slot])
        return result

    def close(self) -> None:
        super().close()
        self.join()
        _running.discard(self)

    def __del__(self) -> None:
        self.terminate_event.set()


_running: weakref.WeakSet[_BatchIterator] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the decoding threads that are left at the end of the program: Python would kill them in their C code."""
    for iterator in list(_running):
        iterator.close()


@contextlib.contextmanager
def _torch_threads_kept() -> Iterator[None]:
    """FFCV gives torch as many threads as its loader; the training decides about torch's."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _read(path: Path, manifest: Manifest) -> Reader:
    try:
        reader = Reader(str(path))
    except Exception as error:  # FFCV checks nothing but the version, so that anything may go wrong
        raise ValueError(f"{path} is damaged: {error or type(error).__name__}") from None
    if len(reader.metadata) != manifest.num_samples or set(reader.handlers) != {"image", "label"}:
        raise ValueError(f"{path} is damaged: it is not the file that its manifest describes")
    return reader
