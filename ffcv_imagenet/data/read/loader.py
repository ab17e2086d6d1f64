"""Batches for training and validation: what the loaders that decode on the CPU and on the GPU have in common."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numba
import numpy as np
import torch
from torch import Tensor

from ffcv_imagenet.data.ffcv_imports import THREADS_OF
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.decode_cpu import CropDecoder, error_message
from ffcv_imagenet.data.read.orders import ListedOrder, QuasiRandomOrder, RepeatedOrder, ShuffledOrder
from ffcv_imagenet.data.read.read_ahead import Windows, read_ahead

#: Batches that have memory, in a ring: one is with the consumer, the others are decoded or being decoded.
SLOTS = 5

#: What happens to a sample that cannot be decoded, see :class:`BatchLoader`.
OnDamaged = Literal["fail", "replace", "leave_out"]


class Batch(NamedTuple):
    """``images [B, 3, H, W]`` (channels_last) and ``labels [B] int64``, on the training device.

    The images are of the loader's ``dtype``: uint8 0..255, or normalised. ``replaced`` of them are copies of other
    samples of the batch, in place of damaged ones. Valid until the next batch is asked for: its memory is used again.
    """

    images: Tensor
    labels: Tensor
    replaced: int


class Batches(Protocol):
    """The batches of an epoch, decoded by a thread of their own."""

    def __next__(self) -> Batch:
        """The next one. An exception in the thread is raised here."""

    def close(self) -> None:
        """End the thread. Nothing is written to the batches any more."""


class BatchLoader(ABC):
    """Batches of one .beton file, in an order, of one decoder's crops.

    Args:
        file: what is read.
        decoder: of this loader alone.
        order: order of the samples, with this rank's part of them.
        batch_size: images per batch; the last batch of an epoch may be smaller.
        num_workers: decoding threads, 0: one per usable core.
        on_damaged: what happens to a sample that cannot be decoded. ``fail``: an error that names it. ``replace``: the
            next good sample of the batch, image and label, takes its place. ``leave_out``: the batch is that much
            smaller (none at all when nothing is left). Either way the sample is named on stderr, once.

    Attributes:
        dtype: element type of the images.
        cpu_share: share of an epoch's images that the CPU decoded, set at its end.

    Raises:
        ValueError: more workers than numba has threads, or threads of numba's that end the process when two loaders
            decode at once, or a process forked after the import of FFCV.
    """

    dtype: torch.dtype = torch.uint8
    cpu_share: float

    def __init__(
        self,
        file: BetonFile,
        decoder: CropDecoder,
        order: ShuffledOrder | ListedOrder,
        *,
        batch_size: int,
        num_workers: int,
        on_damaged: OnDamaged = "fail",
    ):
        most = most_workers()
        if num_workers > most:
            raise ValueError(
                f"data.num_workers: got {num_workers}, allowed are at most {most}, NUMBA_NUM_THREADS (0: automatic)"
            )
        if numba.threading_layer() == "workqueue":
            raise ValueError("NUMBA_THREADING_LAYER: got workqueue, allowed are omp and tbb: two loaders share them")
        if numba.threading_layer() == "omp" and os.getpid() != THREADS_OF:
            raise ValueError(
                "this process was forked from one that had imported the loaders, whose threads it lacks: start it by "
                "multiprocessing's spawn or forkserver, or import the loaders after the fork"
            )
        self.file, self.decoder, self.order, self.batch_size = file, decoder, order, batch_size
        self.num_workers = num_workers or min(len(os.sched_getaffinity(0)), most)
        self.damage = DamagePolicy(file.path, on_damaged)
        self.samples_per_epoch = len(order.sample_order(0))  # of this rank
        decoder.read_from(file)

    @property
    def num_samples(self) -> int:
        """Images in the file."""
        return self.file.num_samples

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-self.samples_per_epoch // self.batch_size)

    def epoch(self, epoch: int, resolution: int, first_batch: int = 0) -> Generator[Batch, None, None]:
        """This rank's batches of an epoch from ``first_batch`` on, images of side ``resolution`` in pixels.

        Closing the generator, also by leaving a loop over it, stops the decoding thread. One epoch at a time.

        Raises:
            ValueError: a damaged sample, which it names, or with ``on_damaged="replace"`` nothing else in a batch.
        """
        samples = self.order.sample_order(epoch)
        starts = range(first_batch * self.batch_size, len(samples), self.batch_size)
        windows = None
        if isinstance(self.order, QuasiRandomOrder):
            windows = Windows(self.file, self.order, epoch, first_batch, self.batch_size)
        batches = (samples[start : start + self.batch_size] for start in starts)
        self.decoder.start_epoch(epoch, resolution)
        if isinstance(self.order, RepeatedOrder):
            self.decoder.set_repeats(self.order.repeat_numbers()[first_batch * self.batch_size :])
        decoding = self.decode(read_ahead(self.file, batches, windows, first_batch), resolution)
        _running.add(decoding)
        try:
            while (batch := next(decoding, None)) is not None:
                yield batch
        finally:
            decoding.close()
            _running.discard(decoding)

    @abstractmethod
    def decode(self, batches: Iterator[np.ndarray], resolution: int) -> Batches:
        """Start decoding batches of samples, [B] indices each, to images of side ``resolution``."""


class DamagePolicy:
    """What happens to samples that cannot be decoded; see ``on_damaged`` of :class:`BatchLoader`."""

    def __init__(self, path: Path, on_damaged: OnDamaged):
        self._path, self._on_damaged, self._reported = path, on_damaged, set[int]()

    def without_damaged(self, samples: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """What to decode instead of ``samples``, [B] indices, some of which have an error code, ``codes [B]``.

        Raises:
            ValueError: a damaged sample is an error, or nothing can replace it.
        """
        good = codes == 0
        for sample, code in zip(samples[~good].tolist(), codes[~good].tolist(), strict=True):
            message = f"{self._path}: sample {sample} is damaged: {error_message(code)}"
            if self._on_damaged == "fail":
                raise ValueError(message)
            if sample not in self._reported:
                self._reported.add(sample)
                print(f"warning: {message}; it is skipped", file=sys.stderr, flush=True)
        if self._on_damaged == "leave_out":
            return samples[good]
        if not good.any():
            raise ValueError(f"{self._path}: all {len(samples)} samples of a batch are damaged")
        positions = np.flatnonzero(good)
        next_good = positions[np.searchsorted(positions, np.flatnonzero(~good)) % len(positions)]
        replaced = samples.copy()
        replaced[~good] = samples[next_good]
        return replaced


def most_workers() -> int:
    """The most decoding threads that numba has: NUMBA_NUM_THREADS in the environment, else the usable cores."""
    return numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]


_running: weakref.WeakSet[Batches] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the decoding threads that still run at the end of the program: Python would kill them in their C code."""
    for batches in list(_running):
        batches.close()
