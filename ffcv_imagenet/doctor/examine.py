"""From a configuration to the numbers that are judged: takes one process's share of the machine, and measures."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ffcv_imagenet import limits
from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.orders import ListedOrder
from ffcv_imagenet.distributed import World
from ffcv_imagenet.doctor.machine import Disk, processor_has_bf16
from ffcv_imagenet.doctor.measure import (
    DeviceBatches,
    Reading,
    Step,
    held_bytes,
    measure_all_reduce,
    measure_copying,
    measure_evaluation,
    measure_loader,
    measure_reading,
    measure_step,
    repeated,
    samples_in_memory,
)
from ffcv_imagenet.doctor.verdict import Findings, Rates
from ffcv_imagenet.experiment import make_trainer
from ffcv_imagenet.loaders import make_train_loader, make_val_loader
from ffcv_imagenet.resolved import Resolved, resolve
from ffcv_imagenet.shortage import accumulated_batches
from ffcv_imagenet.train.interruption import StopSignals
from ffcv_imagenet.train.precision import input_dtype
from ffcv_imagenet.units import size

#: Images of a batch that is decoded, at most: larger ones decode no faster.
_MOST_DECODED = 256
#: Images of an evaluation's batch on a CPU, where it says as much as a whole one.
_VAL_ON_CPU = 8


@dataclass(frozen=True)
class Examined:
    """What was measured. ``timed`` are the images of the steps that were timed, by side.

    ``parameters`` are those of the network; ``upload_bytes`` per second go to the GPU; ``forward_rate`` and
    ``val_decode`` are the two parts of an evaluation, in images/s of one process; ``left_out`` says what could not be
    measured, and why.
    """

    findings: Findings
    reading: Reading | None
    timed: dict[int, int]
    parameters: int
    upload_bytes: float | None
    forward_rate: float | None
    val_decode: float | None
    left_out: tuple[str, ...]


def share_of(config: TrainConfig, processes: int) -> tuple[TrainConfig, World]:
    """What one of ``processes`` does on this machine, as a training of its own that takes its steps whole.

    Raises:
        ValueError: the processes cannot share the batch, or there are fewer GPUs.
    """
    per_process = config.per_rank_batch(processes) * config.training.accumulation
    device = config.dist.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and processes > torch.cuda.device_count():
        raise ValueError(f"--processes: got {processes}, allowed are at most the {torch.cuda.device_count()} GPUs here")
    training = dataclasses.replace(
        config.training, batch_size=per_process // config.training.accumulation, accumulation=1, max_steps=None
    )
    share = dataclasses.replace(
        config, training=training, logging=dataclasses.replace(config.logging, progress_bar=False)
    )
    return share, World(0, 1, 0, processes, torch.device("cuda", 0) if device == "cuda" else torch.device("cpu"))


def examine(
    config: TrainConfig,
    processes: int,
    *,
    compiled: bool,
    with_disk: bool,
    tell: Callable[[str], None] = lambda text: None,
) -> Examined:
    """Measure what each part reaches with these options.

    Args:
        config: the training's.
        processes: of the training on this machine.
        compiled: measure the step as the options compile it; else eager, which takes no minute to prepare.
        with_disk: measure reading, too.
        tell: is told what is measured next.

    Raises:
        ValueError, FileNotFoundError: a user's mistake.
    """
    share, world = share_of(config, processes)
    start = resolve(share, world)
    if not compiled:
        start = dataclasses.replace(start, compile="off")
    start.set_up_torch()
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    data = start.train_data
    assert data is not None
    assert config.data.train is not None
    file = BetonFile.open(Path(config.data.train), data)
    reading = None
    if with_disk:
        tell("reading")
        reading = measure_reading(file)
    whole = config.training.batch_size // processes
    sizes = accumulated_batches(whole, config.training.accumulation, of=2 if config.augment.mixes else 1)
    plan = Counter(map(config.make_resolution(), range(config.planned_epochs(data.num_samples))))
    sides = sorted(plan)
    decode, on_gpu, workers = _decoding(start, file, sides, min(sizes[0], _MOST_DECODED), tell)
    upload = None
    if world.device.type == "cuda":
        tell("copying")
        upload = measure_copying(world.device)
    free_before = _available(world.device)
    steps, forward, parameters, gradients = _steps(start, sides, sizes, free_before, tell)
    tell("decoding for the evaluation")
    val_decode = _val_decode(start)
    all_reduce, left_out = None, []
    if processes > 1:
        tell("averaging gradients")
        try:
            all_reduce = measure_all_reduce(processes, gradients, world.device.type)
        except Exception as error:  # of any of the processes, whatever it is
            left_out.append(f"averaging gradients was not measured: {' '.join(str(error).split())[-200:]}")
    fitting = min((step.fitting for step in steps.values() if step.fitting), default=None)
    too_large = any(step.memory is None or step.memory > free_before for step in steps.values())
    findings = Findings(
        device=world.device.type,
        processes=processes,
        batch_size=config.training.batch_size,
        accumulation=config.training.accumulation,
        images=data.num_samples,
        rates=tuple(
            Rates(
                side=side,
                epochs=plan[side],
                step=steps[side].rate,
                decode=decode.get(side),
                gpu_decode=on_gpu.get(side),
                copy=upload / (3 * side**2) if upload else None,
                memory=steps[side].memory,
            )
            for side in sides
        ),
        file_bytes=data.num_bytes,
        raw_bytes=_raw_bytes(file),
        cache_bytes=max(0, limits.memory().available - (processes - 1) * held_bytes()),
        mode=data.parameters.mode,
        order=config.data.order,
        decoder=start.train_decoder,
        has_index=file.index is not None,
        workers=workers,
        cores=start.cores,
        random_read=reading.random_images if reading else None,
        sequential_read=reading.piece_images if reading else None,
        all_reduce=all_reduce,
        device_memory=free_before,
        fitting=whole // fitting if too_large and fitting and all(s.fitting for s in steps.values()) else None,
        val_images=start.val_data.num_samples,
        val_rate=_together(forward, val_decode, world.device),
        compiled=start.compile != "off",
        precision=start.precision,
        cpu_has_bf16=processor_has_bf16(),
    )
    timed = {side: step.images for side, step in steps.items()}
    return Examined(findings, reading, timed, parameters, upload, forward, val_decode, tuple(left_out))


def _decoding(
    start: Resolved, file: BetonFile, sides: list[int], batch_size: int, tell: Callable[[str], None]
) -> tuple[dict[int, float], dict[int, float], int]:
    """Images/s of the loader that decodes on the CPU and of the GPU's, by side; threads of the first."""
    device, found = start.world.device, {}
    samples = samples_in_memory(file)
    order, workers = ListedOrder(repeated(samples, batch_size)), 0
    places = ["cpu", "gpu"] if device.type == "cuda" and file.index is not None else ["cpu"]
    for place in places:
        rates: dict[int, float] = {}
        # Where the training decodes elsewhere, what cannot be measured is left out.
        with contextlib.ExitStack() as stack:
            if place != start.train_decoder:
                stack.enter_context(contextlib.suppress(ValueError, OSError, RuntimeError))
            loader = make_train_loader(dataclasses.replace(start, train_decoder=place), order, batch_size)
            if place == "cpu":
                workers = loader.num_workers
            for side in sides:
                tell(f"decoding on the {place.upper()} at {side} px")
                rates[side] = measure_loader(loader, side, device)
        found[place] = rates
    return found["cpu"], found.get("gpu", {}), workers


