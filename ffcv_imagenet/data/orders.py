"""In which order the samples are visited, and by which rank. FFCV traversal orders.

An order is given to FFCV's Loader as ``order=``, which calls it with the loader; ours need nothing from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ffcv.traversal_order.base import TraversalOrder


class _RankOrder(TraversalOrder):
    def __call__(self, loader: Any) -> TraversalOrder:
        return self


class ShuffledOrder(_RankOrder):
    """A new seeded shuffle every epoch, dealt out in global batches.

    The global batch of step s is the same set of samples for any number of ranks: rank r takes its r-th part. Samples
    left over after the last whole global batch are not visited in that epoch (another ones each time).

    Args:
        num_samples: size of the data set.
        seed: of the shuffle; the order depends on (seed, epoch) alone.
        global_batch: samples per step over all ranks; a multiple of ``world_size``, at most ``num_samples``.
        rank: this process, ``0..world_size-1``.
        world_size: number of processes.
    """

    def __init__(self, num_samples: int, seed: int, global_batch: int, rank: int = 0, world_size: int = 1):
        if global_batch > num_samples:
            raise ValueError(f"training.batch_size: got {global_batch}, allowed are at most the {num_samples} images")
        self.num_samples, self.seed, self.global_batch = num_samples, seed, global_batch
        self.rank, self.world_size = rank, world_size

    @property
    def steps(self) -> int:
        """Global batches per epoch."""
        return self.num_samples // self.global_batch

    def sample_order(self, epoch: int) -> np.ndarray:
        """This rank's sample indices of an epoch, ``[steps * global_batch / world_size] int64``."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
        batches = order[: self.steps * self.global_batch].reshape(self.steps, self.world_size, -1)
        return np.ascontiguousarray(batches[:, self.rank]).reshape(-1)


class ShardedOrder(_RankOrder):
    """Every sample exactly once over all ranks, in the file's order; shares differ by at most one sample."""

    def __init__(self, num_samples: int, rank: int = 0, world_size: int = 1):
        bounds = np.linspace(0, num_samples, world_size + 1).astype(np.int64)
        self.samples = np.arange(bounds[rank], bounds[rank + 1])

    def sample_order(self, epoch: int) -> np.ndarray:
        """This rank's sample indices, the same in every epoch, int64."""
        return self.samples
