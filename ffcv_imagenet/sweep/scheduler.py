"""Keeps the slots busy until every run is finished or has failed, or until the sweep is asked to stop."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ffcv_imagenet.script import USER_ERROR_STATUS
from ffcv_imagenet.sweep.devices import Slot
from ffcv_imagenet.sweep.jobs import Job, make_job, read_progress
from ffcv_imagenet.sweep.processes import OUTPUT, holds, is_active, kill, last_error, processes_of, start
from ffcv_imagenet.sweep.view import View

_POLL_SECONDS = 0.25
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Scheduler:
    """Runs ``jobs`` on ``slots``, in their order.

    A job whose run is active already (``elsewhere``: of another sweep, or left by a killed one) is waited for, and
    nothing is started on the devices that it holds. A failed run is started again up to ``retries`` times, unless a
    user's mistake ended it. At Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 all runs of this sweep are asked to stop by
    SIGTERM; what is still there after ``stop_seconds``, or at the next signal, is killed.
    """

    def __init__(self, jobs: Sequence[Job], slots: Sequence[Slot], view: View, *, retries: int, stop_seconds: float):
        self.jobs, self.slots, self.view = jobs, slots, view
        self.retries, self.stop_seconds = retries, stop_seconds
        self.stop_requests = 0

    def run(self) -> bool:
        """Work until all is done; returns whether it was asked to stop before."""
        with self._stop_signals():
            stop_requests, kill_at = 0, 0.0
            while True:
                for job in self._in_state("running", "elsewhere"):
                    self._look(job)
                if self.stop_requests > stop_requests:
                    kill_at = time.monotonic() + (self.stop_seconds if stop_requests == 0 else 0)
                    stop_requests = self.stop_requests
                    self._ask_to_stop()
                if stop_requests and time.monotonic() >= kill_at:
                    for job in self._in_state("running"):
                        kill(job.run.folder)
                if not stop_requests:
                    self._start_what_fits()
                self.view.show(self.jobs, len(self.slots))
                if not self._in_state("running", *(() if stop_requests else ("waiting", "elsewhere"))):
                    return stop_requests > 0
                time.sleep(_POLL_SECONDS)

    def _in_state(self, *states: str) -> list[Job]:
        return [job for job in self.jobs if job.state in states]

    def _start_what_fits(self) -> None:
        waiting = self._in_state("waiting")
        if not waiting:
            return
        busy = {job.slot for job in self._in_state("running")}
        others = [process for job in self._in_state("elsewhere") for process in processes_of(job.run.folder)]
        free = [slot for slot in self.slots if slot not in busy and not any(holds(p, slot) for p in others)]
        for job, slot in zip(waiting, free, strict=False):
            self._start(job, slot)

    def _start(self, job: Job, slot: Slot) -> None:
        output = job.run.folder / OUTPUT
        job.output_start = output.stat().st_size if output.is_file() else 0
        job.epoch_began = time.monotonic()
        try:
            job.process = start(job.run.command, job.run.folder, slot)
        except OSError as error:
            job.state, job.error = "failed", str(error)
            self.view.event(job, f"cannot be started ({error})")
            return
        if job.process is None:
            job.state = "elsewhere"
            self.view.event(job, "is at work already, started elsewhere: waiting for it")
            return
        job.state, job.slot, job.starts = "running", slot, job.starts + 1
        done = job.progress.epochs_done
        self.view.event(job, f"resumes after epoch {done} on {slot}" if done else f"starts on {slot}")

    def _look(self, job: Job) -> None:
        """Take note of a run's new epochs, and of its end."""
        assert job.process is not None or job.state == "elsewhere"
        status = job.process.poll() if job.process is not None else None
        progress = read_progress(job.run.folder)
        if progress.epochs_done != job.progress.epochs_done:
            job.epoch_began = time.monotonic()
            job.progress = progress
            self.view.epoch(job, self.jobs, len(self.slots))
        if job.state == "elsewhere":
            if not is_active(job.run.folder):
                again = make_job(job.run, active=False)
                job.state, job.progress = again.state, again.progress
                if job.state == "finished":
                    self.view.event(job, "finished")
        elif status is not None:
            kill(job.run.folder)  # A torchrun that was killed leaves its workers.
            self._ended(job, status)

    def _ended(self, job: Job, status: int) -> None:
        job.process, job.slot = None, None
        job.progress = read_progress(job.run.folder)
        if status == 0:
            job.state = "finished"
            self.view.event(job, "finished")
            return
        if self.stop_requests:
            job.state = "stopped"
            self.view.event(job, f"stopped after epoch {job.progress.epochs_done}")
            return
        # What SIGKILL ends (by hand, or because memory has run out) cannot say why.
        line = "" if status == -signal.SIGKILL else last_error(job.run.folder, job.output_start)
        how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        job.error = f"{how}: {line}" if line else how
        # torchrun's own status is always 1; our line on a mistake shows through it. That another process is gone is no
        # mistake, but what the processes say that miss it.
        mistake = status == USER_ERROR_STATUS or re.match(r"error( on rank \d+)?: (?!another process has ended)", line)
        again = not mistake and job.starts <= self.retries
        job.state = "waiting" if again else "failed"
        self.view.event(job, f"failed ({job.error})" + ("; it is started again" if again else ""))

    def _ask_to_stop(self) -> None:
        running = self._in_state("running")
        self.view.note(f"Stopping {len(running)} runs; they write their checkpoints. Ctrl-C again kills them.")
        for job in running:
            assert job.process is not None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.process.pid, signal.SIGTERM)

    @contextlib.contextmanager
    def _stop_signals(self) -> Iterator[None]:
        """Count the requests to stop. A signal that is ignored (SIGHUP under nohup) stays ignored."""

        def request(*_: Any) -> None:
            self.stop_requests += 1

        before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, request)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
