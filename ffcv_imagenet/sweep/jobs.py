"""The runs of a sweep, how far each one is, and how long the rest will take."""

from __future__ import annotations

import heapq
import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ffcv_imagenet.sweep.devices import Slot

#: ``waiting`` for a slot; ``elsewhere``: processes that this sweep did not start are running it; ``stopped``:
#: ended because the sweep was asked to stop.
State = Literal["waiting", "running", "elsewhere", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class Run:
    """One training: its number in the sweep (from 1), name, folder, number of epochs, and command."""

    number: int
    name: str
    folder: Path
    epochs: int
    command: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """What a run folder tells: the state in status.json (None: not there) and the epochs in log.jsonl.

    ``top_1`` is a share of 1, of the last epoch that has one, ``seconds`` the duration of each finished epoch.
    """

    state: str | None = None
    epochs_done: int = 0
    top_1: float | None = None
    images_per_second: float | None = None
    seconds: tuple[float, ...] = ()


def read_progress(folder: Path) -> Progress:
    """Read a run folder, which need not be there yet.

    Raises:
        ValueError: a file that is not what the trainer writes.
    """
    status, log = folder / "status.json", folder / "log.jsonl"
    try:
        state = json.loads(status.read_text())["state"] if status.is_file() else None
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
        if not lines:
            return Progress(state)
        last = lines[-1]
        seconds = tuple(float(line["seconds"]) for line in lines)
        top_1 = next((line["top_1"] for line in reversed(lines) if line["top_1"] is not None), None)
        return Progress(state, int(last["epoch"]), top_1, last["images_per_second"], seconds)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: status.json or log.jsonl cannot be understood ({error!r})") from None


@dataclass
class Job:
    """A run in the hands of the scheduler.

    ``starts`` counts how often this sweep started it, ``output_start`` is where the output of the last start begins
    (bytes), ``epoch_began`` when its current epoch began (monotonic seconds), ``error`` says why it failed.
    """

    run: Run
    state: State
    progress: Progress
    slot: Slot | None = None
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    output_start: int = 0
    epoch_began: float = field(default_factory=time.monotonic)
    error: str = ""

    @property
    def epochs_left(self) -> int:
        """Epochs that are not finished."""
        return max(0, self.run.epochs - self.progress.epochs_done)


def make_job(run: Run, active: bool) -> Job:
    """The job of a run as its folder shows it; ``active``: processes are running it."""
    progress = read_progress(run.folder)
    if active:
        return Job(run, "elsewhere", progress)
    done = progress.state == "finished" and progress.epochs_done >= run.epochs
    return Job(run, "finished" if done else "waiting", progress)


def seconds_left(job: Job, jobs: Sequence[Job]) -> float | None:
    """Seconds until a job would be finished if it ran now; None before any job has finished an epoch.

    An epoch is taken to last as long as the job's epochs so far on average, else as those of all jobs.
    """
    known = job.progress.seconds or [second for other in jobs for second in other.progress.seconds]
    if not known:
        return None
    began = time.monotonic() - job.epoch_began if job.state == "running" else 0.0
    return max(0.0, job.epochs_left * statistics.fmean(known) - began)


def sweep_seconds_left(jobs: Sequence[Job], slots: int) -> float | None:
    """Seconds until all jobs are finished on so many slots; None while not known."""
    to_do = [job for job in jobs if job.state in ("running", "elsewhere", "waiting")]
    to_do.sort(key=lambda job: job.state == "waiting")
    busy_until = [0.0] * slots
    for job in to_do:
        seconds = seconds_left(job, jobs)
        if seconds is None:
            return None
        heapq.heapreplace(busy_until, busy_until[0] + seconds)
    return max(busy_until)
