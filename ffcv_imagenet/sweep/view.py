"""What a sweep shows: a table that is kept up to date on a terminal, one line per event elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from ffcv_imagenet.sweep.jobs import Job, State, seconds_left, sweep_seconds_left
from ffcv_imagenet.units import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

_REFRESH_SECONDS = 1.0


class View(Protocol):
    """What the scheduler tells."""

    def event(self, job: Job, text: str) -> None:
        """Something happened to a job."""

    def epoch(self, job: Job, jobs: Sequence[Job], slots: int) -> None:
        """A job has finished another epoch."""

    def note(self, text: str) -> None:
        """Something about the whole sweep."""

    def show(self, jobs: Sequence[Job], slots: int) -> None:
        """How all jobs stand; called several times a second."""


class PlainView:
    """One line per event and per epoch, without cursor codes."""

    def event(self, job: Job, text: str) -> None:
        """``12:00:00 NAME text``."""
        self.note(f"{job.run.name}: {text}")

    def epoch(self, job: Job, jobs: Sequence[Job], slots: int) -> None:
        """Epoch, top-1, images/s and the time left."""
        self.event(job, f"epoch {_epochs(job)}, top-1 {_top_1(job)} %, {_rate(job)} images/s; {_left(jobs, slots)}")

    def note(self, text: str) -> None:
        """``12:00:00 text``."""
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def show(self, jobs: Sequence[Job], slots: int) -> None:
        """Nothing: the lines tell."""


class LiveView:
    """A line per run that is kept up to date, events above."""

    def __init__(self, live: Live):
        self.live, self.shown = live, -_REFRESH_SECONDS

    def event(self, job: Job, text: str) -> None:
        """The same line as without a terminal."""
        self.note(f"{job.run.name}: {text}")

    def epoch(self, job: Job, jobs: Sequence[Job], slots: int) -> None:
        """Nothing: the table tells."""

    def note(self, text: str) -> None:
        """A line above the table, which is shown at once."""
        self.shown = -_REFRESH_SECONDS
        self.live.console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False)

    def show(self, jobs: Sequence[Job], slots: int) -> None:
        """The table, at most once a second."""
        if time.monotonic() - self.shown >= _REFRESH_SECONDS:
            self.shown = time.monotonic()
            rows = self.live.console.height - 3  # The header, the line below, and the cursor.
            self.live.update(status_table(jobs, slots, rows), refresh=True)


@contextlib.contextmanager
def open_view(console: Console) -> Iterator[View]:
    """The view that suits the console."""
    if not console.is_terminal:
        yield PlainView()
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        yield LiveView(live)


def status_table(jobs: Sequence[Job], slots: int, rows: int) -> Table:
    """One row per job; below, how many are finished and how long the rest may take.

    Where there are more jobs than ``rows``, active and failed ones are shown before others.
    """
    from rich.table import Table

    ranks: dict[State, int] = {"running": 0, "elsewhere": 0, "failed": 1, "stopped": 1, "waiting": 2, "finished": 3}
    shown = sorted(jobs, key=lambda job: ranks[job.state])[: max(1, rows)]
    hidden = f"; {len(jobs) - len(shown)} not shown" if len(shown) < len(jobs) else ""
    table = Table(box=None, pad_edge=False, caption=_left(jobs, slots) + hidden, caption_justify="left")
    table.add_column("", justify="right")
    table.add_column("run", overflow="fold", ratio=1)
    table.add_column("state", no_wrap=True)
    for title in ("epoch", "top-1 (%)", "images/s", "left"):
        table.add_column(title, justify="right", no_wrap=True)
    for job in sorted(shown, key=lambda job: job.run.number):
        left = seconds_left(job, jobs) if job.state in ("running", "elsewhere") else None
        cells = [str(job.run.number), job.run.name, state_text(job), _epochs(job), _top_1(job), _rate(job)]
        table.add_row(*cells, "" if left is None else duration(left), style={"failed": "red"}.get(job.state))
    return table


def state_text(job: Job) -> str:
    """A job's state in words."""
    match job.state:
        case "running":
            return f"running, {job.slot}"
        case "elsewhere":
            return "at work elsewhere"
        case "waiting":
            done = job.progress.epochs_done
            started = job.starts or job.progress.state
            return f"resumes after epoch {done}" if done else "starts again" if started else "new"
        case state:
            return state


def _left(jobs: Sequence[Job], slots: int) -> str:
    counts = Counter(job.state for job in jobs)
    parts = [f"{counts['finished']} of {len(jobs)} finished"]
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    seconds = sweep_seconds_left(jobs, slots)
    if seconds is None:
        parts.append("time left not known before the first epoch")
    elif seconds > 0:
        parts.append(f"about {duration(seconds)} left")
    return ", ".join(parts)


def _epochs(job: Job) -> str:
    return f"{job.progress.epochs_done}/{job.run.epochs}"


def _top_1(job: Job) -> str:
    return "-" if job.progress.top_1 is None else f"{100 * job.progress.top_1:.2f}"


def _rate(job: Job) -> str:
    return "-" if job.progress.images_per_second is None else f"{job.progress.images_per_second:.0f}"
