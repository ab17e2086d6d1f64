"""Batches for training and validation, from FFCV's Loader."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import mmap
import os
import sys
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from queue import Full
from typing import Any, Literal, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from ffcv_imagenet import native
from ffcv_imagenet.data.ffcv_imports import (
    AllocationQuery,
    Compiler,
    EpochIterator,
    Graph,
    IntDecoder,
    IntField,
    OSCacheContext,
    OSCacheManager,
    PipelineSpec,
    RGBImageField,
    ToDevice,
    ToTensor,
    ToTorchImage,
    TraversalOrder,
)
from ffcv_imagenet.data.ffcv_imports import Loader as FFCVLoader
from ffcv_imagenet.data.format.beton import Samples, read_samples
from ffcv_imagenet.data.format.index import EntryIndex
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read.decode_cpu import CropDecoder, RandomResizedCropDecoder, error_message
from ffcv_imagenet.data.read.orders import QuasiRandomOrder, RankOrder, ShardedOrder, ShuffledOrder

#: Batches that are decoded before the consumer asks for them.
BATCHES_AHEAD = 3
#: Seconds between two looks at whether a copy to the device is over.
_POLL_SECONDS = 0.0005

#: Batches whose bytes the system is asked to read before they are decoded.
BATCHES_READ_AHEAD = 2

TraversalOrder.register(RankOrder)  # FFCV's Loader takes no others

_FFCV_FIELDS = {"image": RGBImageField, "label": IntField}


class Batch(NamedTuple):
    """``images [B, 3, H, W]`` (channels_last) and ``labels [B] int64``, on the training device.

    The images are of the loader's ``dtype``: uint8 0..255, or normalised.

    ``replaced`` of its images are there twice: they stand in for damaged samples. Valid until the next batch is asked
    for: its memory is used again.
    """

    images: Tensor
    labels: Tensor
    replaced: int


class BatchLoader(FFCVLoader):
    """An FFCV Loader of image batches that starts fast and whose errors reach the consumer.

    ``num_samples`` is the number of images in the file.

    Args:
        path: a .beton file with the fields ``image`` and ``label``, and its manifest. An entry-point index beside it
            is used.
        decoder: first operation of the image pipeline.
        order: order of the samples, with this rank's part of them.
        batch_size: images per batch; the last batch of an epoch may be smaller.
        num_workers: decoding threads, 0: one per usable core.
        device: where the batches go.
        on_damaged: what a sample that cannot be decoded leads to. ``fail``: an error that names it. ``replace``: the
            next good sample of the batch, image and label, stands in for it. ``leave_out``: the batch is that much
            smaller (none at all when nothing is left). Either way the sample is named on stderr, once.
        manifest: of the file; read here unless given.

    Raises:
        FileNotFoundError: the file or its manifest is not there.
        ValueError: a damaged or foreign file, manifest or index, more workers than numba has threads, or threads of
            numba's that end the process when two loaders decode at once.
    """

    #: Share of an epoch's images that the CPU decoded, once it is over.
    cpu_share = 1.0
    #: Element type of the images.
    dtype = torch.uint8

    def __init__(
        self,
        path: Path,
        decoder: CropDecoder,
        order: ShuffledOrder | ShardedOrder,
        *,
        batch_size: int,
        num_workers: int,
        device: torch.device,
        on_damaged: Literal["fail", "replace", "leave_out"] = "fail",
        manifest: Manifest | None = None,
    ):
        # FFCV's own constructor is left out: it builds Python sets over all samples, seconds and hundreds of MB for
        # ImageNet, which only its other memory manager needs. This sets the same attributes.
        most = most_workers()
        if num_workers > most:
            raise ValueError(
                f"data.num_workers: got {num_workers}, allowed are at most {most}, NUMBA_NUM_THREADS (0: automatic)"
            )
        if numba.threading_layer() == "workqueue":
            raise ValueError("NUMBA_THREADING_LAYER: got workqueue, allowed are omp and tbb: two loaders share them")
        manifest = manifest or Manifest.read(path)
        self.fname, self.batch_size, self.batches_ahead = str(path), batch_size, BATCHES_AHEAD
        self.num_workers = num_workers or min(len(os.sched_getaffinity(0)), most)
        self.device, self.decoder, self.traversal_order = device, decoder, order
        self.drop_last, self.recompile, self.next_epoch, self.first_batch = False, False, 0, 0
        self.num_samples, self.on_damaged, self._reported = manifest.num_samples, on_damaged, set[int]()
        self.reader = read_samples(path, manifest)
        decoder.index = EntryIndex.open(path, manifest.checksum, manifest.num_samples)
        self.memory_manager = _FileMemory(path, self.reader)
        to_device = [ToDevice(device)] if device.type == "cuda" else []
        self.pipeline_specs = {
            "image": PipelineSpec("image", transforms=[decoder, ToTensor(), *to_device, ToTorchImage()]),
            "label": PipelineSpec("label", transforms=[IntDecoder(), ToTensor(), *to_device]),
        }
        with _torch_threads_kept():
            Compiler.set_num_threads(self.num_workers)
            handlers = {name: _FFCV_FIELDS[name]() for name in self.reader.fields}
            columns = {name: number for number, name in enumerate(self.reader.fields)}
            memory_read = self.memory_manager.compile_reader()
            self.graph = _Graph(self.pipeline_specs, handlers, columns, self.reader.metadata, memory_read)
            self.graph.pinned = device.type == "cuda"
            self.generate_code()
        self.first_traversal_order = self.next_traversal_order()

    def epoch(self, epoch: int, resolution: int, first_batch: int = 0) -> Generator[Batch, None, None]:
        """This rank's batches of an epoch from ``first_batch`` on, images of side ``resolution``.

        Closing the generator, also by leaving a loop over it, stops the decoding thread.

        Raises:
            ValueError: a damaged sample, which it names, or with ``on_damaged="replace"`` nothing else in a batch.
        """
        self.next_epoch, self.first_batch = epoch, first_batch
        self.decoder.resolution = resolution
        if isinstance(self.decoder, RandomResizedCropDecoder):
            self.decoder.set_epoch(epoch)
        batches = iter(self)
        try:
            for (images, labels), replaced in batches:
                yield Batch(images, labels.view(-1), replaced)
        finally:
            batches.close()

    def read_ahead(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Batches of samples, [B] indices, when the system has been asked to read the next ones.

        A file that is in memory is not read again. Of others, nothing but what is asked for here is read from the
        disk, all at once: a thread that finds a page missing waits for it alone, and by default the system then reads
        much around it, which drives other pages out where the file is larger than the memory.
        """
        content, windows = self.memory_manager.content, self._read_windows_ahead()
        asked = deque[np.ndarray]()
        for batch in batches:
            next(windows)
            native.will_need(content, self.reader.pointer[batch], self.reader.size[batch])
            asked.append(batch)
            if len(asked) > BATCHES_READ_AHEAD:
                yield asked.popleft()
        yield from asked

    def _read_windows_ahead(self) -> Iterator[None]:
        """Before each batch of a quasi-random order, ask for the blocks of the file that are needed a window later."""
        order = self.traversal_order
        if not isinstance(order, QuasiRandomOrder):
            yield from itertools.repeat(None)
            return  # never; it tells the type checker that the rest is of quasi-random orders
        blocks = order.blocks(self.next_epoch)
        # Of ours the samples lie in the order of their indices; for others this asks for too little, or in vain.
        start, last = self.reader.pointer[blocks[:, 0]], blocks[:, 1] - 1
        end = self.reader.pointer[last] + self.reader.size[last]
        size = np.where(end > start, end - start, 0)
        front = self.first_batch * self.batch_size * order.world_size // order.block
        asked = front // order.window * order.window  # where the window begins that is being read
        for batch in itertools.count(self.first_batch):
            needed = (batch + 1) * self.batch_size * order.world_size // order.block + order.window
            native.will_need(self.memory_manager.content, start[asked:needed], size[asked:needed])
            asked = max(asked, needed)
            yield

    def without_damaged(self, samples: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """What to decode instead of the samples of a batch, [B] indices, some of which have an error code."""
        good = codes == 0
        for sample, code in zip(samples[~good].tolist(), codes[~good].tolist(), strict=True):
            message = f"{self.fname}: sample {sample} is damaged: {error_message(code)}"
            if self.on_damaged == "fail":
                raise ValueError(message)
            if sample not in self._reported:
                self._reported.add(sample)
                print(f"warning: {message}; it is skipped", file=sys.stderr, flush=True)
        if self.on_damaged == "leave_out":
            return samples[good]
        if not good.any():
            raise ValueError(f"{self.fname}: all {len(samples)} samples of a batch are damaged")
        places = np.flatnonzero(good)
        next_good = places[np.searchsorted(places, np.flatnonzero(~good)) % len(places)]
        replaced = samples.copy()
        replaced[~good] = samples[next_good]
        return replaced

    def __iter__(self) -> _BatchIterator:
        iterator = self.decode(self.next_traversal_order()[self.first_batch * self.batch_size :])
        _running.add(iterator)
        return iterator

    def decode(self, order: np.ndarray) -> _BatchIterator:
        """Start decoding samples in this order."""
        return _BatchIterator(self, order)


def most_workers() -> int:
    """The most decoding threads that numba has: NUMBA_NUM_THREADS in the environment, else the usable cores."""
    return numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]


