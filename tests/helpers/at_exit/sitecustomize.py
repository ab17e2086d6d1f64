"""On PYTHONPATH, this writes the names of a process's threads when Python ends, to ``$THREADS_AT_EXIT/<pid>``."""

import atexit
import os
from pathlib import Path


def _write_names():
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    Path(os.environ["THREADS_AT_EXIT"], str(os.getpid())).write_text("".join(names))


if "RANK" in os.environ:  # not torchrun itself
    atexit.register(_write_names)  # the first one, so that it is the last one that is called