def _steps(
    start: Resolved, sides: list[int], sizes: list[int], available: int, tell: Callable[[str], None]
) -> tuple[dict[int, Step], float | None, int, int]:
    """The steps by side, images/s of the evaluation's forward pass, parameters, bytes of their gradients."""
    config, device, steps = start.config, start.world.device, {}
    dtype = torch.uint8
    if start.train_decoder == "gpu" and not config.augment.any:
        dtype = input_dtype(start.precision)

    def batches(images: int, count: int) -> DeviceBatches:
        return DeviceBatches(images, count, start.num_classes, device, dtype)

    val_batch = config.validation.batch_size
    if device.type == "cpu":
        val_batch = min(val_batch, _VAL_ON_CPU)
    val_batches = batches(val_batch, 1)
    trainer = make_trainer(start, StopSignals(lambda number: number), batches(sizes[-1], 1), val_batches)  # type: ignore[arg-type]
    for side in sides:
        tell(f"the step at {side} px")
        steps[side] = measure_step(trainer, side, sizes, batches, available=available)
    tell("the evaluation")
    forward = measure_evaluation(trainer, val_batches)
    parameters = list(trainer.model.parameters())
    return steps, forward, sum(p.numel() for p in parameters), sum(p.nbytes for p in parameters)


def _val_decode(start: Resolved) -> float:
    """Images/s of the loader of the validation images, that lie in memory."""
    assert start.config.data.val is not None
    samples = samples_in_memory(BetonFile.open(Path(start.config.data.val), start.val_data))
    batch_size = min(start.config.validation.batch_size, _MOST_DECODED)
    loader = make_val_loader(start, ListedOrder(repeated(samples, batch_size)), batch_size)
    return measure_loader(loader, start.config.validation.resolution, start.world.device)


def _together(forward: float | None, decode: float, device: torch.device) -> float | None:
    """Images/s of an evaluation: on a CPU its parts take turns."""
    if forward is None:
        return None
    return 1 / (1 / forward + 1 / decode) if device.type == "cpu" else min(forward, decode)


def _available(device: torch.device) -> int:
    """Bytes that this process may have on its device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    limit = limits.memory()
    return min(limit.total, limit.available + held_bytes())


def _raw_bytes(file: BetonFile) -> int:
    """What the images of a file take as pixels."""
    records = file.samples.image
    return int((records["height"].astype("i8") * records["width"].astype("i8")).sum() * 3)


def training_notes(config: TrainConfig, examined: Examined, disk: Disk, *, sample: bool) -> Iterator[str]:
    """What would stop a training that is fast enough; ``disk`` is that of the runs, ``sample``: the data are drawn."""
    images, batch = examined.findings.images, config.training.batch_size
    if batch > images and not sample:
        yield f"a training refuses --training.batch_size={batch}: there are {images} images"
    # Weights, momentum, and the average of the weights; the newest, the best, and the one that is being written.
    each = 4 * examined.parameters * (3 if config.training.ema else 2)
    needed = each * (config.checkpoint.keep + 2)
    if needed > disk.free:
        yield f"checkpoints need {size(needed)}, {disk.path} has {size(disk.free)} free: --logging.folder=FOLDER"


def sibling_val(train: Path) -> Path | None:
    """The validation file that the writer puts next to a training file; None where there is none."""
    val = train.with_name("val.beton")
    return val if val.is_file() and Manifest.path(val).is_file() else None