class _Graph(Graph):
    """FFCV's graph, whose memory on the host is pinned from the start, and only where it is copied to a GPU.

    FFCV allocates it, pins other memory and copies the one into the other, hundreds of MB at the start of an epoch.
    """

    pinned = False

    def allocate_memory(self, batch_size: int, batches_ahead: int) -> dict[str, dict[int, Any]]:
        """Memory for so many batches, for all operations that want some."""

        def allocate(wanted: Any) -> Any:
            if wanted is None:
                return None
            if not isinstance(wanted, AllocationQuery):
                return tuple(allocate(part) for part in wanted)
            shape = (batch_size, *wanted.shape)
            if isinstance(wanted.dtype, torch.dtype):
                return [torch.empty(shape, dtype=wanted.dtype, device=wanted.device) for _ in range(batches_ahead)]
            dtype = torch.from_numpy(np.empty(0, wanted.dtype)).dtype
            return torch.empty((batches_ahead, *shape), dtype=dtype, pin_memory=self.pinned).numpy()

        requirements, _ = self.collect_requirements()
        return {kind: {node: allocate(query) for node, query in nodes.items()} for kind, nodes in requirements.items()}


class _FileMemory(OSCacheManager):
    """The whole file, mapped into memory; without FFCV's tables of pages, which a mapped file does not need."""

    def __init__(self, path: Path, samples: Samples):
        order = np.argsort(samples.pointer)
        self.ptrs, self.sizes = samples.pointer[order], samples.size[order]
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        mapping.madvise(mmap.MADV_RANDOM)  # see BatchLoader.read_ahead
        self.content = np.frombuffer(mapping, np.uint8)
        self.context = OSCacheContext(self)
        self.context.mmap = self.content


