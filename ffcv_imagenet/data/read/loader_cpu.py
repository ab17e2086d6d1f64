"""Decoding on the CPU, by the threads of an FFCV pipeline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from queue import Full
from typing import Any

import numba
import numpy as np
import torch

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
    torch_threads_kept,
)
from ffcv_imagenet.data.read.beton_file import BetonFile, Storage
from ffcv_imagenet.data.read.decode_cpu import CropDecoder
from ffcv_imagenet.data.read.loader import SLOTS, Batch, BatchLoader, DamagePolicy, OnDamaged
from ffcv_imagenet.data.read.orders import ListedOrder, RankOrder, ShuffledOrder

#: Seconds between two looks at whether a copy to the device is over.
_POLL_SECONDS = 0.0005

TraversalOrder.register(RankOrder)  # FFCV's Loader takes no others

_FFCV_FIELDS = {"image": RGBImageField, "label": IntField}


class CPUBatchLoader(BatchLoader):
    """A :class:`BatchLoader` that decodes on the CPU: uint8 images, copied to ``device``."""

    cpu_share = 1.0

    def __init__(
        self,
        file: BetonFile,
        decoder: CropDecoder,
        order: ShuffledOrder | ListedOrder,
        *,
        batch_size: int,
        num_workers: int,
        device: torch.device,
        on_damaged: OnDamaged = "fail",
    ):
        options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "on_damaged": on_damaged}
        super().__init__(file, decoder, order, **options)
        self.pipeline = Pipeline(file, decoder, batch_size, self.num_workers, device, self.damage)

    def decode(self, batches: Iterator[np.ndarray], resolution: int) -> _BatchIterator:
        """See :class:`BatchLoader`."""
        return _BatchIterator(self.pipeline, batches)


class _LabelDecoder(IntDecoder):
    """FFCV's decoder of labels, without compiling it at each start."""

    def generate_code(self) -> Any:
        """A function that copies the labels of samples into FFCV's memory, [B, 1] int64."""

        def copy_labels(samples: np.ndarray, labels: np.ndarray, metadata: np.ndarray, storage: Storage) -> np.ndarray:
            labels[: len(samples), 0] = metadata[samples]
            return labels[: len(samples)]

        return copy_labels


class Pipeline:
    """The operations of FFCV's for a file and a decoder.

    FFCV would compile each anew at every start. Here none is: those of this project call functions kept on disk.

    FFCV's EpochIterator knows it as its Loader. That one is not used: it builds Python sets over all samples, seconds
    and hundreds of MB for ImageNet, which only its other memory manager needs.
    """

    batches_ahead = SLOTS - 2  # FFCV adds one with the consumer and one that is decoded

    def __init__(
        self,
        file: BetonFile,
        decoder: CropDecoder,
        batch_size: int,
        num_workers: int,
        device: torch.device,
        damage: DamagePolicy,
    ):
        self.decoder, self.batch_size, self.num_workers = decoder, batch_size, num_workers
        self.device, self.damage, self.reader = device, damage, file.samples
        self.memory_manager = _FileMemory(file.storage)
        to_device = [ToDevice(device)] if device.type == "cuda" else []
        specs = {
            "image": PipelineSpec("image", transforms=[decoder, ToTensor(), *to_device, ToTorchImage()]),
            "label": PipelineSpec("label", transforms=[_LabelDecoder(), ToTensor(), *to_device]),
        }
        with _nothing_compiled(), torch_threads_kept():
            Compiler.set_num_threads(num_workers)
            handlers = {name: _FFCV_FIELDS[name]() for name in file.samples.fields}
            columns = {name: number for number, name in enumerate(file.samples.fields)}
            memory_read = self.memory_manager.compile_reader()
            self.graph = _Graph(specs, handlers, columns, file.samples.metadata, memory_read)
            self.graph.pinned = device.type == "cuda"
            _, code = self.graph.collect_requirements()
            self.code = self.graph.codegen_all(code)


class _Graph(Graph):
    """FFCV's graph with memory for batches of its own.

    On the host it is pinned from the start, and only where it is copied to a GPU: FFCV allocates it, pins other memory
    and copies the one into the other, hundreds of MB at the start of an epoch. What is not pinned serves one epoch
    after the other: the system takes longer to provide it than a batch takes to decode. (torch keeps pinned memory
    itself, and a GPU's is for others between the epochs.)
    """

    pinned = False
    _kept: dict[str, Any] | None = None

    def allocate_memory(self, batch_size: int, slots: int) -> dict[str, Any]:
        """Memory for so many batches, for all operations that want some: by kind and node, and ``wanted``."""

        def allocate(wanted: Any) -> Any:
            if wanted is None:
                return None
            if not isinstance(wanted, AllocationQuery):
                return tuple(allocate(part) for part in wanted)
            shape = (batch_size, *wanted.shape)
            if isinstance(wanted.dtype, torch.dtype):
                return [torch.empty(shape, dtype=wanted.dtype, device=wanted.device) for _ in range(slots)]
            dtype = torch.from_numpy(np.empty(0, wanted.dtype)).dtype
            return torch.empty((slots, *shape), dtype=dtype, pin_memory=self.pinned).numpy()

        requirements, _ = self.collect_requirements()
        wanted = (batch_size, slots, requirements)
        kept, self._kept = self._kept, None
        if kept is not None and kept["wanted"] == wanted:
            return kept
        del kept  # before as much is allocated
        memory = {
            kind: {node: allocate(query) for node, query in nodes.items()} for kind, nodes in requirements.items()
        }
        return {"wanted": wanted, **memory}

    def keep(self, memory: dict[str, Any]) -> None:
        """Take back what :meth:`allocate_memory` gave and nobody writes to any more."""
        if not self.pinned:
            self._kept = memory


