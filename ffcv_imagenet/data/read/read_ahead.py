"""Asks the system for parts of a file before they are decoded.

A file that is in memory is not read again. Of others, nothing but what is asked for here is read from the disk, all at
once: a thread that finds a page missing waits for it alone, and by default the system then reads much around it, which
drives other pages out if the file is larger than the memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from ffcv_imagenet import native
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.orders import QuasiRandomOrder

#: Batches whose bytes the system is asked to read before they are decoded.
BATCHES_READ_AHEAD = 2


class Windows:
    """The blocks of the file that a quasi-random epoch needs, asked for a window before they are needed.

    Args:
        file: whose blocks.
        order: over all ranks, which read the same windows.
        epoch: number of the epoch.
        first_batch: the batch that the epoch starts with.
        batch_size: of each rank.
    """

    def __init__(self, file: BetonFile, order: QuasiRandomOrder, epoch: int, first_batch: int, batch_size: int):
        blocks, samples = order.blocks(epoch), file.samples
        # In our files samples are stored in the order of their indices. In others this only asks for less.
        self._start, last = samples.pointer[blocks[:, 0]], blocks[:, 1] - 1
        end = samples.pointer[last] + samples.size[last]
        self._size = np.where(end > self._start, end - self._start, 0)
        self._content, self._order, self._batch_size = file.storage.content, order, batch_size
        current = self._blocks_before(first_batch)
        self._asked = current // order.window * order.window  # the window that is being read begins here

    def ask(self, batch: int) -> None:
        """Ask for the blocks that are needed a window after batch number ``batch`` of the epoch."""
        needed = self._blocks_before(batch + 1) + self._order.window
        native.will_need(self._content, self._start[self._asked : needed], self._size[self._asked : needed])
        self._asked = max(self._asked, needed)

    def _blocks_before(self, batch: int) -> int:
        return batch * self._batch_size * self._order.world_size // self._order.block


def read_ahead(
    file: BetonFile, batches: Iterable[np.ndarray], windows: Windows | None = None, first_batch: int = 0
) -> Iterator[np.ndarray]:
    """The batches, [B] sample indices each, each after the system has been asked to read the next ones.

    Args:
        file: that they are read from.
        batches: of an epoch, from ``first_batch`` on.
        windows: of a quasi-random order, None for others.
        first_batch: number of the first one.
    """
    samples, content = file.samples, file.storage.content
    asked = deque[np.ndarray]()
    for number, batch in enumerate(batches, first_batch):
        if windows is not None:
            windows.ask(number)
        native.will_need(content, samples.pointer[batch], samples.size[batch])
        asked.append(batch)
        if len(asked) > BATCHES_READ_AHEAD:
            yield asked.popleft()
    yield from asked
