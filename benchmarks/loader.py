"""Compare the images/s and the memory of data loaders on this machine's CPU. README.md says how it is measured."""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import os
import shlex
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import packages_distributions, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from contenders import CONTENDERS, DataSet, Settings

#: Contender, reference, and how many times as fast it is to be at each resolution.
SPEED_TARGETS = (
    ("project", "ffcv", {160: 3.5, 224: 3.3}),
    ("project-index", "ffcv", {160: 4.5, 224: 4.2}),
    ("project", "dali", {160: 3.0, 224: 3.0}),
    ("project-index", "dali", {160: 3.0, 224: 3.0}),
)

#: Share of FFCV's resident memory that the project's may take.
MEMORY_TARGET = 0.4
MEMORY_CONTENDERS = ("project", "project-index", "ffcv")
MEMORY_RESOLUTION = 160

WORKDIR = Path(tempfile.gettempdir()) / "ffcv_imagenet_benchmark"


class Measurement(NamedTuple):
    """One epoch in a contender's process, and the process's memory after it, in bytes."""

    images_per_second: float
    peak_resident: int
    resident_files: int


class ContenderProcess:
    """A process with one contender, pinned to as many cores as it has workers, stopped between its epochs.

    Stopped, because a loader may go on after an epoch: DALI reads files ahead for a third of a second, which would be
    taken from whoever is measured next.
    """

    def __init__(self, key: str, data: DataSet, settings: Settings):
        self.title = CONTENDERS[key].title
        cores = sorted(os.sched_getaffinity(0))[: settings.num_workers]
        context = multiprocessing.get_context("spawn")  # nothing of what this process has imported
        self._connection, child = context.Pipe()
        self._process = context.Process(target=_serve_epochs, args=(child, key, data, settings, cores))
        self._process.start()
        child.close()

    def measure(self, epoch: int) -> Measurement:
        try:
            self._signal(signal.SIGCONT)
            self._connection.send(epoch)
            measurement = self._connection.recv()
            self._signal(signal.SIGSTOP)
        except (EOFError, OSError):
            raise SystemExit(f"error: {self.title} failed, see above") from None
        return measurement

    def close(self) -> None:
        self._connection.close()
        self._signal(signal.SIGCONT)
        self._process.join()

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its workers; to nothing before it has begun and after it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _serve_epochs(connection: Connection, key: str, data: DataSet, settings: Settings, cores: Sequence[int]) -> None:
    """Run one epoch for every number that comes through ``connection``, until that is closed."""
    os.setpgid(0, 0)
    os.sched_setaffinity(0, cores)  # before any package looks how many threads it may start
    batches = CONTENDERS[key].build(data, settings)
    while True:
        try:
            epoch = connection.recv()
        except EOFError:
            return
        num_images = 0
        start = time.perf_counter()
        for batch in batches(epoch):
            side = settings.resolution
            if tuple(batch.shape[1:]) not in ((side, side, 3), (3, side, side)) or "uint8" not in str(batch.dtype):
                raise ValueError(f"{key} gave a batch {tuple(batch.shape)} {batch.dtype}")
            num_images += len(batch)
        seconds = time.perf_counter() - start
        connection.send(Measurement(num_images / seconds, _memory("VmHWM"), _memory("RssFile")))


