"""How far work is that takes a while, on stderr: a bar on a terminal, elsewhere a line every minute.

Both tell the rate and the time left. Work that is done before the first minute has passed gets no line.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ffcv_imagenet.names import shown
from ffcv_imagenet.units import duration

T = TypeVar("T")

#: Seconds between updates of the bar, and between lines where stderr is no terminal.
BAR_SECONDS, LINE_SECONDS = 0.5, 60.0


class Progress:
    """Counts parts of a piece of work, in a ``with`` block.

    Args:
        what: is being done.
        total: number of parts; None: not known, so that there is no time left to tell.
        unit: what a part is, in the plural.
        done: parts that were done before.
        hidden: show nothing.
        clock: the time in seconds.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        *,
        done: int = 0,
        hidden: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.what, self.total, self.unit, self.done = shown(what), total, unit, done
        self._before, self._clock, self._hidden = done, clock, hidden
        self._start = self._last = clock()
        self._bar: Any = None
        self._interval = math.inf if hidden else LINE_SECONDS
        if not hidden and sys.stderr.isatty():
            from tqdm import tqdm

            self._interval = BAR_SECONDS
            self._bar = tqdm(
                desc=self.what,
                total=total,
                initial=done,
                unit=f" {unit}",
                leave=False,
                dynamic_ncols=True,
                mininterval=0,
                miniters=1,
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def is_due(self) -> bool:
        """Whether it is time to show something: for notes that take time to make."""
        return self._clock() - self._last >= self._interval

    def update(self, parts: int = 1, note: str = "") -> None:
        """So many more parts are done; shows it, with a ``note``, when that is due."""
        self.done += parts
        now = self._clock()
        if now - self._last < self._interval:
            return
        self._last = now
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(self.done - self._bar.n)
        else:
            print(self._line(now - self._start, note), file=sys.stderr, flush=True)

    def over(self, items: Iterable[T], parts: int = 1) -> Iterator[T]:
        """The ``items``, each of which is so many parts when the next is asked for."""
        for item in items:
            yield item
            self.update(parts)

    def say(self, text: str) -> None:
        """A line of its own, above the bar; nothing where progress is hidden."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif not self._hidden:
            print(text, file=sys.stderr, flush=True)

    def _line(self, seconds: float, note: str) -> str:
        rate = (self.done - self._before) / seconds
        parts = [f"{self.done} {self.unit}", f"{rate:.3g} a second"]
        if self.total is not None:
            parts[0] = f"{self.done} of {self.total} {self.unit}"
            if rate > 0:
                parts.append(f"{duration(max(0, self.total - self.done) / rate)} left")
        return f"{self.what}: {', '.join([*parts, *([note] if note else [])])}"
