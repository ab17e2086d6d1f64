"""numba's compiler for this package's functions."""

from __future__ import annotations

import functools
import sys

import numba
from numba.core.caching import CompileResultCacheImpl


def _has_cache_folder() -> bool:
    """Whether numba has a folder for what it compiles: next to the source, of the user, or NUMBA_CACHE_DIR."""
    try:
        CompileResultCacheImpl(_has_cache_folder)
    except RuntimeError:
        print(
            "warning: there is no folder that numba can write compiled functions to, so they are compiled at every "
            "start; NUMBA_CACHE_DIR=FOLDER in the environment names one",
            file=sys.stderr,
        )
        return False
    return True


#: ``numba.njit`` whose results are kept on the disk, where that is possible.
njit = functools.partial(numba.njit, cache=_has_cache_folder())