def _memory(field: str) -> int:
    """A field of this process's memory use in bytes, see proc_pid_status(5)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def measure_speed(keys: Sequence[str], data: DataSet, settings: Settings, epochs: int) -> dict[str, list[float]]:
    """Images/s of every contender in every round; a round is an epoch of each of them, one after the other."""
    processes: dict[str, ContenderProcess] = {}
    rates: dict[str, list[float]] = {key: [] for key in keys}
    try:
        for key in keys:
            _progress(f"{_condition(settings)}: warming up {CONTENDERS[key].title}")
            processes[key] = ContenderProcess(key, data, settings)
            processes[key].measure(0)
        for epoch in range(1, epochs + 1):
            _progress(f"{_condition(settings)}: round {epoch} of {epochs}")
            for key, process in processes.items():
                rates[key].append(process.measure(epoch).images_per_second)
    finally:
        for process in processes.values():
            process.close()
    return rates


def measure_memory(key: str, data: DataSet, settings: Settings) -> Measurement:
    """Memory of a contender after two epochs."""
    _progress(f"memory of {CONTENDERS[key].title}")
    process = ContenderProcess(key, data, settings)
    try:
        process.measure(0)
        return process.measure(1)
    finally:
        process.close()


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _condition(settings: Settings) -> str:
    return f"{settings.resolution} px, {settings.num_workers} worker{'s' * (settings.num_workers > 1)}"


def _verdict(reached: bool) -> str:
    return "met" if reached else "**not met**"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose columns also line up in a terminal."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (head, rule, *rows)
    ]


def speed_tables(results: dict[Settings, dict[str, list[float]]]) -> list[str]:
    """Lines of the tables of images/s and of their ratios."""
    head = ["", *map(_condition, results)]
    keys = list(next(iter(results.values())))
    rows = []
    for key in keys:
        row = [CONTENDERS[key].title]
        for rates in results.values():
            row.append(f"{statistics.median(rates[key]):.0f} ({min(rates[key]):.0f}-{max(rates[key]):.0f})")
        rows.append(row)
    lines = ["Images/s: median of the epochs (min-max)", "", *table(head, rows)]
    rows = []
    for key, reference, targets in SPEED_TARGETS:
        if key not in keys or reference not in keys:
            continue
        row = [f"{CONTENDERS[key].title} : {CONTENDERS[reference].title}"]
        for settings, rates in results.items():
            ratio = statistics.median(rates[key]) / statistics.median(rates[reference])
            target = targets.get(settings.resolution)
            row.append(f"{ratio:.2f}" + (f", target {target}: {_verdict(ratio >= target)}" if target else ""))
        rows.append(row)
    return [*lines, "", "Ratios of the medians", "", *table(head, rows)] if rows else lines


def memory_table(memory: dict[str, Measurement], settings: Settings) -> list[str]:
    """Lines of the table of resident memory."""
    rows = []
    for key, measured in memory.items():
        share = ""
        if key != "ffcv" and "ffcv" in memory:
            ratio = measured.peak_resident / memory["ffcv"].peak_resident
            share = f"{100 * ratio:.0f} %, target {100 * MEMORY_TARGET:.0f} %: {_verdict(ratio <= MEMORY_TARGET)}"
        mebibytes = (measured.peak_resident / 2**20, measured.resident_files / 2**20)
        rows.append([CONTENDERS[key].title, *(f"{number:.0f}" for number in mebibytes), share])
    head = ["", "peak resident MiB", "of which mapped files", f"of {CONTENDERS['ffcv'].title}'s"]
    return [f"Memory: batch {settings.batch_size}, {_condition(settings)}", "", *table(head, rows)]


def header(arguments: argparse.Namespace, data: DataSet, load: float) -> list[str]:
    """Lines that say on what and with what the benchmark ran."""
    import torch

    from ffcv_imagenet.data.format.beton import read_samples
    from ffcv_imagenet.run.folder import describe_environment

    kilobytes = read_samples(data.beton).size.mean() / 1000
    environment = describe_environment(torch.device("cpu"))
    hardware, versions, git = environment["hardware"], environment["versions"], environment["git"]
    for module in ("cv2", "nvidia", "webdataset"):
        for package in packages_distributions().get(module, []):
            if module != "nvidia" or "dali" in package:
                versions[package] = version(package)
    commit = f", commit {git['commit'][:10]}{' with changes' * git['changed']}" if git else ""
    return [
        f"- {hardware['device']}, {hardware['cpu_cores']} cores, load average before the start {load:.2f}",
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC{commit}",
        f"- {', '.join(f'{name} {number}' for name, number in sorted(versions.items()))}",
        f"- {data.num_samples} images per epoch, {kilobytes:.1f} kB on average; batch {arguments.batch}; "
        f"{arguments.epochs} epochs, interleaved",
        f"- `python {shlex.join(sys.argv)}`",
    ]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="image folder, FOLDER/<class>/<image>")
    parser.add_argument("--workdir", type=Path, default=WORKDIR, help=f"where the data is prepared, once: {WORKDIR}")
    parser.add_argument("--workers", type=numbers, default=[1, 2], help="threads or processes that decode: 1,2")
    parser.add_argument("--resolutions", type=numbers, default=[160, 224], help="pixels: 160,224")
    parser.add_argument("--epochs", type=int, default=5, help="epochs that are measured, after one that is not")
    parser.add_argument("--epoch-images", type=int, default=4000, help="rounded up to whole batches")
    parser.add_argument("--batch", type=int, default=256, help="images per batch")
    parser.add_argument("--memory-batch", type=int, default=512, help="batch where memory is measured, 0: it is not")
    parser.add_argument("--contenders", type=lambda text: text.split(","), default=list(CONTENDERS), help="a,b,...")
    parser.add_argument("--markdown", type=Path, help="file for the tables, which are always printed")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.contenders) - set(CONTENDERS):
        parser.error(f"--contenders: got {', '.join(sorted(unknown))}, allowed are {', '.join(CONTENDERS)}")
    if max(arguments.workers) > len(os.sched_getaffinity(0)):
        parser.error(f"--workers: allowed are at most the {len(os.sched_getaffinity(0))} cores")
    if arguments.memory_batch > arguments.epoch_images:
        parser.error("--memory-batch: allowed are at most --epoch-images")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the data, measure, print the tables."""
    arguments = _parse(argv)
    load = os.getloadavg()[0]
    from prepare import prepare  # not at the top: the contenders' processes import this file, and nothing of torch

    arguments.workdir.mkdir(parents=True, exist_ok=True)
    num_samples = math.ceil(arguments.epoch_images / arguments.batch) * arguments.batch
    data = prepare(arguments.images, arguments.workdir, num_samples)
    keys = [key for key in arguments.contenders if CONTENDERS[key].is_installed()]
    absent = [CONTENDERS[key].title for key in arguments.contenders if key not in keys]

    results = {}
    for resolution in arguments.resolutions:
        for num_workers in arguments.workers:
            settings = Settings(resolution, arguments.batch, num_workers)
            results[settings] = measure_speed(keys, data, settings, arguments.epochs)
    settings = Settings(MEMORY_RESOLUTION, arguments.memory_batch, max(arguments.workers))
    memory = {}
    if arguments.memory_batch:
        memory = {key: measure_memory(key, data, settings) for key in keys if key in MEMORY_CONTENDERS}

    lines = [*header(arguments, data, load), "", *speed_tables(results)]
    if memory:
        lines += ["", *memory_table(memory, settings)]
    if absent:
        lines += ["", f"Skipped, not installed: {', '.join(absent)} (`pip install -e '.[bench]'` installs all)"]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if arguments.markdown:
        arguments.markdown.write_text(text)


if __name__ == "__main__":
    main()
