"""Iterators that are left half-way: their threads end and their memory is free again.

python soak/abandoned.py [--iterators 1000]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from mutations import write_small

#: Resident memory of the process may differ by this much, in MiB; each iterator has 11 MiB of batches.
ALLOWED_MIB = 40

_BATCH, _RESOLUTION = 2, 640  # 12 batches, of which the thread has 5 ready before it waits


class Growth(NamedTuple):
    """What is there more of after the iterators than before: threads, open files, resident MiB."""

    threads: int
    files: int
    mib: float


def run(iterators: int, folder: Path, warm_up: int = 10) -> Growth:
    """Abandon ``iterators`` iterators after ``warm_up`` others, over a small file in ``folder``."""
    import torch

    from ffcv_imagenet.data.read.beton_file import BetonFile
    from ffcv_imagenet.data.read.decode_cpu import RandomResizedCropDecoder
    from ffcv_imagenet.data.read.loader_cpu import CPUBatchLoader
    from ffcv_imagenet.data.read.orders import ShuffledOrder

    beton = folder / "small.beton"
    samples = write_small(beton)
    decoder = RandomResizedCropDecoder(_RESOLUTION, seed=0)
    order = ShuffledOrder(samples, seed=0, global_batch=_BATCH)
    options = {"batch_size": _BATCH, "num_workers": 1, "device": torch.device("cpu")}
    loader = CPUBatchLoader(BetonFile.open(beton), decoder, order, **options)
    for number in range(warm_up + iterators):
        if number == warm_up:
            before = _usage()
        batches = loader.epoch(number, _RESOLUTION)
        for _ in range(number % 2 + 1):
            next(batches)
        del batches
    after = _usage()
    return Growth(*(b - a for a, b in zip(before, after, strict=True)))


def _usage() -> Growth:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(list(Path("/proc/self/fd").iterdir()))
    return Growth(threading.active_count(), files, pages * os.sysconf("SC_PAGESIZE") / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterators", type=int, default=1000)
    iterators = parser.parse_args().iterators
    with tempfile.TemporaryDirectory() as folder:
        growth = run(iterators, Path(folder))
    print(
        f"abandoned: {iterators} iterators: {growth.threads} more threads, {growth.files} more files, "
        f"{growth.mib:.1f} MiB more"
    )
    sys.exit(growth.threads > 0 or growth.files > 0 or growth.mib > ALLOWED_MIB)


if __name__ == "__main__":
    main()
