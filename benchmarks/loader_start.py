"""Seconds and memory that a training process spends in the loader up to its first batch.

    python benchmarks/loader_start.py FILE.beton [--runs 5] [--workers 2]
    python benchmarks/loader_start.py --synthetic 1281167 [--workdir FOLDER]

The second form writes a file of that many tiny JPEGs (16 to 24 px, 64 different ones), with manifest and index. Each
run is a new process; imports are not counted, only what the loader adds to them until the first batch of 256 images at
160 px is there. The first run may compile the decoding loop, which is then kept on disk: it is not counted. Stock FFCV
and this project take turns. Memory is VmRSS of /proc/self/status, which includes the pages of mapped files, and
RssAnon, which does not; the peak is VmHWM, of the process with its imports. Opening (header, tables and manifest, all
checked) is timed once more, alone, after the first batch.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

FIGURES = {
    "seconds": "seconds",
    "opening": "of which opening the file",
    "growth": "resident MiB added",
    "anonymous": "of which not of files",
    "resident": "resident MiB in all",
    "peak": "peak resident MiB in all",
}


def start(contender: str, beton: Path, workers: int) -> dict[str, float]:
    """Make a loader, get its first batch; returns :data:`FIGURES`."""
    import ffcv.loader
    import ffcv.reader
    import torch  # noqa: F401
    from contenders import Settings, project, stock_ffcv

    import ffcv_imagenet.data.read.loader  # noqa: F401
    from ffcv_imagenet.data.format.beton import read_samples
    from ffcv_imagenet.data.format.manifest import Manifest

    samples = Manifest.read(beton).num_samples
    settings = Settings(resolution=160, batch_size=min(256, samples), num_workers=workers)
    before, begin = memory(), time.perf_counter()
    if contender == "ffcv_imagenet":
        epoch = project(beton, samples, settings)
    else:
        epoch = stock_ffcv(SimpleNamespace(beton=beton), settings)
    batches = iter(epoch(0))
    next(batches)
    seconds, after = time.perf_counter() - begin, memory()
    begin = time.perf_counter()  # once more, alone
    if contender == "ffcv_imagenet":
        read_samples(beton, Manifest.read(beton))
    else:
        ffcv.reader.Reader(str(beton))
    return {
        "seconds": seconds,
        "opening": time.perf_counter() - begin,
        "growth": after["VmRSS"] - before["VmRSS"],
        "anonymous": after["RssAnon"] - before["RssAnon"],
        "resident": after["VmRSS"],
        "peak": after["VmHWM"],
    }


def memory() -> dict[str, float]:
    """This process's memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}


def write_synthetic(beton: Path, samples: int) -> None:
    """A file of ``samples`` tiny JPEGs in 1,000 classes, with manifest and index."""
    from prepare import write_repeated

    from ffcv_imagenet import native

    generator = np.random.default_rng(0)
    sizes = generator.integers(16, 25, (64, 2)).tolist()
    pixels = (generator.integers(0, 256, (height, width, 3), np.uint8) for height, width in sizes)
    write_repeated([native.write_jpeg(image, 50)[0] for image in pixels], beton, samples)


def measure(beton: Path, runs: int, workers: int) -> str:
    """A Markdown table: median (min to max) of each figure and contender."""
    results: dict[str, list[dict[str, float]]] = {"ffcv_imagenet": [], "FFCV": []}
    for _ in range(runs + 1):
        for contender, figures in results.items():
            command = [sys.executable, __file__, str(beton), f"--workers={workers}", f"--once={contender}"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            figures.append(json.loads(done.stdout.splitlines()[-1]))
    rows = [f"| | {' | '.join(FIGURES.values())} |", "|---" * (len(FIGURES) + 1) + "|"]
    for contender, figures in results.items():
        cells = []
        for key in FIGURES:
            values = [figure[key] for figure in figures[1:]]
            digits = 2 if key in ("seconds", "opening") else 0
            median, low, high = statistics.median(values), min(values), max(values)
            cells.append(f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
        rows.append(f"| {contender} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("beton", type=Path, nargs="?")
    parser.add_argument("--synthetic", type=int, help="write and measure a file of this many images")
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "ffcv_imagenet_start")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if (arguments.beton is None) == (arguments.synthetic is None):
        parser.error("give either a file or --synthetic")
    if arguments.once:
        print(json.dumps(start(arguments.once, arguments.beton, arguments.workers)))
        sys.stdout.flush()
        os._exit(0)  # stock FFCV's thread may wait for ever
    beton = arguments.beton
    if beton is None:
        arguments.workdir.mkdir(parents=True, exist_ok=True)
        beton = arguments.workdir / f"{arguments.synthetic}.beton"
        if not beton.with_name(beton.name + ".json").is_file():
            write_synthetic(beton, arguments.synthetic)
    size = beton.stat().st_size / 1e6
    now = datetime.datetime.now(datetime.UTC)
    print(f"{now:%Y-%m-%d %H:%M} UTC, {arguments.workers} workers, {arguments.runs} runs, {size:.0f} MB, load average "
          f"before the start {os.getloadavg()[0]:.2f}; median (min to max)\n")  # fmt: skip
    print(measure(beton, arguments.runs, arguments.workers))


if __name__ == "__main__":
    main()
