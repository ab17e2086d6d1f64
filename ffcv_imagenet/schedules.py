"""Schedules over training: pure functions of the (fractional) epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ffcv_imagenet.options import Integer, Numbers, OrNone, Real, option
from ffcv_imagenet.variants import Variants

#: Share of the peak learning rate at which the piecewise schedule starts.
PIECEWISE_START = 1e-4

_WARMUP_HELP = "epochs of linear warm-up"
_WARMUP_START_HELP = "rate at the start of the warm-up, as a share of the peak"


def linear(progress: float, start: float, end: float) -> float:
    """From ``start`` at progress 0 to ``end`` at progress 1; exactly ``start`` all the way when both are equal."""
    return start + (end - start) * progress


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule: its fields are its options."""

    def share(self, epoch: float, epochs: float) -> float:
        """Share of the peak rate at a fractional ``epoch`` in 0..``epochs``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Piecewise(Schedule):
    """Linear up to ``peak_epoch``, then linear down to zero at the end."""

    peak_epoch: float | None = option(
        OrNone(Real(0)), "epoch of the peak (none: epoch 2; of fewer than 8 epochs, a quarter)", None
    )

    def share(self, epoch: float, epochs: float) -> float:
        """See :meth:`Schedule.share`."""
        peak = min(2, epochs / 4) if self.peak_epoch is None else self.peak_epoch
        if epoch < peak:
            return PIECEWISE_START + (1 - PIECEWISE_START) / peak * epoch
        return max(0.0, 1 - 1 / (epochs - peak) * (epoch - peak))


@dataclass(frozen=True)
class Step(Schedule):
    """Multiplied by ``step_ratio`` after every ``step_length`` epochs or at ``step_epochs``, after a linear warm-up."""

    step_length: int | None = option(OrNone(Integer(1)), "epochs between steps (none: a third of all)", None)
    step_epochs: tuple[float, ...] | None = option(
        OrNone(Numbers(None, 0, math.inf)), "epochs of the steps, such as 30,60,80 (none: by step_length)", None
    )
    step_ratio: float = option(Real(0, 1), "factor at every step", 0.1)
    warmup_epochs: float = option(Real(0), _WARMUP_HELP, 0)
    warmup_start: float = option(Real(0, 1), _WARMUP_START_HELP, 0.0)

    def share(self, epoch: float, epochs: float) -> float:
        """See :meth:`Schedule.share`."""
        if self.step_epochs is not None:
            steps = sum(epoch >= step for step in self.step_epochs)
        else:
            steps = math.floor(epoch / (math.ceil(epochs / 3) if self.step_length is None else self.step_length))
        return _warmup(epoch, self.warmup_epochs, self.warmup_start) * self.step_ratio**steps


@dataclass(frozen=True)
class Cosine(Schedule):
    """Linear warm-up, then half a cosine down to ``end``."""

    warmup_epochs: float = option(Real(0), _WARMUP_HELP, 0)
    warmup_start: float = option(Real(0, 1), _WARMUP_START_HELP, 0.0)
    end: float = option(Real(0, 1), "rate at the end, as a share of the peak", 0.0)

    def share(self, epoch: float, epochs: float) -> float:
        """See :meth:`Schedule.share`."""
        if epoch < self.warmup_epochs:
            return _warmup(epoch, self.warmup_epochs, self.warmup_start)
        done = (epoch - self.warmup_epochs) / (epochs - self.warmup_epochs)
        return linear(0.5 * (1 + math.cos(math.pi * done)), self.end, 1.0)


#: Learning-rate schedules by ``lr.schedule``.
SCHEDULES: Variants[Schedule] = Variants("lr.schedule", {"piecewise": Piecewise, "step": Step, "cosine": Cosine})


def make_lr_schedule(name: str, *, lr: float, epochs: int, **given: float | None) -> Callable[[float], float]:
    """A learning-rate schedule ``f(epoch) -> rate`` by name; an option that is None counts as not given.

    Args:
        name: one of :data:`SCHEDULES`.
        lr: peak rate.
        epochs: length of the training.
        given: options of the schedule.

    Raises:
        ValueError: an unknown name, an option that the schedule does not have, or one past the end of training.
    """
    schedule = SCHEDULES.choose(name, given)
    for key, follow in (
        ("peak_epoch", ", or none to follow it"),
        ("warmup_epochs", ""),
        ("step_length", ", or none to follow it"),
        ("step_epochs", ", or none to follow it"),
    ):
        values = numbers if isinstance(numbers := getattr(schedule, key, None) or (), tuple) else (numbers,)
        if values and max(values) >= epochs:
            got = ",".join(f"{value:g}" for value in values)
            raise ValueError(f"lr.{key}: got {got}, allowed is less than training.epochs={epochs}{follow}")
    if isinstance(schedule, Step) and None not in (schedule.step_length, schedule.step_epochs):
        raise ValueError(f"lr.step_length: got {schedule.step_length}, allowed is none where lr.step_epochs is given")
    return lambda epoch: lr * schedule.share(epoch, epochs)


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


def _warmup(epoch: float, warmup_epochs: float, start: float) -> float:
    return linear(min(1.0, epoch / warmup_epochs), start, 1.0) if warmup_epochs else 1.0
