"""How long the device has nothing to do."""

from __future__ import annotations

import collections
import time
from typing import Any

import torch


class WaitClock:
    """Adds up the seconds that ``with`` blocks keep the device waiting.

    A program that runs ahead of its GPU waits most of the time, for memory that the GPU still uses, while the GPU has
    work to do. So on a GPU the clock is read by the GPU: an event after the work so far, and one when there is more.
    """

    def __init__(self, device: torch.device, seconds: float = 0.0):
        self._on_gpu, self._seconds = device.type == "cuda", seconds
        self._begin: Any = None
        self._pairs: collections.deque[tuple[torch.cuda.Event, torch.cuda.Event]] = collections.deque()

    def __enter__(self) -> None:
        self._begin = self._now()

    def __exit__(self, *_: object) -> None:
        end = self._now()
        if self._on_gpu:
            self._pairs.append((self._begin, end))
            self.seconds()  # keeps the pairs few
        else:
            self._seconds += end - self._begin

    def seconds(self) -> float:
        """The sum, as far as the device has come; never waits for it."""
        while self._pairs and self._pairs[0][1].query():
            begin, end = self._pairs.popleft()
            self._seconds += begin.elapsed_time(end) / 1000
        return self._seconds

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
