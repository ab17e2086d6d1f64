"""Schedules over training: pure functions of the (fractional) epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

#: Learning-rate schedules and the options that each takes, with their defaults in a training of so many epochs.
LR_OPTIONS: dict[str, dict[str, Callable[[int], float]]] = {
    "piecewise": {"peak_epoch": lambda epochs: min(2, epochs / 4)},
    "step": {
        "step_length": lambda epochs: math.ceil(epochs / 3),
        "step_ratio": lambda _: 0.1,
        "warmup_epochs": lambda _: 0,
    },
    "cosine": {"warmup_epochs": lambda _: 0},
}

#: Share of the peak learning rate at which the piecewise schedule starts.
PIECEWISE_START = 1e-4


def linear(progress: float, start: float, end: float) -> float:
    """From ``start`` at progress 0 to ``end`` at progress 1; exactly ``start`` all the way when both are equal."""
    return start + (end - start) * progress


def piecewise_lr(epoch: float, *, epochs: float, peak_epoch: float) -> float:
    """Share of the peak rate: linear up to ``peak_epoch``, then linear down to zero at ``epochs``."""
    return float(np.interp(epoch, [0, peak_epoch, epochs], [PIECEWISE_START, 1.0, 0.0]))


def step_lr(epoch: float, *, epochs: float, step_length: float, step_ratio: float, warmup_epochs: float) -> float:
    """Share of the peak rate: times ``step_ratio`` after every ``step_length`` epochs, after a linear warm-up."""
    return _warmup(epoch, warmup_epochs) * step_ratio ** math.floor(epoch / step_length)


def cosine_lr(epoch: float, *, epochs: float, warmup_epochs: float) -> float:
    """Share of the peak rate: linear warm-up, then half a cosine down to zero at ``epochs``."""
    if epoch < warmup_epochs:
        return _warmup(epoch, warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)))


def make_lr_schedule(name: str, *, lr: float, epochs: int, **given: float | None) -> Callable[[float], float]:
    """A learning-rate schedule ``f(epoch) -> rate`` by name; an option that is None counts as not given.

    Args:
        name: one of :data:`LR_OPTIONS`.
        lr: peak rate.
        epochs: length of the training.
        given: options of the schedule.

    Raises:
        ValueError: what :func:`lr_mistakes` tells.
    """
    if mistakes := lr_mistakes(name, epochs=epochs, **given):
        raise ValueError("; ".join(mistakes))
    defaults = {key: default(epochs) for key, default in LR_OPTIONS[name].items()}
    options = defaults | {key: value for key, value in given.items() if value is not None}
    shape = {"piecewise": piecewise_lr, "step": step_lr, "cosine": cosine_lr}[name]
    return lambda epoch: lr * shape(epoch, epochs=epochs, **options)  # type: ignore[operator]


def lr_mistakes(name: str, *, epochs: int, **given: float | None) -> list[str]:
    """What is wrong with options of :func:`make_lr_schedule`, a sentence each.

    An unknown name, options that the schedule does not have, and those past the end of training.
    """
    if name not in LR_OPTIONS:
        return [f"lr.schedule: got {name!r}, allowed is {' | '.join(LR_OPTIONS)}"]
    takes = LR_OPTIONS[name]
    given = {key: value for key, value in given.items() if value is not None}
    mistakes = [
        f"lr.{key}: got {value} for lr.schedule={name}, which takes {', '.join(f'lr.{k}' for k in takes)}"
        for key, value in given.items()
        if key not in takes
    ]
    return mistakes + [
        f"lr.{key}: got {given[key]:g}, allowed is less than training.epochs={epochs}, or none to follow it"
        for key in ("peak_epoch", "warmup_epochs")
        if key in takes and given.get(key) and given[key] >= epochs  # type: ignore[operator]
    ]


def resolution_at(epoch: int, *, min_res: int, max_res: int, start_ramp: int, end_ramp: int) -> int:
    """Side of the training images in pixels: ``min_res`` up to ``start_ramp``, ``max_res`` from ``end_ramp``.

    In between linear, rounded to a multiple of 32 (progressive resizing as in libffcv/ffcv-imagenet), and never
    outside ``[min_res, max_res]``.
    """
    if epoch <= start_ramp:
        return min_res
    if epoch >= end_ramp:
        return max_res
    exact = linear((epoch - start_ramp) / (end_ramp - start_ramp), min_res, max_res)
    return min(max(round(exact / 32) * 32, min_res), max_res)


def ramp(epochs: int, start_ramp: int | None, end_ramp: int | None) -> tuple[int, int]:
    """Where :func:`resolution_at` starts and ends; None: at 70 % and 85 % of the way to the last epoch.

    About as libffcv/ffcv-imagenet has it, and the last epoch of two or more has the largest images.
    """
    last = epochs - 1
    if end_ramp is None:
        end_ramp = max(math.ceil(0.85 * last), start_ramp or 0)
    if start_ramp is None:
        start_ramp = min(math.floor(0.7 * last), end_ramp)
    return start_ramp, end_ramp


def _warmup(epoch: float, warmup_epochs: float) -> float:
    return min(1.0, epoch / warmup_epochs) if warmup_epochs else 1.0
