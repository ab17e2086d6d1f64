"""Signals that ask a training to stop: remembered when they come, answered after the step."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from ffcv_imagenet.script import INTERRUPTED_STATUS, REQUEUE_STATUS

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
#: Ctrl-C under torchrun comes twice: from the terminal and from torchrun.
_SAME_CTRL_C_SECONDS = 1.0


class Interrupted(SystemExit):
    """The training stopped because of a signal, with everything saved; ends the process with a status of its own."""

    def __init__(self, signum: int):
        super().__init__(INTERRUPTED_STATUS if signum == signal.SIGINT else REQUEUE_STATUS)
        self.signal = signal.Signals(signum).name


class StopSignals:
    """Catches Ctrl-C (SIGINT), SIGTERM and SIGUSR1 for the length of a ``with`` block.

    A second Ctrl-C, a second or more after the first signal, raises KeyboardInterrupt at once.

    Args:
        exchange: tells this process's number to the others and returns one that all of them agree on; see
            :class:`ffcv_imagenet.distributed.MaxOverRanks`.
    """

    def __init__(self, exchange: Callable[[int], int]):
        self.exchange = exchange
        self.received = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def agreed(self, value: int = 0) -> int:
        """The largest signal number, or ``value``, that any process has had; 0 for none.

        The same answer on every process, when all of them call it equally often.
        """
        return self.exchange(max(self.received, value))

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.received:
            self.received, self._since = signum, now
        elif signum == signal.SIGINT and now - self._since > _SAME_CTRL_C_SECONDS:
            raise KeyboardInterrupt
