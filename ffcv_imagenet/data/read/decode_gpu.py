"""Decoding on a GPU: compressed bytes go there, normalised batches are made there.

One thread gathers the bytes of batch n + 1 while the GPU decodes batch n, on a stream of its own, and the training
uses batch n - 1. What a batch needs goes over in one copy; four kernels do the rest. The pixels are those of
:mod:`~ffcv_imagenet.data.read.decode_cpu`, which also decodes the samples that the kernels do not take (raw pixels,
progressive JPEGs, JPEGs without entry points) and has the last word about damaged ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Event as ThreadEvent
from threading import Thread
from typing import Any, Literal, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from ffcv_imagenet.augment import Normalize
from ffcv_imagenet.data.format.index import EntryIndex
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read.decode_cpu import CropDecoder
from ffcv_imagenet.data.read.gather import ALIGNMENT, Gathered, Gatherer
from ffcv_imagenet.data.read.kernels import KERNELS, THREADS, CudaKernels, Event, Kernels, is_installed
from ffcv_imagenet.data.read.loader import BatchLoader
from ffcv_imagenet.data.read.orders import ShardedOrder, ShuffledOrder

#: Batches that are decoded before the consumer asks for them.
BATCHES_AHEAD = 2

#: Buffers grow by this factor at least, so that they seldom do.
GROWTH = 1.5

#: Blocks that share an image's work in the two resizing kernels.
BLOCKS_PER_IMAGE = 16

#: With so many cores per GPU ``auto`` leaves decoding to them. A core decodes some 4,000 crops of 160 px in a second
#: (benchmarks/RESULTS.md); what a GPU uses up is an estimate: not measured.
CORES_ENOUGH = 8

_MOST_BLOCKS = 65535  # of a grid's second dimension


def _images_offset(count: int) -> int:
    """Where the images' descriptions lie in the staging buffer: behind ``count`` labels."""
    return math.ceil(8 * count / ALIGNMENT) * ALIGNMENT


def output_levels(dtype: torch.dtype, normalize: Normalize) -> Tensor:
    """What the kernels write for each value of red, green and blue: ``[3, 256] int32``, the elements' bits.

    Args:
        dtype: of the batches: uint8 for the values themselves, a floating-point type for normalised ones.
        normalize: makes the latter.
    """
    values = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    elements = (values if dtype == torch.uint8 else normalize.cpu()(values).to(dtype)).reshape(3, 256)
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[dtype.itemsize]
    return elements.contiguous().view(bits).to(torch.int32)


def choose_decoder(name: str, path: Path, device: torch.device, cores: int) -> str:
    """Resolve ``auto`` to cpu or gpu.

    Args:
        name: cpu, gpu or auto.
        path: the .beton file.
        device: where the training runs.
        cores: usable ones of this process.
    """
    if name != "auto":
        return name
    can = device.type == "cuda" and EntryIndex.path(path).is_file() and is_installed()
    return "gpu" if can and cores < CORES_ENOUGH else "cpu"


class Slot(NamedTuple):
    """Where a batch will be: ``images [B, S, S, 3]`` and ``labels [B] int64`` on the device, and on the host
    ``status [B] int32``, not 0 for images whose data look damaged."""

    images: Tensor
    labels: Tensor
    status: Tensor


class _Submitted(NamedTuple):
    """A batch at which the GPU works: its samples, which of them stand in for damaged ones and which are left to the
    CPU ([B] bool), its slot's number."""

    numbers: np.ndarray
    replaced: np.ndarray
    left: np.ndarray
    slot: int
    done: Event


#: What :meth:`CropDecoder.decode` wants to know of the file.
Storage = tuple[np.ndarray, np.ndarray, np.ndarray]


class Staging:
    """Memory on the host from which a batch is copied to the device."""

    def __init__(self, kernels: Kernels):
        self.buffer = kernels.host_buffer(1 << 20)
        self.copied: Event | None = None


