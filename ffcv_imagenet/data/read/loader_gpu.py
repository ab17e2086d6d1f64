"""Decoding on a GPU, with a thread that gathers and starts batches ahead of their use."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty, Queue
from threading import Event as ThreadEvent
from threading import Thread
from typing import Any, NamedTuple

import numba
import numpy as np
import torch

from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.decode_cpu import CropDecoder
from ffcv_imagenet.data.read.decode_gpu import BatchDecoder, OutputBuffers
from ffcv_imagenet.data.read.gather import Gatherer
from ffcv_imagenet.data.read.kernels import CudaKernels, Event, Kernels
from ffcv_imagenet.data.read.loader import SLOTS, Batch, BatchLoader, OnDamaged
from ffcv_imagenet.data.read.orders import ListedOrder, ShuffledOrder


class GPUBatchLoader(BatchLoader):
    """A :class:`BatchLoader` that decodes on a GPU.

    Its images are normalised, of type ``dtype`` (uint8 when that is asked for), in channels_last layout.

    Args:
        file: what is read; with an entry-point index.
        decoder: the CPU's decoder, which chooses the crops and the resizing filter.
        order, batch_size, on_damaged: as of :class:`BatchLoader`.
        num_workers: threads for samples that the CPU decodes, 0: one per usable core.
        device: a CUDA device.
        dtype: of the images: bfloat16, float16, float32, or uint8.
        normalize: from uint8 images to the model's input.
        kernels: where to decode; made here for ``device`` unless given.

    Raises:
        FileNotFoundError: the file has no index.
        ValueError: as :class:`BatchLoader`; no CUDA device, or no library to compile for it.
    """

    def __init__(
        self,
        file: BetonFile,
        decoder: CropDecoder,
        order: ShuffledOrder | ListedOrder,
        *,
        batch_size: int,
        num_workers: int,
        device: torch.device,
        dtype: torch.dtype,
        normalize: Normalize,
        on_damaged: OnDamaged = "fail",
        kernels: Kernels | None = None,
    ):
        if kernels is None and device.type != "cuda":
            raise ValueError(f"data.decode: got gpu, allowed on the device {device} is cpu")
        options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "on_damaged": on_damaged}
        super().__init__(file, decoder, order, **options)
        if file.index is None:
            raise FileNotFoundError(
                f"{file.path} has no entry-point index, which data.decode=gpu needs: "
                f"python -m ffcv_imagenet.data.index {file.path}"
            )
        self.kernels, self.dtype, self.cpu_share = kernels or CudaKernels(device), dtype, 0.0
        gatherer = Gatherer(file.storage.content, file.samples, file.index)
        labels = file.samples.label.astype(np.int64)
        self.batch_decoder = BatchDecoder(gatherer, decoder, labels, self.kernels, batch_size, dtype, normalize)

    def decode(self, batches: Iterator[np.ndarray], resolution: int) -> _GPUBatches:
        """See :class:`BatchLoader`."""
        return _GPUBatches(self, batches, resolution)


class _Submitted(NamedTuple):
    """A batch that the GPU is decoding: its samples, which positions hold replacements and which the CPU decodes
    ([B] bool), its slot."""

    samples: np.ndarray
    replaced: np.ndarray
    on_cpu: np.ndarray
    slot: int
    done: Event


class _GPUBatches:
    """The batches of an epoch, decoded by a thread of their own.

    A batch is handed over when it is complete and known to be good, so that the consumer never waits for the device.
    Its slot is written again after the next one is asked for. Two slots are with the GPU.
    """

    def __init__(self, loader: GPUBatchLoader, batches: Iterator[np.ndarray], resolution: int):
        self._loader, self._batches = loader, batches
        self._output = [self._new_output(resolution) for _ in range(SLOTS)]
        self._ready: Queue[Any] = Queue()
        self._free: Queue[tuple[int, Event]] = Queue()
        self._held: int | None = None
        self._stop = ThreadEvent()
        self._num_decoded = self._num_on_cpu = 0
        allocated = loader.kernels.record()
        for slot in range(SLOTS):
            self._free.put((slot, allocated))
        loader.batch_decoder.compile(loader.file.storage)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def __next__(self) -> Batch:
        if self._held is not None:
            # The consumer's work on the batch is queued: the slot is free once that is done.
            self._free.put((self._held, self._loader.kernels.record()))
            self._held = None
        item = self._ready.get()
        if item is None:
            raise StopIteration
        if isinstance(item, Exception):
            raise item
        self._held, batch = item
        return batch

    def close(self) -> None:
        """End the thread. Nothing is written to the batches any more."""
        self._stop.set()
        self._thread.join()

    def _new_output(self, resolution: int) -> OutputBuffers:
        loader, device = self._loader, self._loader.kernels.device
        shape = (loader.batch_size, resolution, resolution, 3)
        return OutputBuffers(
            torch.empty(shape, dtype=loader.dtype, device=device),
            torch.empty(loader.batch_size, dtype=torch.int64, device=device),
            loader.kernels.host_buffer(4 * loader.batch_size).view(torch.int32),
        )

    def _run(self) -> None:
        loader = self._loader
        numba.set_num_threads(loader.num_workers)
        pending: _Submitted | None = None
        try:
            for samples in self._batches:
                slot = self._free_slot()
                if slot is None:
                    return
                try:
                    on_cpu, replaced = np.zeros((2, len(samples)), bool)
                    submitted = self._submit(samples, on_cpu, replaced, slot)
                except Exception:
                    if pending is not None:  # the batch before is not to blame
                        self._finish(pending)
                    raise
                if pending is not None:
                    self._finish(pending)
                pending = submitted
            if pending is not None:
                self._finish(pending)
            loader.cpu_share = self._num_on_cpu / max(1, self._num_decoded)
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
            with self._loader.kernels.stream():
                used.wait()
            return slot
        return None

    def _submit(self, samples: np.ndarray, on_cpu: np.ndarray, replaced: np.ndarray, slot: int) -> _Submitted | None:
        """Start a batch, without its damaged samples. None if all are left out; the slot is free again then."""
        loader, codes = self._loader, np.zeros(len(samples), np.int32)
        done = loader.batch_decoder.submit(samples, on_cpu, codes, loader.file.storage, self._output[slot])
        if done is not None:
            return _Submitted(samples, replaced, on_cpu, slot, done)
        kept = loader.damage.without_damaged(samples, codes)
        if len(kept) == 0:
            self._free.put((slot, loader.kernels.record()))
            return None
        # Positions in the batch, not sample indices: a replacement may be damaged as well.
        replaced = replaced | (codes != 0) if len(kept) == len(samples) else np.zeros(len(kept), bool)
        return self._submit(kept, np.isin(kept, samples[on_cpu]), replaced, slot)

    def _finish(self, submitted: _Submitted) -> None:
        """Hand a batch over when it is done. The CPU decodes what looks damaged, and finds out what is wrong."""
        submitted.done.synchronize()
        damaged = self._output[submitted.slot].status[: len(submitted.samples)].numpy() != 0
        if damaged.any():
            again = self._submit(submitted.samples, submitted.on_cpu | damaged, submitted.replaced, submitted.slot)
            if again is None:
                return
            again.done.synchronize()
            submitted = again
        count, output = len(submitted.samples), self._output[submitted.slot]
        self._num_decoded += count
        self._num_on_cpu += int(submitted.on_cpu.sum())
        images = output.images[:count].permute(0, 3, 1, 2)
        batch = Batch(images, output.labels[:count], int(submitted.replaced.sum()))
        self._ready.put((submitted.slot, batch))
