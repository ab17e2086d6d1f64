"""The processes of a run: started on a slot, recognised by any process that looks, and ended together.

Two things tie a run to its processes, however they were started and whatever happened to the sweep:

- Their output goes to ``output.txt`` in the run folder, which is locked (``flock``). The lock belongs to the open
  file, which every process of the run inherits, so that the kernel gives it back when the last of them is gone.
- The run's folder is in their environment, which ``/proc`` shows. torchrun's workers are in sessions of their own;
  by this they are found all the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import fcntl
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from ffcv_imagenet.run import lock as run_lock
from ffcv_imagenet.sweep.devices import Slot

OUTPUT = "output.txt"
_MARK = "FFCV_IMAGENET_RUN"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def start(command: Sequence[str], folder: Path, slot: Slot) -> subprocess.Popen[bytes] | None:
    """Start a run's command on a slot, its output added to ``output.txt``; None when the run is active already.

    It gets SIGTERM when the calling thread dies, also by SIGKILL.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if run_lock.is_active(folder):
        return None
    environment = dict(os.environ) | {_MARK: str(folder.resolve())}
    if slot.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpus)
    parent = os.getpid()

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # It died before the line above.
            os._exit(1)
        os.sched_setaffinity(0, slot.cores)

    with (folder / OUTPUT).open("ab") as output:
        try:
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        now = datetime.datetime.now().isoformat(" ", "seconds")
        output.write(f"\n[{now}] {slot}: {shlex.join(command)}\n".encode(errors="surrogateescape"))
        output.flush()
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C on the terminal is the sweep's business.
            preexec_fn=prepare,
        )


def is_active(folder: Path) -> bool:
    """Whether any process of the run is alive, on whichever machine that sees the folder."""
    try:
        with (folder / OUTPUT).open("rb") as output:
            fcntl.flock(output, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except BlockingIOError:
        return True
    return run_lock.is_active(folder)  # started by hand


def processes_of(folder: Path) -> list[int]:
    """Process numbers of the run on this machine."""
    mark = f"{_MARK}={folder.resolve()}"
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if mark in _environment(path)]


def holds(process: int, slot: Slot) -> bool:
    """Whether a process uses a GPU of the slot; where the slot has none, whether it uses a core of it."""
    with contextlib.suppress(ProcessLookupError):
        if not slot.gpus:
            return not os.sched_getaffinity(process).isdisjoint(slot.cores)
        for entry in _environment(Path(f"/proc/{process}")):
            if entry.startswith("CUDA_VISIBLE_DEVICES="):
                return not set(entry.partition("=")[2].split(",")).isdisjoint(slot.gpus)
    return False


def kill(folder: Path) -> None:
    """End all processes of the run at once; returns when they are gone or cannot be ended within 10 seconds."""
    deadline = time.monotonic() + 10
    while (processes := processes_of(folder)) and time.monotonic() < deadline:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def last_error(folder: Path, start: int) -> str:
    """The line of the output from byte ``start`` on that says best what went wrong: "" when there is none.

    That is our own ``error: ...``, else the last exception, else the last line.
    """
    with (folder / OUTPUT).open("rb") as output:
        output.seek(start)
        text = output.read().decode(errors="replace")
    # torchrun puts the rank before a traceback's lines, and ends with an exception of its own.
    lines = [re.sub(r"^\[rank\d+\]: ?", "", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line and "ChildFailedError" not in line]
    ours = r"error( on rank \d+)?: "
    for pattern in (ours + "(?!another process has ended)", r"[\w.]*(Error|Exception)\b", ours, ""):
        for line in reversed(lines):
            if re.match(pattern, line):
                return line
    return ""


def _environment(path: Path) -> list[str]:
    """The environment of the process that ``/proc/N`` is about; nothing of those that are gone or someone else's."""
    try:
        return os.fsdecode((path / "environ").read_bytes()).split("\0")
    except OSError:
        return []
