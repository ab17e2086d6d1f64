"""Images/s from a .beton that is larger than the memory.

    python benchmarks/beyond_memory.py --images FOLDER [--gigabytes 8] [--memory 3.3] [--seconds 30]

The memory is that of a control group (Linux; making one takes root), in which each run, a new process, begins with
nothing of the file in memory. A run's time starts with its second batch, so that no compilation is in it. What the disk
had to read is read_bytes of /proc/self/io. This project's orders and FFCV's take turns.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CONTENDERS = {
    "random": "ffcv_imagenet, `data.order=random`",
    "quasi_random": "ffcv_imagenet, `data.order=quasi_random`",
    "ffcv-os-cache": "FFCV, `RANDOM`, `os_cache=True`",
    "ffcv-quasi-random": "FFCV, `QUASI_RANDOM`, `os_cache=False`",
}
CONTROL_GROUPS = Path("/sys/fs/cgroup")
GROUP = "ffcv_imagenet_beyond_memory"


def batches(contender: str, beton: Path) -> Iterable[Any]:
    """Batches of 256 random crops of 160 px of an epoch."""
    from contenders import Settings, project, stock_ffcv

    from ffcv_imagenet.data.format.manifest import Manifest

    settings = Settings(resolution=160, batch_size=256, num_workers=len(os.sched_getaffinity(0)))
    if contender in ("random", "quasi_random"):
        samples = Manifest.read(beton).num_samples
        return project(beton, samples, settings, quasi_random=contender == "quasi_random")(0)
    return stock_ffcv(SimpleNamespace(beton=beton), settings, quasi_random=contender == "ffcv-quasi-random")(0)


def measure(contender: str, beton: Path, seconds: float, memory: int) -> dict[str, float]:
    """Images/s, and kB that the disk read per image, of this process with ``memory`` bytes."""
    for file in beton.parent.glob(f"{beton.name}*"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    enter_group(memory)
    images, begin, bytes_before = 0, 0.0, 0
    for batch in batches(contender, beton):
        if not begin:
            begin, bytes_before = time.perf_counter(), bytes_read()
            continue
        images += len(batch)
        if time.perf_counter() - begin > seconds:
            break
    passed, read = time.perf_counter() - begin, bytes_read() - bytes_before
    return {"rate": images / passed, "read": read / images / 1e3}


def bytes_read() -> int:
    """Bytes that the disk has read for this process."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    raise KeyError("read_bytes")


def enter_group(memory: int) -> None:
    """Limit the memory of this process, and what is kept of the files that it reads, to ``memory`` bytes."""
    old = CONTROL_GROUPS / "memory"
    parent, limit = (old, "memory.limit_in_bytes") if old.is_dir() else (CONTROL_GROUPS, "memory.max")
    group = parent / GROUP
    try:
        group.mkdir(exist_ok=True)
        (group / limit).write_text(str(memory))
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        raise SystemExit(
            f"error: a control group with a limit of memory cannot be made ({error}); run as root"
        ) from None


def kernel_read_around(file: Path) -> str:
    """How much the system reads around a missing page of a mapped file, unless it is told otherwise."""
    device = file.stat().st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    for queue in (block / "queue", block.resolve().parent / "queue"):
        if (queue / "read_ahead_kb").is_file():
            return f"{(queue / 'read_ahead_kb').read_text().strip()} KiB"
    return "unknown"


def run(contender: str, beton: Path, seconds: float, memory: int) -> dict[str, float] | None:
    """:func:`measure` in a new process; None when the system has killed it for its memory."""
    command = [sys.executable, __file__, f"--once={contender}", f"--seconds={seconds}", f"--memory={memory / 1e9}"]
    done = subprocess.run([*command, str(beton)], stdout=subprocess.PIPE, text=True)
    if done.returncode == -signal.SIGKILL:
        return None
    if done.returncode != 0:
        raise SystemExit(f"error: {CONTENDERS[contender]} failed, see above")
    return json.loads(done.stdout.splitlines()[-1])


def make_file(images: Path, workdir: Path, gigabytes: float) -> Path:
    """A .beton of that size: JPEGs of 500 px and quality 90 made of the images, repeated; kept for the next time."""
    from prepare import jpegs_of, prepare, write_repeated

    from ffcv_imagenet.data.format.manifest import Manifest

    jpegs = jpegs_of(prepare(images, workdir, 4096).beton)
    samples = int(gigabytes * 1e9 * len(jpegs) / sum(map(len, jpegs)))
    beton = workdir / f"beyond_memory_{samples}.beton"
    if not Manifest.path(beton).is_file():
        write_repeated(jpegs, beton, samples)
    return beton


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("beton", type=Path, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=Path, help="image folder, FOLDER/<class>/<image>")
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "ffcv_imagenet_benchmark")
    parser.add_argument("--gigabytes", type=float, default=8.0, help="size of the file: %(default)s")
    parser.add_argument("--memory", type=float, default=3.3, help="gigabytes of memory: %(default)s")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a run: %(default)s")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    memory = int(arguments.memory * 1e9)
    if arguments.once:
        print(json.dumps(measure(arguments.once, arguments.beton, arguments.seconds, memory)))
        sys.stdout.flush()
        os._exit(0)  # stock FFCV's thread may wait for ever
    if arguments.images is None:
        parser.error("--images is missing")
    beton = make_file(arguments.images, arguments.workdir, arguments.gigabytes)
    now, workers = datetime.datetime.now(datetime.UTC), len(os.sched_getaffinity(0))
    print(
        f"{now:%Y-%m-%d %H:%M} UTC, {workers} workers, file {beton.stat().st_size / 1e9:.1f} GB, memory "
        f"{arguments.memory:g} GB, {arguments.runs} runs of {arguments.seconds:g} s, the kernel reads "
        f"{kernel_read_around(beton)} around a missing page, load average before the start {os.getloadavg()[0]:.2f}; "
        f"median (min to max)\n\n| loader | images/s | kB read per image |\n|---|---|---|",
        flush=True,
    )
    results: dict[str, list[dict[str, float] | None]] = {contender: [] for contender in CONTENDERS}
    for _ in range(arguments.runs):
        for contender, outcomes in results.items():
            outcomes.append(run(contender, beton, arguments.seconds, memory))
    for contender, outcomes in results.items():
        cells = []
        for key in ("rate", "read"):
            values = [outcome[key] for outcome in outcomes if outcome is not None]
            cells.append(f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})" if values else "-")
        if killed := outcomes.count(None):
            cells[0] += f", {killed} of {len(outcomes)} runs killed: out of memory"
        print(f"| {CONTENDERS[contender]} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
