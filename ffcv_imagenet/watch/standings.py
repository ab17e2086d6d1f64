"""How the runs in some folders stand now."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ffcv_imagenet.report.runs import LeftOut, Run, load_run
from ffcv_imagenet.run.lock import is_active
from ffcv_imagenet.schedules import ramp, resolution_at
from ffcv_imagenet.sweep.processes import OUTPUT, last_error
from ffcv_imagenet.sweep.processes import is_active as has_processes
from ffcv_imagenet.units import duration

#: ``killed``: its process is gone and could not say so. ``silent``: of another machine whose process can't be seen from
#: here, and its log has not changed for long. ``unknown``: there is no status.json. ``damaged``: not understood.
State = Literal["starting", "running", "finished", "failed", "interrupted", "killed", "silent", "unknown", "damaged"]

#: In the order in which they are shown where there is no room for all.
ORDER: tuple[State, ...] = (
    "running",
    "starting",
    "silent",
    "killed",
    "failed",
    "damaged",
    "interrupted",
    "unknown",
    "finished",
)

#: A run of another machine whose log has not changed for so many of its epochs, and so many seconds, is silent.
_SILENT_EPOCHS, _SILENT_SECONDS = 3, 600.0

#: What decides how a run stands; nothing is read again while these files are the same.
_FILES = ("params.json", "log.jsonl", "log", "status.json")


@dataclass(frozen=True)
class Standing:
    """How a run stands. ``detail`` says why, such as an error; ``run`` is None where there is nothing to read yet.

    ``name`` is the folder's below what all of them have in common, ``changed`` when its log or status last changed
    (seconds of the epoch), ``seconds_left`` an estimate, None where there is none.
    """

    folder: Path
    name: str
    state: State
    detail: str = ""
    run: Run | None = None
    changed: float = 0.0
    seconds_left: float | None = None


class Watcher:
    """The runs at or below some folders, which may come and go.

    Raises:
        FileNotFoundError: a folder that is not there.
    """

    def __init__(self, folders: Sequence[Path]):
        for folder in folders:
            if not folder.is_dir():
                raise FileNotFoundError(f"folder not found: {folder}")
        self.folders = [folder.resolve() for folder in folders]
        self._read: dict[Path, tuple[tuple[object, ...], Run | LeftOut]] = {}

    def look(self) -> list[Standing]:
        """All runs, by name; what has not changed since the last look is not read again."""
        found = sorted(_run_folders(self.folders))
        root = os.path.commonpath([folder.parent for folder in found]) if found else ""
        return [replace(self._stands(folder), name=os.path.relpath(folder, root)) for folder in found]

    def _stands(self, folder: Path) -> Standing:
        if not (folder / "params.json").is_file():
            return _beginning(folder)
        files, changed = _signature(folder)
        if folder not in self._read or self._read[folder][0] != files:
            self._read[folder] = files, _load(folder)
        run = self._read[folder][1]
        if isinstance(run, LeftOut):
            return Standing(folder, folder.name, "damaged", run.reason, changed=changed)
        state, detail = run_state(run, changed, time.time())
        in_epoch = max(0.0, time.time() - changed)
        left = seconds_left(run, in_epoch) if state == "running" else None
        return Standing(folder, folder.name, state, detail, run, changed, left)


def run_state(run: Run, changed: float, now: float) -> tuple[State, str]:
    """A run's state, and why; ``changed`` and ``now`` are seconds of the epoch."""
    if run.state == "finished" or (run.state is None and run.finished):
        return "finished", ""
    if run.state is None:
        return "unknown", "no status.json"
    active, host = _is_active(run.folder), (run.params.get("hardware") or {}).get("host")
    if run.state != "running":
        if active:
            return "starting", "again"
        return ("failed" if run.state == "failed" else "interrupted"), " ".join((run.error or "").split())
    if active:
        return "running", ""
    if active is False and host in (None, platform.node()):
        return "killed", "its process is gone"
    # Of another machine, whose locks may not be seen here.
    silent, epochs = now - changed, epoch_seconds(run)
    if silent > max(_SILENT_SECONDS, _SILENT_EPOCHS * (epochs[-1] if epochs else 0.0)):
        return "silent", f"for {duration(silent)}, on {host or 'another machine'}"
    return "running", f"on {host}" if host else ""


