"""What a card can do at best, measured: the ceilings beside which other figures stand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def per_second(run: Callable[[], int], device: torch.device) -> float:
    """What ``run`` returns, such as a number of images, for each second of it; on a GPU by events on the stream."""
    if device.type == "cpu":
        begin = time.perf_counter()
        return run() / (time.perf_counter() - begin)
    torch.cuda.synchronize(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    count = run()
    end.record()
    end.synchronize()
    return 1000 * count / start.elapsed_time(end)


def _median(run: Callable[[], int], device: torch.device) -> float:
    """Of 5 rounds after one that does not count."""
    run()
    return statistics.median(per_second(run, device) for _ in range(5))


def matmul_rate(device: torch.device, size: int = 8192, times: int = 20) -> float:
    """FLOP/s of bf16 matrix products."""
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))

    def multiply() -> int:
        for _ in range(times):
            torch.mm(left, right)
        return 2 * size**3 * times

    return _median(multiply, device)


def copy_rate(device: torch.device, size: int = 1 << 30, times: int = 10) -> float:
    """Bytes/s of the device's memory, read and written ones added up."""
    source = torch.randint(256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> int:
        for _ in range(times):
            target.copy_(source)
        return 2 * size * times

    return _median(copy, device)


def upload_rate(device: torch.device, size: int = 1 << 28, times: int = 4) -> float:
    """Bytes/s from the host's pinned memory to the device."""
    source = torch.zeros(size, dtype=torch.uint8).pin_memory() if device.type == "cuda" else torch.zeros(size)
    target = torch.empty_like(source, device=device)

    def copy() -> int:
        for _ in range(times):
            target.copy_(source, non_blocking=True)
        return source.nbytes * times

    return _median(copy, device)
