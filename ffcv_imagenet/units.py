"""Durations, rates and numbers of bytes in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 20 min``, ``2 d 5 h``."""
    minutes = round(seconds / 60)
    if seconds < 99:
        return f"{seconds:.0f} s"
    if minutes < 99:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60:02d} min" if hours < 99 else f"{hours // 24} d {hours % 24} h"


def size(num_bytes: float) -> str:
    """``512 bytes``, ``3.2 MiB``, ``78 GiB``: three digits at most."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if num_bytes >= factor:
            number = num_bytes / factor
            return f"{number:.0f} {unit}" if number >= 9.95 else f"{number:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def rate(per_second: float) -> str:
    """``1,234``, ``12``, ``1.2``: two digits at least."""
    return f"{per_second:,.0f}" if per_second >= 9.95 else f"{per_second:.1f}"
