"""Running out of memory ends in one line: what was asked for, what there is, and what would fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ffcv_imagenet.limits import memory
from ffcv_imagenet.resolved import Resolved
from ffcv_imagenet.train.out_of_memory import asked_bytes, free_memory, largest_fitting
from ffcv_imagenet.train.step import EvaluationStep
from ffcv_imagenet.train.trainer import Trainer
from ffcv_imagenet.units import size

#: Memory of other programs from which on they are worth a word, in bytes.
_OTHERS = 2 << 30


def building_shortage(start: Resolved, said: str) -> str:
    """The line for a network, or loaders, that do not fit."""
    device = start.world.device
    return f"out of memory on {device}: the network does not fit{_asked(said)}; {_what_there_is(device)}"


def training_shortage(start: Resolved, trainer: Trainer, said: str) -> str:
    """The line for a training; smaller micro-batches, or validation batches, are tried until one fits.

    Called when nothing holds the failed step any more. The trainer can't go on after it.

    Args:
        start: the training's.
        trainer: that ran out of memory.
        said: the message of the exception.
    """
    options, world = start.config, start.world
    if trainer.evaluating:
        return evaluation_shortage(start, trainer.evaluated_step, said)
    whole, side = options.training.batch_size // world.size, trainer.largest_side()

    def option(images: int) -> str:
        return f"--training.accumulation={whole // images} (micro-batches of {images} images)"

    return _explain(
        f"a micro-batch of {options.per_rank_batch(world.size)} images of {side} x {side} px",
        said,
        world.device,
        attempt=lambda images: trainer.attempt(images, side),
        sizes=accumulated_batches(whole, options.training.accumulation, of=2 if options.augment.mixes else 1),
        option=option,
    )


def evaluation_shortage(start: Resolved, step: EvaluationStep, said: str) -> str:
    """The same for an evaluation."""
    batch, side = start.config.validation.batch_size, start.config.validation.resolution

    def attempt(images: int) -> None:
        with torch.no_grad():
            step(torch.zeros(images, side, side, 3, dtype=torch.uint8, device=step.device).permute(0, 3, 1, 2))

    return _explain(
        f"a validation batch of {batch} images of {side} x {side} px",
        said,
        step.device,
        attempt=attempt,
        sizes=[batch >> halvings for halvings in range(batch.bit_length())],
        option=lambda images: f"--validation.batch_size={images}",
    )


def accumulated_batches(whole: int, accumulation: int, of: int = 1) -> list[int]:
    """Sizes of micro-batches, multiples of ``of``, into which a process can cut its ``whole`` images of a step.

    The first is that of ``accumulation``, each of the others at most half of the one before.
    """
    sizes = [whole // accumulation]
    for parts in range(accumulation + 1, whole + 1):
        if whole % (parts * of) == 0 and whole // parts <= sizes[-1] // 2:
            sizes.append(whole // parts)
    return sizes


def _explain(
    what: str,
    said: str,
    device: torch.device,
    *,
    attempt: Callable[[int], None],
    sizes: Sequence[int],
    option: Callable[[int], str],
) -> str:
    """The line; ``sizes`` are those of batches that options can choose, the first one is too large."""
    told = f"out of memory on {device}: {what} does not fit{_asked(said)}; {_what_there_is(device)}"
    smaller = sizes[1] if len(sizes) > 1 else None
    try:
        fitting = largest_fitting(attempt, sizes)
    except RuntimeError:  # a device that is in no state to try
        return f"{told}; {option(smaller)} may fit" if smaller else told
    if fitting is None or smaller is None:
        return f"{told}; nor does a smaller one: a smaller network or smaller images may"
    # Alone, the first one may fit by a hair.
    return f"{told}; {option(min(fitting, smaller))} does"


def _asked(said: str) -> str:
    asked = asked_bytes(said)
    return f", {size(asked)} more were asked for" if asked is not None else ""


def _what_there_is(device: torch.device) -> str:
    held = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    free_memory()
    if device.type != "cuda":
        limit = memory()
        return f"{size(limit.available)} of {size(limit.total)} are free (set by {limit.limited_by})"
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    told = f"it held {size(held)} of the GPU's {size(total)}"
    return told + (f", other programs {size(others)}" if others > _OTHERS else "")