def epoch_seconds(run: Run) -> list[float]:
    """The duration of each logged epoch."""
    totals = [line.total_seconds for line in run.log]
    return [after - before for before, after in zip([0.0, *totals], totals, strict=False)]


def seconds_left(run: Run, in_epoch: float = 0.0) -> float | None:
    """An estimate of the seconds until a run is finished; None before its first epoch is.

    An epoch is taken to last as long as those with the same image size, without the first, which has the start in it,
    where there are others; one with a size that has not come yet as long as its pixels say.

    Args:
        run: as its folder shows it.
        in_epoch: seconds since the last epoch ended.
    """
    seconds = epoch_seconds(run)
    if not seconds:
        return None
    known: dict[int | None, list[float]] = {}
    for line, second in zip(run.log, seconds, strict=True):
        known.setdefault(line.resolution, []).append(second)
    if len(of_first := known[run.log[0].resolution]) > 1:
        del of_first[0]
    last_side, last = run.log[-1].resolution, seconds[-1]
    left = []
    for epoch in range(run.epochs_done, run.epochs):
        side = _planned_side(run, epoch) or last_side
        if side in known:
            left.append(statistics.fmean(known[side]))
        else:
            left.append(last * ((side or 1) / (last_side or side or 1)) ** 2)
    return max(0.0, sum(left) - min(in_epoch, left[0])) if left else 0.0


def summary(standings: Sequence[Standing]) -> str:
    """All runs in one line: ``12 runs: 2 running, 10 finished; about 3 h left for those that run``."""
    if not standings:
        return "no run yet"
    counts = Counter(standing.state for standing in standings)
    parts = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    left = [s.seconds_left for s in standings if s.seconds_left is not None]
    ends = f"; about {duration(max(left))} left for those that run" if left else ""
    return f"{len(standings)} run{'s' if len(standings) > 1 else ''}: {parts}{ends}"


def _planned_side(run: Run, epoch: int) -> int | None:
    """The image size that the options plan for an epoch; None where they don't say."""
    config = run.params.get("config") or {}
    try:
        low, high = int(config["resolution.min_res"]), int(config["resolution.max_res"])
        start, end = ramp(
            int(config["training.epochs"]), config.get("resolution.start_ramp"), config.get("resolution.end_ramp")
        )
        return resolution_at(epoch, min_res=low, max_res=high, start_ramp=start, end_ramp=end)
    except (KeyError, TypeError, ValueError):
        return None


def _run_folders(folders: Iterable[Path]) -> set[Path]:
    """Folders that are runs: with parameters, or with the output of one that a sweep has just started."""
    found = set()
    for top in folders:
        for folder, _, files in os.walk(top):
            if "params.json" in files or OUTPUT in files:
                found.add(Path(folder))
    return found


def _beginning(folder: Path) -> Standing:
    """Of a run that a sweep has started and that has not come as far as its parameters."""
    try:
        if has_processes(folder):
            return Standing(folder, folder.name, "starting")
        detail = last_error(folder, 0)
    except OSError as error:
        detail = str(error)
    return Standing(folder, folder.name, "failed", f"before it began: {detail}")


def _load(folder: Path) -> Run | LeftOut:
    try:
        return load_run(folder)
    except (ValueError, OSError) as error:
        return LeftOut(folder, str(error))


def _signature(folder: Path) -> tuple[tuple[object, ...], float]:
    """What changes with a run's files, and when its log or status changed."""
    parts: list[object] = []
    changed = 0.0
    for name in _FILES:
        try:
            stat = (folder / name).stat()
        except OSError:
            parts.append(None)
        else:
            parts.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            changed = max(changed, stat.st_mtime)
    return tuple(parts), changed


def _is_active(folder: Path) -> bool | None:
    """Whether a process holds the run; None where the file system can't tell."""
    try:
        return is_active(folder)
    except OSError:
        return None
