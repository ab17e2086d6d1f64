"""numba's compiler with its cache on the disk. The cache is a convenience: what can't be kept is compiled again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache

from ffcv_imagenet.names import shown


class _OptionalCache(FunctionCache):
    """numba's cache of a function, which a full or read-only disk does not end."""

    warned = False

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep compiled code; says once per process where that fails."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            if not _OptionalCache.warned:
                _OptionalCache.warned = True
                reason = f"compiled code is not kept in {shown(self.cache_path)}: {error.strerror}"
                print(f"warning: {reason}; the next start compiles it again", file=sys.stderr)


def cached_njit(**options: Any) -> Callable[[Callable], Any]:
    """``numba.njit(cache=True, ...)``, except that a cache that can't be written is no error."""

    def decorate(function: Callable) -> Any:
        dispatcher = numba.njit(**options)(function)
        dispatcher._cache = _OptionalCache(function)
        return dispatcher

    return decorate