class BatchDecoder:
    """Gathers batches and starts their decoding; used by one thread.

    Args:
        gatherer: of the .beton file.
        decoder: the CPU's, for crop boxes, the resizing filter and for what is left to it.
        labels: of all samples, int64.
        kernels: where to decode.
        batch_size: the largest batch.
        dtype: of the output, see :func:`output_levels`.
        normalize: see there.
    """

    def __init__(
        self,
        gatherer: Gatherer,
        decoder: CropDecoder,
        labels: np.ndarray,
        kernels: Kernels,
        batch_size: int,
        dtype: torch.dtype,
        normalize: Normalize,
    ):
        self.gatherer, self.decoder, self.labels = gatherer, decoder, labels
        self.kernels, self.dtype = kernels, dtype
        self.levels = output_levels(dtype, normalize).to(kernels.device)
        self._staging = [Staging(kernels) for _ in range(2)]
        self._turn = 0
        self._status = torch.zeros(batch_size, dtype=torch.int32, device=kernels.device)
        self._on_device = self._workspace = torch.empty(0, dtype=torch.uint8, device=kernels.device)

    def compile(self, storage: Storage) -> None:
        """Have numba compile here and now what :meth:`submit` calls."""
        none = np.zeros(0, np.int64)
        pixels, codes = np.zeros((0, 1, 1, 3), np.uint8), np.zeros((0, 1), np.int32)
        self.decoder.decode(none, self.decoder.boxes(none), pixels, codes, self.decoder.metadata, storage)

    def submit(
        self, numbers: np.ndarray, left: np.ndarray, codes: np.ndarray, storage: Storage, slot: Slot
    ) -> Event | None:
        """Start decoding a batch; the event is behind its last step. None, and nothing started, for damaged samples.

        Args:
            numbers: [B] samples of the file.
            left: [B] bool, samples for the CPU in any case; set for all that are left to it.
            codes: [B] int32, set to the error codes of samples that the CPU cannot decode, 0 for others.
            storage: the file's bytes, and where samples begin and how long they are, for the CPU's decoder.
            slot: the output.
        """
        codes[:] = 0
        staging, self._turn = self._staging[self._turn], 1 - self._turn
        if staging.copied is not None:
            staging.copied.synchronize()
        gathered = self.gather(numbers, left, slot.images.shape[1], staging)
        if gathered.num_left:
            pixels = staging.buffer.numpy()[gathered.pixels : gathered.used]
            pixels = pixels.reshape(gathered.num_left, *slot.images.shape[1:])
            of_left = np.zeros((gathered.num_left, 1), np.int32)
            boxes = self.decoder.boxes(numbers[left])
            self.decoder.decode(numbers[left], boxes, pixels, of_left, self.decoder.metadata, storage)
            codes[left] = of_left[:, 0]
            if codes.any():
                return None
        with self.kernels.stream():
            self.copy_to_device(staging, gathered.used)
            self.start_kernels(gathered, len(numbers), slot)
            return self.kernels.record()

    def gather(self, numbers: np.ndarray, left: np.ndarray, resolution: int, staging: Staging) -> Gathered:
        """Fill the staging buffer: labels, then what :class:`Gatherer` puts there."""
        boxes, begin = self.decoder.boxes(numbers), _images_offset(len(numbers))
        while True:
            gathered = self.gatherer.gather(
                numbers, boxes, left, resolution, self.decoder.resize, staging.buffer.numpy(), begin
            )
            if isinstance(gathered, Gathered):
                break
            staging.buffer = self.kernels.host_buffer(int(GROWTH * gathered))
        staging.buffer.numpy()[: 8 * len(numbers)] = self.labels[numbers].view(np.uint8)
        return gathered

    def copy_to_device(self, staging: Staging, size: int) -> None:
        """Queue the copy of the first bytes of a staging buffer on the current stream."""
        self._on_device = self._grown(self._on_device, size)
        self._on_device[:size].copy_(staging.buffer[:size], non_blocking=True)
        staging.copied = self.kernels.record()

    def start_kernels(self, gathered: Gathered, count: int, slot: Slot) -> None:
        """Queue the kernels behind it, for a batch of ``count`` images."""
        self._workspace = self._grown(self._workspace, gathered.workspace)
        status, images = self._status[:count], slot.images
        status.zero_()
        slot.labels[:count].copy_(self._on_device[: 8 * count].view(torch.int64))
        arguments = (
            self._on_device.data_ptr(), _images_offset(count), self._workspace.data_ptr(), status.data_ptr(),
            self.levels.data_ptr(), images.data_ptr(), images.element_size(), images.shape[2], images.shape[1],
        )  # fmt: skip
        blocks = (4, math.ceil(gathered.max_items / THREADS), BLOCKS_PER_IMAGE, BLOCKS_PER_IMAGE)
        for name, number in zip(KERNELS, blocks, strict=True):
            if number:
                self.kernels.launch(name, (count, min(number, _MOST_BLOCKS)), arguments)
        slot.status[:count].copy_(status, non_blocking=True)

    def _grown(self, buffer: Tensor, size: int) -> Tensor:
        if buffer.numel() >= size:
            return buffer
        return torch.empty(int(GROWTH * size), dtype=torch.uint8, device=self.kernels.device)


