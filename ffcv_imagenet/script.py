"""How every command begins and ends: its output, exit statuses, and a user's mistake as one line."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ffcv_imagenet.names import shown

#: Exit status of an entry script after a user's mistake.
USER_ERROR_STATUS = 2

#: Exit status of a training that a signal of the system has stopped, with everything saved: start it again (sysexits.h
#: calls it EX_TEMPFAIL).
REQUEUE_STATUS = 75

#: Exit status after Ctrl-C.
INTERRUPTED_STATUS = 130


class OneLineParser(argparse.ArgumentParser):
    """A parser whose mistakes are ValueErrors, which :func:`run_script` shows as one line."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(f"{message} (see --help)")


def run_script(main: Callable[[Sequence[str]], None]) -> None:
    """Run an entry script's ``main(argv)``; a user's mistake becomes one line on stderr and exit status 2.

    So does what the machine refuses (a full disk, a file without permission). With FFCV_IMAGENET_TRACEBACK=1 in the
    environment the traceback is shown instead.
    """
    keep_output()
    try:
        main(sys.argv[1:])
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("FFCV_IMAGENET_TRACEBACK") == "1":
            raise
        rank = os.environ.get("RANK", "0")
        text = "\n".join(shown(line) for line in str(error).split("\n"))  # the names in it may hold anything
        print(f"error: {text}" if rank == "0" else f"error on rank {rank}: {text}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED_STATUS)


def command_line(argv: Sequence[str]) -> list[str]:
    """The words after ``python`` that started this program with the arguments ``argv``: a file's, or ``-m MODULE``."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [*([sys.argv[0]] if spec is None else ["-m", spec.name.removesuffix(".__main__")]), *argv]


class _LossyFile(io.FileIO):
    """A file descriptor to write to, which takes what cannot be written as written."""

    def write(self, data: Any) -> int:
        """Write ``data`` if that is possible; returns how many bytes of it were written or left out."""
        try:
            written = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


def keep_output() -> None:
    """From now on, a line that cannot be printed is left out: the disk is full, or the pipe has no reader any more.

    A training is worth more than its output, which its log holds too. Standard streams that are closed become
    /dev/null, so that no other file gets their number, to which libraries print.
    """
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:
        os.set_inheritable(null, True)
        null = os.dup(null)
    os.close(null)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.TextIOWrapper(_LossyFile(number, "w", closefd=False), "utf-8", write_through=True))
        elif stream is getattr(sys, f"__{name}__"):
            raw = _LossyFile(number, "w", closefd=False)
            kept = io.TextIOWrapper(
                raw if stream.write_through else io.BufferedWriter(raw),
                stream.encoding,
                stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, kept)
