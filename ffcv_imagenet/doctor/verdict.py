"""What limits a training, judged by numbers alone: measured ones, or those of a log.

The parts of a training work at the same time, each on images of its own: the disk reads, cores decode, the link copies,
the device takes steps. Parts that need the same thing take turns. So the time for an image is that of the busiest of
disk, cores, link, device and network; the others wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ffcv_imagenet.units import duration, rate, size

#: From this share of the time without data on, waiting is worth a look.
HIGH_WAIT = 0.05
#: What brings less than this is not advised.
_WORTH = 1.05
#: The share of a step in which gradients are sent while others are computed: the backward pass.
_BACKWARD = 2 / 3
#: Cores of a process that start the GPU's kernels, and don't decode.
_STARTING_CORES = 2

#: How sentences begin.
_NAMES = {
    "reading": "reading from the disk",
    "decoding": "decoding",
    "copying": "copying to the GPU",
    "step": "the step",
    "all-reduce": "averaging gradients between the processes",
}


@dataclass(frozen=True)
class Rates:
    """Images per second that each part of one process reaches alone, with images of ``side`` pixels.

    Attributes:
        side: of the training images.
        epochs: of the training with this side.
        step: forward, backward and optimizer, on images that lie on the device.
        decode: by the process's decoding threads; None: not measured, as the others.
        gpu_decode: by the GPU.
        copy: to the device.
        memory: bytes that a step takes at its peak, with all that lasts; None where it did not fit.
    """

    side: int
    epochs: int
    step: float | None
    decode: float | None = None
    gpu_decode: float | None = None
    copy: float | None = None
    memory: int | None = 0


@dataclass(frozen=True)
class Findings:
    """A recipe on a machine, in numbers.

    Attributes:
        device: cpu or cuda.
        processes: of the training on this machine.
        batch_size: images of a step over all processes.
        accumulation: micro-batches of it.
        images: in the training file.
        rates: for each image size of the recipe.
        file_bytes: size of the training file.
        raw_bytes: what its images would take as pixels.
        cache_bytes: memory that the system can keep copies of files in.
        mode: how the images are stored: jpg, raw, smart or proportion.
        order: random or quasi_random.
        decoder: cpu or gpu: where the training decodes.
        has_index: whether the file has an entry-point index.
        workers: decoding threads of a process.
        cores: usable ones of a process.
        random_read: images/s from a cold disk, in the order of a training, for all processes; None: not measured.
        sequential_read: the same in the order of the file.
        all_reduce: seconds that averaging the gradients takes; None: not measured.
        device_memory: bytes that a process can have on its device.
        fitting: the smallest accumulation that fits, where the recipe's does not; None: none, or not needed.
        val_images: images of an evaluation.
        val_rate: of them per second and process; None: not measured.
        compiled: whether the step was measured compiled.
        precision: bf16, fp16 or fp32.
        cpu_has_bf16: whether the processor multiplies matrices in bf16 itself.
    """

    device: str
    processes: int
    batch_size: int
    accumulation: int
    images: int
    rates: tuple[Rates, ...]
    file_bytes: int
    raw_bytes: int
    cache_bytes: int
    mode: str = "jpg"
    order: str = "random"
    decoder: str = "cpu"
    has_index: bool = True
    workers: int = 1
    cores: int = 1
    random_read: float | None = None
    sequential_read: float | None = None
    all_reduce: float | None = None
    device_memory: int = 1 << 62
    fitting: int | None = None
    val_images: int = 0
    val_rate: float | None = None
    compiled: bool = False
    precision: str = "bf16"
    cpu_has_bf16: bool = False

    @property
    def uncached(self) -> float:
        """The share of the file that is read from the disk again in each epoch."""
        return max(0.0, 1 - self.cache_bytes / self.file_bytes)


@dataclass(frozen=True)
class Advice:
    """What to change, and how many times faster the training would be; None: not measured."""

    text: str
    gain: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What :func:`judge` finds.

    Attributes:
        limit: memory, reading, decoding, copying, step or all-reduce.
        by: how many times as long the limit takes as what comes next; None where nothing else was measured.
        said: the limit in a sentence.
        fits: whether the step fits into the device's memory.
        memory: that in a sentence.
        waits: share of the time in which the step has no data, 0..1. Cores, or a GPU, that decode meanwhile don't wait.
        images_per_second: of all processes, by side.
        epoch_seconds: with evaluation, by side.
        first_epoch_seconds: of the first epoch, which reads the file from the disk.
        training_seconds: of all epochs.
        advice: what to change, the best first.
    """

    limit: str
    by: float | None
    said: str
    fits: bool
    memory: str
    waits: float = 0.0
    images_per_second: Mapping[int, float] = field(default_factory=dict)
    epoch_seconds: Mapping[int, float] = field(default_factory=dict)
    first_epoch_seconds: float | None = None
    training_seconds: float | None = None
    advice: tuple[Advice, ...] = ()