class _BatchIterator(EpochIterator):
    """FFCV's iterator, except that an exception in its thread is raised by ``next``, and that it can be closed."""

    def start(self) -> None:
        """Begin to decode. numba compiles before, in this thread: compiling takes more stack than a thread may have."""
        self.run_pipeline(0, self.order[:0], 0, None)
        super().start()

    def run(self) -> None:
        on_gpu = self.loader.device.type == "cuda"
        slots, number = self.loader.batches_ahead + 2, 0
        copied: list[Any] = [None] * slots
        used: list[Any] = [None] * slots
        try:
            numba.set_num_threads(self.loader.num_workers)
            if on_gpu:
                torch.cuda.set_device(self.loader.device)  # A thread begins on the first GPU.
                for stream in self.cuda_streams:
                    # The memory comes from the consumer's stream, which may still be at work on what was there before.
                    stream.wait_stream(self.current_stream)
            for indices in self.loader.read_ahead(self.iter_ixes):
                slot = number % slots
                # The host's memory of the slot is written at once, so that its last copy must be over.
                if copied[slot] is not None and not self._wait_for(copied[slot]):
                    return
                result, replaced = self._decode(indices, slot, used[slot])
                if result is None:
                    continue
                if on_gpu:
                    copied[slot] = torch.cuda.Event()
                    copied[slot].record(self.cuda_streams[slot])
                if not self._put((slot, (result, replaced))):
                    return
                number += 1
                if on_gpu:
                    # The consumer has asked for the batch before this one, so all its work on the batch
                    # batches_ahead + 1 before is submitted; that slot is free once the work is done.
                    event = torch.cuda.Event()
                    event.record(self.current_stream)
                    used[(slot - self.loader.batches_ahead - 1) % slots] = event
            self._put(None)
        except Exception as error:
            self._put(error)

    def _decode(self, samples: np.ndarray, slot: int, used: Any) -> tuple[Any, int]:
        """A batch and how many samples of it were replaced; None where all were left out."""
        result = self.run_pipeline(0, samples, slot, used)
        [decoder] = self.loader.graph.operation_to_node[self.loader.decoder]
        codes = self.memory_allocations["operation"][decoder.id][-1][slot, : len(samples), 0]
        if not codes.any():
            return result, 0
        kept = self.loader.without_damaged(samples, codes)
        if self.loader.device.type == "cuda":
            self.cuda_streams[slot].synchronize()  # the copy of what is overwritten now
        replaced = int(np.count_nonzero(codes)) if len(kept) == len(samples) else 0
        return self.run_pipeline(0, kept, slot, used) if len(kept) else None, replaced

    def _wait_for(self, event: Any) -> bool:
        """Wait for the device; False when the consumer has left. Sleeps: who synchronises spins, and takes a core."""
        while not event.query():
            if self.terminate_event.wait(_POLL_SECONDS):
                return False
        return True

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
        if self.loader.device.type == "cuda":
            # Copies of batches that nobody has asked for end before their memory, here and there, is given to others.
            for stream in self.cuda_streams:
                stream.synchronize()
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
