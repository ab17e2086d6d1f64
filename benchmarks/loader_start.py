"""Seconds that a training process spends in the loader before its first batch.

    python benchmarks/loader_start.py FILE.beton [--runs 5] [--workers 2]

Each run is a new process; imports are not counted. The first run may compile the decoding loop, which is then kept on
disk; the median is over the runs after it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path


def start(beton: Path, workers: int) -> None:
    """Make a loader, get its first batch, print the seconds that took."""
    import torch

    from ffcv_imagenet.data.decode_cpu import RandomResizedCropDecoder
    from ffcv_imagenet.data.loader import BatchLoader
    from ffcv_imagenet.data.manifest import Manifest
    from ffcv_imagenet.data.orders import ShuffledOrder

    begin = time.perf_counter()
    samples = Manifest.read(beton).num_samples
    order = ShuffledOrder(samples, seed=0, global_batch=min(256, samples))
    loader = BatchLoader(
        beton,
        RandomResizedCropDecoder(160, seed=0),
        order,
        batch_size=min(256, samples),
        num_workers=workers,
        device=torch.device("cpu"),
    )
    batches = loader.epoch(0, 160)
    next(batches)
    print(time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("beton", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        start(arguments.beton, arguments.workers)
        return
    command = [sys.executable, __file__, str(arguments.beton), f"--workers={arguments.workers}", "--once"]
    seconds = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(arguments.runs + 1)
    ]
    rest = seconds[1:]
    print(
        f"first start {seconds[0]:.2f} s; later starts {statistics.median(rest):.2f} s "
        f"({min(rest):.2f} to {max(rest):.2f}, {arguments.runs} runs)"
    )


if __name__ == "__main__":
    main()
