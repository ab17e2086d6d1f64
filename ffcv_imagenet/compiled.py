"""numba's compiler: where its threads come from, and its cache on disk.

The cache is a convenience: what can't be kept is compiled again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache

from ffcv_imagenet.names import shown

if "NUMBA_THREADING_LAYER" not in os.environ:
    # OpenMP, of which torch brings a copy: one library of threads in a process, the same everywhere. By itself numba
    # would take TBB where the system has it, or even its own threads, which two loaders must not use at once.
    numba.config.THREADING_LAYER = "omp"  # type: ignore[attr-defined]


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


_CACHED = _has_cache_folder()


class _OptionalCache(FunctionCache):
    """numba's cache of a function; a full or read-only disk only costs a warning."""

    warned = False

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep compiled code; warns once per process if that fails."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            if not _OptionalCache.warned:
                _OptionalCache.warned = True
                reason = f"compiled code is not kept in {shown(self.cache_path)}: {error.strerror}"
                print(f"warning: {reason}; the next start compiles it again", file=sys.stderr)


def cached_njit(**options: Any) -> Callable[[Callable], Any]:
    """``numba.njit(cache=True, ...)``, except that a cache that can't be written is not an error."""

    def decorate(function: Callable) -> Any:
        dispatcher = numba.njit(**options)(function)
        if _CACHED:
            dispatcher._cache = _OptionalCache(function)
        return dispatcher

    return decorate
