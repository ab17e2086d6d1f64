"""In which order the samples are visited, and by which rank. FFCV traversal orders.

FFCV's Loader takes an order as ``order=`` and calls it with itself; ours need nothing from it, and are made without
FFCV (:mod:`~ffcv_imagenet.data.read.loader_cpu` makes them known to it), so that a plan can be checked fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np


class RankOrder(ABC):
    """A rank's part of an order, in the form that FFCV's Loader expects."""

    def __call__(self, loader: Any) -> RankOrder:
        """What FFCV's Loader calls, with itself, to get its order."""
        return self

    @abstractmethod
    def sample_order(self, epoch: int) -> np.ndarray:
        """This rank's sample indices of an epoch, int64."""


class ShuffledOrder(RankOrder):
    """A new seeded shuffle every epoch, dealt out in global batches.

    The global batch of step s is the same set of samples for any number of ranks: rank r takes its r-th part. Samples
    left over after the last whole global batch are not visited in that epoch (different ones each time).

    Args:
        num_samples: size of the data set.
        seed: of the shuffle; the order depends on (seed, epoch) alone.
        global_batch: samples per step over all ranks; a multiple of ``world_size``, at most ``num_samples``.
        rank: this process, ``0..world_size-1``.
        world_size: number of processes.
        samples: those that are visited, [num_samples] int64; None: 0 to ``num_samples - 1``.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        samples: np.ndarray | None = None,
    ):
        if global_batch > num_samples:
            raise ValueError(f"training.batch_size: got {global_batch}, allowed are at most the {num_samples} images")
        self.num_samples, self.seed, self.global_batch = num_samples, seed, global_batch
        self.rank, self.world_size, self.samples = rank, world_size, samples

    @property
    def steps(self) -> int:
        """Global batches per epoch."""
        return self.num_samples // self.global_batch

    def permutation(self, epoch: int) -> np.ndarray:
        """All sample indices in the order of an epoch, ``[num_samples] int64``."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)

    def shuffled(self, epoch: int) -> np.ndarray:
        """The samples in the order of an epoch, ``[num_samples] int64``."""
        order = self.permutation(epoch)
        return order if self.samples is None else self.samples[order]

    def sample_order(self, epoch: int) -> np.ndarray:
        """This rank's sample indices of an epoch, ``[steps * global_batch / world_size] int64``."""
        batches = self.shuffled(epoch)[: self.steps * self.global_batch].reshape(self.steps, self.world_size, -1)
        return np.ascontiguousarray(batches[:, self.rank]).reshape(-1)


class RepeatedOrder(ShuffledOrder):
    """A shuffle in which each sample of a batch is there several times, each time with a crop of its own.

    Hoffer et al., "Augment Your Batch", arXiv 1901.09335; DeiT's repeated augmentation, arXiv 2012.12877. An epoch has
    as many batches as without, so it visits a ``repeats``-th part of the samples, others in every epoch. Copies of a
    sample are as far from each other in a global batch as they can be: neighbours, which are mixed with each other,
    are different samples, and copies are on different ranks where these are as many.

    Args:
        num_samples, seed, global_batch, rank, world_size, samples: see :class:`ShuffledOrder`.
        repeats: how often a sample is in a batch.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        samples: np.ndarray | None = None,
        repeats: int,
    ):
        super().__init__(num_samples, seed, global_batch, rank, world_size, samples=samples)
        self.repeats = repeats

    def sample_order(self, epoch: int) -> np.ndarray:
        """See :class:`ShuffledOrder`."""
        return self.shuffled(epoch)[self._places() // self.repeats]

    def repeat_numbers(self) -> np.ndarray:
        """For each of an epoch's samples of this rank, how many copies of it there were before, int64."""
        return self._places() % self.repeats

    def _places(self) -> np.ndarray:
        """Places of this rank's samples in a list with all copies of a sample next to each other, int64."""
        in_batch = np.concatenate([np.arange(k, self.global_batch, self.repeats) for k in range(self.repeats)])
        batches = np.arange(self.steps)[:, None] * self.global_batch + in_batch
        return np.ascontiguousarray(batches.reshape(self.steps, self.world_size, -1)[:, self.rank]).reshape(-1)


class QuasiRandomOrder(ShuffledOrder):
    """A shuffle that reads the file in large pieces, for data sets that do not fit into memory.

    The file is cut into blocks of neighbouring samples, at different positions in every epoch. The blocks are shuffled;
    ``window`` blocks at a time, all their samples are shuffled. So each part of the file is read once per epoch, as a
    whole; a batch needs one window in memory (two where one ends) and mixes samples of up to ``window`` blocks. In all
    other respects (seed, ranks, global batches, what is left over) it is a :class:`ShuffledOrder`; with ``block=1`` it
    is one.

    Shuffling pages is the idea of FFCV's QUASI_RANDOM (Leclerc et al., "FFCV: Accelerating Training by Removing Data
    Bottlenecks", 2023), which knows no ranks.

    Args:
        num_samples, seed, global_batch, rank, world_size: see :class:`ShuffledOrder`.
        block: neighbouring samples that are read together.
        window: blocks whose samples are mixed.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        block: int,
        window: int = 256,
    ):
        super().__init__(num_samples, seed, global_batch, rank, world_size)
        self.block, self.window = block, window

    def blocks(self, epoch: int) -> np.ndarray:
        """The blocks of an epoch in the order in which they are needed: first sample and the one after the last.

        [blocks, 2] int64.
        """
        generator = np.random.default_rng([self.seed, epoch, 1])
        bounds = np.arange(generator.integers(self.block), self.num_samples, self.block)
        bounds = np.concatenate([[0], bounds[bounds > 0], [self.num_samples]])
        return generator.permutation(np.stack([bounds[:-1], bounds[1:]], axis=1))

    def permutation(self, epoch: int) -> np.ndarray:
        """All sample indices in the order of an epoch, ``[num_samples] int64``."""
        window = np.empty(self.num_samples, np.int64)
        for number, (first, end) in enumerate(self.blocks(epoch).tolist()):
            window[first:end] = number // self.window
        shuffled = super().permutation(epoch)
        return shuffled[np.argsort(window[shuffled], kind="stable")]


class ListedOrder(RankOrder):
    """The samples of a list, [N] int64, in every epoch."""

    def __init__(self, samples: np.ndarray):
        self.samples = samples

    def sample_order(self, epoch: int) -> np.ndarray:
        """The list."""
        return self.samples


class ShardedOrder(ListedOrder):
    """Every sample exactly once over all ranks, in the file's order; shares differ by at most one sample."""

    def __init__(self, num_samples: int, rank: int = 0, world_size: int = 1):
        bounds = np.linspace(0, num_samples, world_size + 1).astype(np.int64)
        super().__init__(np.arange(bounds[rank], bounds[rank + 1]))
