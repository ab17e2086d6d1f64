"""What this process may use of the machine: cores and memory, by affinity, control groups and ulimit."""

from __future__ import annotations

import math
import os
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Limits of version 1 that stand for none.
_UNLIMITED = 1 << 60
_ROOT = Path("/")


@dataclass(frozen=True)
class Cores:
    """``affinity`` cores that the process may run on, and as many as its control groups pay for (None: all)."""

    affinity: int
    quota: float | None

    @property
    def usable(self) -> int:
        """How many threads can run at a time."""
        return self.affinity if self.quota is None else max(1, min(self.affinity, math.ceil(self.quota)))


@dataclass(frozen=True)
class Memory:
    """Bytes: ``total`` that the process and what shares its limit may hold, ``available`` of them now.

    What the system keeps of files counts as available. ``limited_by`` says what sets ``total``: the machine, a control
    group, or ulimit -v.
    """

    total: int
    available: int
    limited_by: str


def cores(root: Path = _ROOT) -> Cores:
    """The cores of this process; ``root`` is where proc and sys lie."""
    quotas = [quota for folder in _groups(root, "cpu") if (quota := _quota(folder)) is not None]
    return Cores(len(os.sched_getaffinity(0)), min(quotas, default=None))


def memory(root: Path = _ROOT) -> Memory:
    """The memory of this process; ``root`` is where proc and sys lie."""
    lines = (root / "proc/meminfo").read_text().splitlines()
    machine = {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}
    found = [Memory(machine["MemTotal"], machine["MemAvailable"], "the machine")]
    for folder in _groups(root, "memory"):
        if (limit := _memory_limit(folder)) is not None:
            held = _number(folder / "memory.current", _number(folder / "memory.usage_in_bytes", 0)) or 0
            found.append(Memory(limit, max(0, limit - held + _of_files(folder)), "a control group"))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        mapped = int((root / "proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        found.append(Memory(limit, max(0, limit - mapped), "ulimit -v"))
    tightest = min(found, key=lambda of: of.total)
    return Memory(tightest.total, min(of.available for of in found), tightest.limited_by)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that limit this process, from its own to the outermost that can be seen."""
    paths: dict[str, str] = {}  # by controller; version 2 is called ""
    for line in _lines(root / "proc/self/cgroup"):
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        name = "" if kind == "cgroup2" else controller
        if name not in paths or (
            kind != "cgroup2" and (kind != "cgroup" or controller not in re.split("[ ,]", options))
        ):
            continue
        mounted, at = before.split(" ")[3:5]
        top = root / at.lstrip("/")
        # In a container the mount may begin below the top, where the path that /proc tells is not there.
        below = os.path.relpath(paths[name], mounted) if paths[name].startswith(mounted) else "."
        folder = top / below if (top / below).is_dir() else top
        yield folder
        while folder != top and top in folder.parents:
            folder = folder.parent
            yield folder


def _quota(folder: Path) -> float | None:
    """Cores' worth of time that a group gets; None without a limit."""
    words = (_lines(folder / "cpu.max") or [""])[0].split()
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _memory_limit(folder: Path) -> int | None:
    limits = [_number(folder / name) for name in ("memory.max", "memory.limit_in_bytes")]
    return min((limit for limit in limits if limit is not None and limit < _UNLIMITED), default=None)


def _of_files(folder: Path) -> int:
    """Bytes of a group that are copies of files, which are given up when they are needed."""
    values = dict(line.split() for line in _lines(folder / "memory.stat"))
    names = ("active_file", "inactive_file")
    return sum(int(values.get(f"total_{name}", values.get(name, 0))) for name in names)


def _number(file: Path, default: int | None = None) -> int | None:
    lines = _lines(file)
    return int(lines[0]) if lines and re.fullmatch(r"-?\d+", lines[0]) else default


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