class _FileMemory(OSCacheManager):
    """The mapped file; without FFCV's tables of pages, which a mapped file does not need."""

    def __init__(self, storage: Storage):
        self.ptrs, self.sizes = storage.pointers, storage.sizes
        self.context = OSCacheContext(self)
        self.context.mmap = storage.content


class _BatchIterator(EpochIterator):
    """FFCV's iterator, except that an exception in its thread is raised by ``next``, and that it can be closed."""

    closed: bool

    def __init__(self, pipeline: Pipeline, batches: Iterator[np.ndarray]):
        self.batches = batches
        super().__init__(pipeline, np.empty(0, np.int64))

    def start(self) -> None:
        """Begin to decode. numba compiles before, in this thread: compiling takes more stack than a thread may have."""
        self.run_pipeline(0, self.order, 0, None)  # of no samples
        super().start()

    def run(self) -> None:
        on_gpu = self.loader.device.type == "cuda"
        number = position = 0
        copied: list[Any] = [None] * SLOTS
        used: list[Any] = [None] * SLOTS
        try:
            numba.set_num_threads(self.loader.num_workers)
            if on_gpu:
                torch.cuda.set_device(self.loader.device)  # A thread begins on the first GPU.
                for stream in self.cuda_streams:
                    # The memory comes from the consumer's stream, which may still be at work on what was there before.
                    stream.wait_stream(self.current_stream)
            for samples in self.batches:
                slot = number % SLOTS
                # The host's memory of the slot is written at once, so its last copy must be over.
                if copied[slot] is not None and not self._wait_for(copied[slot]):
                    return
                self.loader.decoder.begin_batch(position)
                position += len(samples)
                batch = self._decode(samples, slot, used[slot])
                if batch is None:
                    continue
                if on_gpu:
                    copied[slot] = torch.cuda.Event()
                    copied[slot].record(self.cuda_streams[slot])
                if not self._put((slot, batch)):
                    return
                number += 1
                if on_gpu:
                    # The batch fitted into the queue, so the consumer has taken the one batches_ahead before it, and
                    # has submitted its work on the one before that; that slot is free once the work is done.
                    event = torch.cuda.Event()
                    event.record(self.current_stream)
                    used[(slot + 1) % SLOTS] = event
            self._put(None)
        except Exception as error:
            self._put(error)

    def _decode(self, samples: np.ndarray, slot: int, used: Any) -> Batch | None:
        """The batch of these samples; None if all of them are left out."""
        (images, labels), replaced = self.run_pipeline(0, samples, slot, used), 0
        [decoder] = self.loader.graph.operation_to_node[self.loader.decoder]
        codes = self.memory_allocations["operation"][decoder.id][-1][slot, : len(samples), 0]
        if codes.any():
            kept = self.loader.damage.without_damaged(samples, codes)
            if len(kept) == 0:
                return None
            replaced = int(np.count_nonzero(codes)) if len(kept) == len(samples) else 0
            if self.loader.device.type == "cuda":
                self.cuda_streams[slot].synchronize()  # the copy of what is overwritten now
            images, labels = self.run_pipeline(0, kept, slot, used)
        return Batch(images, labels.view(-1), replaced)

    def _wait_for(self, event: Any) -> bool:
        """Wait for the device; False when the consumer has left. Sleeps: synchronising would busy-wait on a core."""
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

    def __next__(self) -> Batch:
        item = self.output_queue.get()
        if item is None:
            self.join()  # it has nothing more to do; a thread that Python's end finds at work may end the process
            raise StopIteration
        if isinstance(item, Exception):
            raise item
        slot, batch = item
        if self.loader.device.type == "cuda":
            self.current_stream.wait_stream(self.cuda_streams[slot])
        return batch

    def close(self) -> None:
        super().close()
        self.join()
        if self.loader.device.type == "cuda":
            # Copies of batches that were not asked for end before their memory, here and there, is given to others.
            for stream in self.cuda_streams:
                stream.synchronize()
        if not self.closed:  # FFCV asks for it and does not set it
            self.closed = True
            self.loader.graph.keep(self.memory_allocations)

    def __del__(self) -> None:
        self.terminate_event.set()


@contextlib.contextmanager
def _nothing_compiled() -> Iterator[None]:
    """FFCV takes the functions of operations as they are."""
    before = Compiler.is_enabled
    Compiler.set_enabled(False)
    try:
        yield
    finally:
        Compiler.set_enabled(before)
