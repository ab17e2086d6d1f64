"""Schedules over training: pure functions of the (fractional) epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

#: Learning-rate schedules and the options that each takes, with their defaults.
LR_OPTIONS: dict[str, dict[str, float]] = {
    "piecewise": {"peak_epoch": 2},
    "step": {"step_length": 30, "step_ratio": 0.1, "warmup_epochs": 0},
    "cosine": {"warmup_epochs": 0},
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
        ValueError: an unknown name, an option that the schedule does not have, or one past the end of training.
    """
    if name not in LR_OPTIONS:
        raise ValueError(f"lr.schedule: got {name!r}, allowed is {' | '.join(LR_OPTIONS)}")
    options = dict(LR_OPTIONS[name])
    for key, value in given.items():
        if value is None:
            continue
        if key not in options:
            takes = ", ".join(f"lr.{k}" for k in options)
            raise ValueError(f"lr.{key}: got {value} for lr.schedule={name}, which takes {takes}")
        options[key] = value
    for key in ("peak_epoch", "warmup_epochs"):
        if options.get(key, 0) and options[key] >= epochs:
            raise ValueError(f"lr.{key}: got {options[key]:g}, allowed is less than training.epochs={epochs}")
    shape = {"piecewise": piecewise_lr, "step": step_lr, "cosine": cosine_lr}[name]
    return lambda epoch: lr * shape(epoch, epochs=epochs, **options)  # type: ignore[operator]


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


def _warmup(epoch: float, warmup_epochs: float) -> float:
    return min(1.0, epoch / warmup_epochs) if warmup_epochs else 1.0