class GPUBatchLoader(BatchLoader):
    """A :class:`BatchLoader` whose batches are decoded on a GPU.

    Its images are normalised, of type ``dtype`` (uint8 when that is asked for), in channels_last layout.

    Args:
        path: a .beton file with its manifest and its entry-point index.
        decoder: the CPU's decoder, which tells the crops and the resizing filter.
        order: order of the samples, with this rank's part of them.
        batch_size: images per batch.
        num_workers: threads for samples that are left to the CPU, 0: one per usable core.
        device: a CUDA device.
        dtype: of the images: bfloat16, float16, float32, or uint8.
        normalize: from uint8 images to the model's input.
        on_damaged: as of :class:`BatchLoader`.
        manifest: as of :class:`BatchLoader`.
        kernels: where to decode; made here for ``device`` unless given.

    Raises:
        FileNotFoundError: the file, its manifest or its index is not there.
        ValueError: as :class:`BatchLoader`; no CUDA device, or no library to compile for it.
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
        dtype: torch.dtype,
        normalize: Normalize,
        on_damaged: Literal["fail", "replace", "leave_out"] = "fail",
        manifest: Manifest | None = None,
        kernels: Kernels | None = None,
    ):
        if kernels is None and device.type != "cuda":
            raise ValueError(f"data.decode: got gpu, allowed on the device {device} is cpu")
        options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "device": device}
        super().__init__(path, decoder, order, on_damaged=on_damaged, manifest=manifest, **options)
        if decoder.index is None:
            raise FileNotFoundError(
                f"{path} has no entry-point index, which data.decode=gpu needs: "
                f"python -m ffcv_imagenet.data.index {path}"
            )
        self.kernels, self.dtype, self.cpu_share = kernels or CudaKernels(device), dtype, 0.0
        gatherer = Gatherer(self.memory_manager.content, self.reader, decoder.index)
        labels = self.reader.label.astype(np.int64)
        self.batch_decoder = BatchDecoder(gatherer, decoder, labels, self.kernels, batch_size, dtype, normalize)

    def decode(self, order: np.ndarray) -> _GPUBatches:  # type: ignore[override]
        """See :class:`BatchLoader`."""
        return _GPUBatches(self, order)


class _GPUBatches:
    """The batches of an epoch, as ((images, labels), replaced), decoded by a thread of its own.

    A batch is handed over when it is complete and known to be good, so that the consumer never waits for the device.
    It goes back, to be written again, when the next one is asked for.
    """

    def __init__(self, loader: GPUBatchLoader, order: np.ndarray):
        self.loader, self.order = loader, order
        self._slots = [self._new_slot() for _ in range(BATCHES_AHEAD + 3)]  # one with the consumer, two with the GPU
        self._ready: Queue[Any] = Queue()
        self._free: Queue[tuple[int, Event]] = Queue()
        self._held: int | None = None
        self._stop = ThreadEvent()
        self._seen = self._left = 0
        allocated = loader.kernels.record()
        for number in range(len(self._slots)):
            self._free.put((number, allocated))
        loader.batch_decoder.compile(loader.memory_manager.context.state)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, Tensor], int]]:
        return self

    def __next__(self) -> tuple[tuple[Tensor, Tensor], int]:
        if self._held is not None:
            # The consumer's work on the batch is queued: the slot is free once that is done.
            self._free.put((self._held, self.loader.kernels.record()))
            self._held = None
        item = self._ready.get()
        if item is None:
            raise StopIteration
        if isinstance(item, Exception):
            raise item
        self._held, count, replaced = item
        slot = self._slots[item[0]]
        return (slot.images[:count].permute(0, 3, 1, 2), slot.labels[:count]), replaced

    def close(self) -> None:
        """End the thread. Nothing is written to the batches any more."""
        self._stop.set()
        self._thread.join()

    def _new_slot(self) -> Slot:
        loader, device, side = self.loader, self.loader.kernels.device, self.loader.decoder.resolution
        shape = (loader.batch_size, side, side, 3)
        return Slot(
            torch.empty(shape, dtype=loader.batch_decoder.dtype, device=device),
            torch.empty(loader.batch_size, dtype=torch.int64, device=device),
            loader.kernels.host_buffer(4 * loader.batch_size).view(torch.int32),
        )

    def _run(self) -> None:
        loader = self.loader
        numba.set_num_threads(loader.num_workers)
        pending: _Submitted | None = None
        try:
            batches = (self.order[i : i + loader.batch_size] for i in range(0, len(self.order), loader.batch_size))
            for numbers in loader.read_ahead(batches):
                slot = self._free_slot()
                if slot is None:
                    return
                try:
                    left, replaced = np.zeros((2, len(numbers)), bool)
                    submitted = self._submit(numbers, left, replaced, slot)
                except Exception:
                    if pending is not None:  # the batch before is not to blame
                        self._finish(pending)
                    raise
                if pending is not None:
                    self._finish(pending)
                pending = submitted
            if pending is not None:
                self._finish(pending)
            loader.cpu_share = self._left / max(1, self._seen)
            self._ready.put(None)
        except Exception as error:
            self._ready.put(error)
        finally:
            with loader.kernels.stream():
                loader.kernels.record().synchronize()

    def _free_slot(self) -> int | None:
        """A slot that may be written, as soon as there is one; None when the consumer has left."""
        while not self._stop.is_set():
            try:
                slot, used = self._free.get(timeout=0.1)
            except Empty:
                continue
            with self.loader.kernels.stream():
                used.wait()
            return slot
        return None

    def _submit(self, numbers: np.ndarray, left: np.ndarray, replaced: np.ndarray, slot: int) -> _Submitted | None:
        """Start a batch, without its damaged samples. None where all are left out; the slot is free again then."""
        loader, codes = self.loader, np.zeros(len(numbers), np.int32)
        storage = loader.memory_manager.context.state
        done = loader.batch_decoder.submit(numbers, left, codes, storage, self._slots[slot])
        if done is not None:
            return _Submitted(numbers, replaced, left, slot, done)
        kept = loader.without_damaged(numbers, codes)
        if len(kept) == 0:
            self._free.put((slot, loader.kernels.record()))
            return None
        # Places and not numbers of samples: what stands in may turn out to be damaged, too.
        replaced = replaced | (codes != 0) if len(kept) == len(numbers) else np.zeros(len(kept), bool)
        return self._submit(kept, np.isin(kept, numbers[left]), replaced, slot)

    def _finish(self, batch: _Submitted) -> None:
        """Hand a batch over when it is there. What looks damaged is decoded by the CPU, which knows what is wrong."""
        batch.done.synchronize()
        damaged = self._slots[batch.slot].status[: len(batch.numbers)].numpy() != 0
        if damaged.any():
            again = self._submit(batch.numbers, batch.left | damaged, batch.replaced, batch.slot)
            if again is None:
                return
            again.done.synchronize()
            batch = again
        self._seen += len(batch.numbers)
        self._left += int(batch.left.sum())
        self._ready.put((batch.slot, len(batch.numbers), int(batch.replaced.sum())))
