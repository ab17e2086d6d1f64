"""Who writes into a run's folder: one process at a time, for as long as it lives.

The lock is flock(2) on ``lock`` in the folder. The kernel lets go of it when the process ends, however it ends, so that
the file that is left says nothing. On NFS it holds between machines where the server has locking (version 4 has;
not with the mount option ``local_lock``).
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_NAME = "lock"
#: A killed process may need a moment to be gone, and is_active holds the lock for a moment.
_PATIENCE_SECONDS = 2.0


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Be the one that writes into ``folder`` for the length of a ``with`` block; makes the folder.

    Raises:
        BlockingIOError: another process writes into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _NAME).open("a") as file:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _lock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise BlockingIOError(f"{folder}: another process is writing this run; allowed is one at a time")
            time.sleep(0.1)
        yield


def is_active(folder: Path) -> bool:
    """Whether a process, on any machine that sees the folder, is writing the run in ``folder`` now."""
    try:
        with (folder / _NAME).open() as file:
            return not _lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
