"""What the doctor says, on a page of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.doctor.examine import Examined
from ffcv_imagenet.doctor.machine import Disk, Machine
from ffcv_imagenet.doctor.verdict import HIGH_WAIT, Verdict, time_told
from ffcv_imagenet.names import shown
from ffcv_imagenet.units import rate, size

_WIDTH = 12


def machine_lines(machine: Machine) -> Iterator[str]:
    """What the machine is."""
    yield "Machine"
    cores = f"{machine.cores.usable} core{'s' if machine.cores.usable > 1 else ''} of {machine.processor}"
    if len(machine.numa) > 1:
        cores += f" (NUMA nodes: {', '.join(f'{node} with {count}' for node, count in machine.numa.items())})"
    yield _row("cores", cores)
    limit = "" if machine.memory.limited_by == "the machine" else f", set by {machine.memory.limited_by}"
    yield _row("memory", f"{size(machine.memory.available)} of {size(machine.memory.total)} available{limit}")
    for index, gpu in enumerate(machine.gpus):
        link = f", link {gpu.link}" if gpu.link else ""
        node = f", NUMA node {gpu.numa_node}" if gpu.numa_node is not None else ""
        yield _row(f"GPU {index}", f"{gpu.name}, {size(gpu.memory)}, compute capability {gpu.capability}{link}{node}")
    if not machine.gpus:
        yield _row("GPU", "none")
    if machine.driver:
        yield _row("CUDA", f"driver {machine.driver} for CUDA {machine.driver_cuda}, torch for {machine.torch_cuda}")
    for disk in machine.disks:
        yield _row("disk", _disk(disk))
    yield _row("/dev/shm", f"{size(machine.shm_free)} of {size(machine.shm)} free")
    yield _row("open files", f"at most {machine.open_files}")
    yield _row("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items()))
    yield _row("host", f"{machine.host}, {machine.system}")


def training_lines(config: TrainConfig, examined: Examined, recipe: str, data: str) -> Iterator[str]:
    """What is trained, and what each part reaches."""
    found = examined.findings
    micro = found.batch_size // (found.processes * found.accumulation)
    parts = f"{found.processes} process{'es' if found.processes > 1 else ''} x {found.accumulation} x {micro}"
    plan = ", ".join(f"{rates.epochs} at {rates.side} px" for rates in found.rates)
    yield "Training"
    name = "" if recipe == "none" else f"{shown(recipe)}: "
    yield _row("recipe", f"{name}{config.model.arch}, {found.precision}, {examined.parameters:,} parameters")
    yield _row("batch", f"{found.batch_size:,} = {parts} images; epochs: {plan}")
    yield _row("data", data)
    yield ""
    yield "What each part reaches, one process, images/s"
    step = "step" + ("" if found.compiled or found.device == "cpu" else ", not compiled")
    head = [
        "size",
        f"decoding ({found.workers} thread{'s' if found.workers > 1 else ''})",
        "per thread",
        step,
        "memory",
    ]
    if found.device == "cuda":
        head[3:3] = ["GPU decoding", "copying"]
    rows = []
    for rates in found.rates:
        each = rates.decode / found.workers if rates.decode and found.workers else None
        row = [f"{rates.side} px", _rate(rates.decode), _rate(each), _rate(rates.step)]
        row += ["does not fit" if rates.memory is None else size(rates.memory)]
        if found.device == "cuda":
            row[3:3] = [_rate(rates.gpu_decode), _rate(rates.copy)]
        rows.append(row)
    yield from _table([head, *rows])
    if found.device == "cpu" and any(images < micro for images in examined.timed.values()):
        timed = ", ".join(f"{images} at {side} px" for side, images in examined.timed.items())
        yield f"  (steps of {timed}; the memory of {micro} is counted up from them)"
    if (reading := examined.reading) is not None:
        cold = {True: "from the disk", False: "partly from memory: it could not be driven out", None: "cold or not: "
                "the system does not say"}[reading.cold]  # fmt: skip
        yield _row(
            "reading",
            f"in random order {_rate(reading.random_images)} ({size(reading.random_bytes)}/s), in pieces of 8 MiB "
            f"{_rate(reading.piece_images)} ({size(reading.piece_bytes)}/s), {cold}",
        )
    yield _row("evaluation", f"decoding {_rate(examined.val_decode)}, forward pass {_rate(examined.forward_rate)}")
    if examined.upload_bytes:
        yield _row("copying", f"{size(examined.upload_bytes)}/s to the GPU")
    if found.all_reduce is not None:
        gradients = size(4 * examined.parameters)
        yield _row("gradients", f"{gradients} averaged over {found.processes} in {1000 * found.all_reduce:.1f} ms")


def verdict_lines(verdict: Verdict, examined: Examined, notes: Sequence[str], *, times: bool) -> Iterator[str]:
    """The judgement: the limit, whether it fits, for how long, what to change; ``times`` are told for real data."""
    yield "Verdict"
    yield f"  {verdict.said[0].upper()}{verdict.said[1:]}."
    if verdict.waits > HIGH_WAIT:
        yield f"  The step has no data {100 * verdict.waits:.0f} % of the time."
    if verdict.fits:
        yield f"  Memory: {verdict.memory}."
    if times and verdict.training_seconds is not None:
        yield f"  Time: {time_told(verdict, sum(rates.epochs for rates in examined.findings.rates))}."
    for advice in verdict.advice:
        gain = "" if advice.gain is None else f": {advice.gain:.1f} x as fast"
        yield f"  - {advice.text}{gain}"
    if notes:
        yield ""
        yield "Notes"
        yield from (f"  - {note}" for note in notes)


def _row(name: str, text: str) -> str:
    return f"  {name:{_WIDTH}}{text}"


def _rate(value: float | None) -> str:
    return "-" if value is None else rate(value)


def _disk(disk: Disk) -> str:
    kind = {True: ", rotating", False: ", solid", None: ""}[disk.rotates]
    return f"{shown(disk.path)}: {disk.kind} on {disk.device}{kind}, {size(disk.free)} of {size(disk.total)} free"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "   ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