def judge(found: Findings) -> Verdict:
    """Which part limits a training, by how much, what to change, and how long it takes."""
    fits, memory = _memory(found)
    if not fits:
        text = "a smaller network, smaller images, or a GPU with more memory"
        if found.fitting:
            micro = found.batch_size // (found.fitting * found.processes)
            text = f"--training.accumulation={found.fitting} (micro-batches of {micro} images)"
        said, advice = f"the limit is memory: {memory}", Advice(text)
        if found.fitting is None or any(rates.step is None for rates in found.rates):
            return Verdict("memory", None, said, False, memory, advice=(advice,))
        small = tuple(replace(rates, memory=0) for rates in found.rates)
        then = judge(replace(found, accumulation=found.fitting, fitting=None, rates=small))
        said = f"{said}; with --training.accumulation={found.fitting}, {then.said}"
        return replace(then, limit="memory", said=said, fits=False, memory=memory, advice=(advice, *then.advice))
    costliest = max(found.rates, key=lambda rates: rates.epochs * _seconds(found, rates))
    lanes = _lanes(found, costliest, found.uncached)
    busiest = max(lanes, key=lambda lane: sum(lanes[lane].values()))
    limit = max(lanes[busiest], key=lambda part: lanes[busiest][part])
    # What comes next: what the others take, or what the limit takes turns with.
    others = [sum(parts.values()) for lane, parts in lanes.items() if lane != busiest]
    others += [seconds for part, seconds in lanes[busiest].items() if part != limit]
    by = lanes[busiest][limit] / max(others) if others and max(others) > 0 else None
    epochs = {rates.side: _epoch_seconds(found, rates, found.uncached) for rates in found.rates}
    first = _epoch_seconds(found, found.rates[0], 1.0)
    training = sum(rates.epochs * epochs[rates.side] for rates in found.rates) + first - epochs[found.rates[0].side]
    return Verdict(
        limit=limit,
        by=by,
        said=_said(found, costliest, lanes, busiest, limit),
        fits=True,
        memory=memory,
        waits=_waits(lanes),
        images_per_second={rates.side: found.processes / _seconds(found, rates) for rates in found.rates},
        epoch_seconds=epochs,
        first_epoch_seconds=first,
        training_seconds=training,
        advice=tuple(_advice(found, limit)),
    )


def _lanes(found: Findings, rates: Rates, uncached: float) -> dict[str, dict[str, float]]:
    """Seconds per image of one process, of each part, by what the part needs; parts of a lane take turns."""
    assert rates.step is not None
    step = 1 / rates.step
    lanes: dict[str, dict[str, float]] = {"device": {"step": step}}
    if found.all_reduce is not None and found.processes > 1:
        each = found.all_reduce * found.processes / found.batch_size  # once per step of the optimizer
        lanes["network"] = {"all-reduce": (1 - _BACKWARD) * step + each}  # it begins when the backward pass does
    on_device = found.decoder == "gpu" or found.device == "cpu"
    decode = rates.gpu_decode if found.decoder == "gpu" else rates.decode
    if decode:
        lanes.setdefault("device" if on_device else "cores", {})["decoding"] = 1 / decode
    if rates.copy and found.decoder == "cpu" and found.device == "cuda":
        lanes["link"] = {"copying": 1 / rates.copy}
    read = _read_rate(found)
    if read and uncached:
        lanes["disk"] = {"reading": uncached * found.processes / read}
    return lanes


def _read_rate(found: Findings) -> float | None:
    return found.random_read if found.order == "random" else found.sequential_read or found.random_read


def _seconds(found: Findings, rates: Rates, uncached: float | None = None) -> float:
    """Seconds per image of one process."""
    lanes = _lanes(found, rates, found.uncached if uncached is None else uncached)
    return max(sum(parts.values()) for parts in lanes.values())


def _training_seconds(found: Findings) -> float:
    """What a training takes, but for the first epoch's reading: to compare two ways of doing it."""
    return sum(rates.epochs * _seconds(found, rates) for rates in found.rates) / found.processes


