"""How every command ends: exit statuses, and a user's mistake as one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from ffcv_imagenet.names import shown

#: Exit status of an entry script after a user's mistake.
USER_ERROR_STATUS = 2

#: Exit status of a training that a signal of the system has stopped, with everything saved: start it again (sysexits.h
#: calls it EX_TEMPFAIL).
REQUEUE_STATUS = 75

#: Exit status after Ctrl-C.
INTERRUPTED_STATUS = 130


def run_script(main: Callable[[Sequence[str]], None]) -> None:
    """Run an entry script's ``main(argv)``; a user's mistake becomes one line on stderr and exit status 2.

    So does what the machine refuses (a full disk, a file without permission). With FFCV_IMAGENET_TRACEBACK=1 in the
    environment the traceback is shown instead.
    """
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
