"""When a tensor does not fit into memory: recognised, and what would fit found by trying."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Sequence

import torch

_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
#: What CUDA's libraries, and torch's allocator on a CPU, say; they have no exception of their own.
_SAID = re.compile(r"out of memory|OUT_OF_MEMORY|can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory of the device or the machine was too small."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


def asked_bytes(text: str) -> int | None:
    """The bytes that were asked for in vain, from torch's message; None where it does not say."""
    found = re.search(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]iB)", text, re.IGNORECASE)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None


def largest_fitting(attempt: Callable[[int], None], sizes: Sequence[int]) -> int | None:
    """The largest of ``sizes`` for which ``attempt(size)`` has enough memory; None where none has.

    What an attempt held is freed before the next one.
    """
    for size in sorted(sizes, reverse=True):
        fits = True
        try:
            attempt(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fits = False  # The exception holds the frames, and they the tensors, until the end of this block.
        free_memory()
        if fits:
            return size
    return None


def free_memory() -> None:
    """Give memory that nothing holds back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