def _epoch_seconds(found: Findings, rates: Rates, uncached: float) -> float:
    steps = max(1, found.images // found.batch_size)
    train = steps * found.batch_size * _seconds(found, rates, uncached) / found.processes
    return train + (found.val_images / found.val_rate / found.processes if found.val_rate else 0.0)


def _waits(lanes: Mapping[str, Mapping[str, float]]) -> float:
    slowest = max(sum(parts.values()) for lane, parts in lanes.items() if lane != "network")
    return 1 - sum(lanes["device"].values()) / slowest


def _said(found: Findings, rates: Rates, lanes: Mapping[str, Mapping[str, float]], busiest: str, limit: str) -> str:
    """The limit in a sentence: what it reaches, and what the others would."""

    def told(seconds: float) -> str:
        return f"{rate(found.processes / seconds)} images/s"

    where = f" on the {'GPU' if found.decoder == 'gpu' else 'CPU'}" if limit == "decoding" else ""
    said = f"the limit is {_NAMES[limit]}{where}: {told(lanes[busiest][limit])} at {rates.side} px"
    shared = [part for part in lanes[busiest] if part != limit and lanes[busiest][part] > 0]
    if shared:
        what = "cores" if found.device == "cpu" else "GPU"
        with_it = " and ".join(f"{_NAMES[part]} ({told(lanes[busiest][part])} alone)" for part in shared)
        said += f" alone; it shares the {what} with {with_it}, together {told(sum(lanes[busiest].values()))}"
    others = sorted((lane for lane in lanes if lane != busiest), key=lambda lane: -sum(lanes[lane].values()))
    if others:
        parts, seconds = lanes[others[0]], sum(lanes[others[0]].values())
        said += f"; next {'is' if len(parts) == 1 else 'are'} {' and '.join(_NAMES[part] for part in parts)}"
        said += f"{' in turn' if len(parts) > 1 else ''} with {told(seconds)}"
        said += f", {_times(sum(lanes[busiest].values()) / seconds)} as many"
    return said


def _memory(found: Findings) -> tuple[bool, str]:
    """Whether every step fits into the device's memory, and that in a sentence."""
    micro = found.batch_size // (found.accumulation * found.processes)
    where = "the GPU" if found.device == "cuda" else "the memory"
    for rates in found.rates:
        if rates.memory is None or rates.memory > found.device_memory:
            needs = "more" if rates.memory is None else size(rates.memory)
            return False, (
                f"a micro-batch of {micro} images of {rates.side} px needs {needs}, {where} has "
                f"{size(found.device_memory)}"
            )
    most = max(found.rates, key=lambda rates: rates.memory or 0)
    if not most.memory:
        return True, "not measured"
    share = 100 * most.memory / found.device_memory
    return True, (
        f"a micro-batch of {micro} images of {most.side} px needs {size(most.memory)} of {size(found.device_memory)} "
        f"({share:.0f} %)"
    )


def _advice(found: Findings, limit: str) -> Iterator[Advice]:
    """What would make it faster, the largest gain first; what was not measured comes after it."""
    now = _training_seconds(found)
    measured = []
    for text, changed in _changes(found):
        gain = now / _training_seconds(changed)
        if gain >= _WORTH:
            measured.append(Advice(text, gain))
    yield from sorted(measured, key=lambda advice: -(advice.gain or 0))
    yield from _unmeasured(found, limit)
    if found.processes > 1 and (fewer := _fewer_processes(found)):
        accumulation = found.accumulation * found.processes // fewer
        yield Advice(
            f"--nproc-per-node={fewer} with --training.accumulation={accumulation}: about as fast, and "
            f"{found.processes - fewer} of the {found.processes} GPUs are free"
        )


def _changes(found: Findings) -> Iterator[tuple[str, Findings]]:
    """Other ways of doing the same, whose parts are measured."""
    if found.device == "cuda" and found.decoder == "cpu" and all(rates.gpu_decode for rates in found.rates):
        yield "--data.decode=gpu", replace(found, decoder="gpu")
    if found.decoder == "gpu" and all(rates.decode for rates in found.rates):
        yield "--data.decode=cpu", replace(found, decoder="cpu")
    most = max(1, found.cores - (_STARTING_CORES if found.device == "cuda" else 0))
    if found.decoder == "cpu" and found.workers < most:
        more = most / found.workers
        faster = tuple(replace(rates, decode=rates.decode and rates.decode * more) for rates in found.rates)
        yield f"--data.num_workers={most} in place of {found.workers}", replace(found, rates=faster, workers=most)
    if found.order == "random" and found.sequential_read and found.random_read:
        text = "--data.order=quasi_random, of a file written with --write.shuffle=1"
        yield text, replace(found, order="quasi_random")


def _unmeasured(found: Findings, limit: str) -> Iterator[Advice]:
    if limit == "reading":
        if found.mode != "jpg":
            yield Advice("write the file with --write.mode=jpg: pixels take several times the bytes of JPEGs")
        yield Advice(
            f"more memory or a faster disk: the file has {size(found.file_bytes)}, memory for copies of it is "
            f"{size(found.cache_bytes)}"
        )
    if limit == "decoding":
        if not found.has_index and found.mode != "raw":
            also = ", which --data.decode=gpu needs, too" if found.device == "cuda" else ""
            yield Advice(f"make the entry-point index: python -m ffcv_imagenet.data.index FILE.beton{also}")
        if found.mode != "raw" and found.raw_bytes <= found.cache_bytes:
            yield Advice(
                f"write the file with --write.mode=raw: nothing is decoded, and {size(found.raw_bytes)} fit into the "
                f"memory"
            )
        each = f"{found.cores} core{'s' if found.cores > 1 else ''}"
        yield Advice(f"more cores: {'each process' if found.processes > 1 else 'it'} has {each}")
    if limit == "step" and found.device == "cuda":
        if not found.compiled:
            yield Advice("compiled, as --training.compile=auto does on a GPU, the step is faster (measure: --compiled)")
        if found.precision == "fp32":
            yield Advice("--training.precision=auto in place of fp32")
    if limit == "step" and found.device == "cpu":
        if found.precision == "fp32" and found.cpu_has_bf16:
            yield Advice("--training.precision=bf16, in which this processor multiplies matrices faster")
        yield Advice("a GPU, or a smaller network or image: the cores are busy with the step")


def _fewer_processes(found: Findings) -> int | None:
    """The smallest number of processes that trains as fast as all of them; None where that takes all."""
    now = _training_seconds(found)
    for processes in range(1, found.processes):
        if found.processes % processes:
            continue  # With the others a micro-batch could not stay as it is.
        more = found.processes / processes  # cores of each
        rates = tuple(replace(r, decode=r.decode and r.decode * more) for r in found.rates)
        if _training_seconds(replace(found, processes=processes, rates=rates)) <= now * _WORTH:
            return processes
    return None


def judge_log(
    epochs: Sequence[tuple[float, float]], *, device: str, decoder: str, file_bytes: int, cache_bytes: int
) -> str:
    """What limited a training, in one line.

    Args:
        epochs: seconds of training and share of it without data (0..1) of each, the first one first.
        device: cpu or cuda.
        decoder: cpu or gpu.
        file_bytes: size of the training file.
        cache_bytes: memory that the system could keep copies of it in.
    """
    first = epochs[0][1]
    rest = epochs[1:] or epochs
    later = sum(seconds * share for seconds, share in rest) / max(sum(seconds for seconds, _ in rest), 1e-9)
    if later <= HIGH_WAIT:
        told = f"the limit was the step: it waited for data {_percent(later)} of the time"
        if first > HIGH_WAIT:
            told += f", but {_percent(first)} of the first epoch, which reads the file from the disk"
        return told
    faster = 1 / (1 - later) if later < 1 else math.inf
    told = f"the limit was the data: the step waited for it {_percent(later)} of the time"
    if faster < 100:
        told += f"; in time, it would make the training {faster:.1f} x as fast"
    if file_bytes > cache_bytes:
        why = (
            f"the file ({size(file_bytes)}) does not fit into the memory for it ({size(cache_bytes)}): "
            f"--data.order=quasi_random, a faster disk, or more memory"
        )
    elif device == "cpu":
        why = "decoding and the step share the cores"
    elif decoder == "cpu":
        why = "--data.decode=gpu, or more cores"
    else:
        why = "the GPU decodes and trains in turn: --data.decode=cpu where cores are many"
    return f"{told} ({why}; python -m ffcv_imagenet.doctor with the same options measures each part)"


def time_told(verdict: Verdict, epochs: int) -> str:
    """How long an epoch and the training take, in a sentence."""
    assert verdict.training_seconds is not None
    assert verdict.first_epoch_seconds is not None
    each = ", ".join(f"{duration(seconds)} at {side} px" for side, seconds in verdict.epoch_seconds.items())
    usual, first = next(iter(verdict.epoch_seconds.values())), ""
    if verdict.first_epoch_seconds > _WORTH * usual:
        first = f" (the first {duration(verdict.first_epoch_seconds)}, from the disk)"
    whole = f"{epochs} epoch{'s' if epochs > 1 else ''}: {duration(verdict.training_seconds)}"
    return f"an epoch takes {each}{first}; {whole}"


def _times(factor: float) -> str:
    return f"{factor:.1f} x" if factor < 100 else "over 100 x"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
