"""Which runs may be averaged: runs into groups, groups into families that are compared with each other."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ffcv_imagenet.config import effect_of
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.report.runs import Run
from ffcv_imagenet.run.log import EpochLog

T = TypeVar("T")

#: The loss that the others are compared with.
BASELINE = "baseline"
#: The losses that come first in tables and plots, in this order; others follow by name.
LOSS_ORDER = tuple(LOSSES.kinds)


@dataclass(frozen=True)
class Group:
    """Runs that belong in one row of the table; ``differs_in`` tells it from its neighbours ("" mostly)."""

    architecture: str
    recipe: str
    loss: str
    differs_in: str
    runs: tuple[Run, ...]

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs that enter the figures."""
        return tuple(run for run in self.runs if run.finished)

    @property
    def unfinished(self) -> tuple[Run, ...]:
        """The runs that do not enter the figures."""
        return tuple(run for run in self.runs if not run.finished)

    @property
    def repeats(self) -> dict[Hashable, list[Run]]:
        """The finished runs of each seed; a run without a seed stands alone, under its folder."""
        found: dict[Hashable, list[Run]] = {}
        for run in self.finished:
            found.setdefault(run.folder if run.seed is None else run.seed, []).append(run)
        return found

    @property
    def top_1_by_seed(self) -> dict[Hashable, float]:
        """The last epoch's top-1 in per cent of each seed: the mean of its runs, which are not independent samples."""
        return {seed: statistics.fmean(100 * run.last_top_1 for run in runs) for seed, runs in self.repeats.items()}

    @property
    def shared_options(self) -> dict[str, str]:
        """The relevant options of these runs but for the loss's own: with the same ones, losses can be compared."""
        options = self.runs[0].options
        return {key: text for key, text in options.items() if is_relevant(key) and not key.startswith("loss.")}


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Put runs into groups that may be averaged: same architecture, recipe, loss and relevant options.

    Order: architecture, recipe, loss (:data:`LOSS_ORDER` first), options. What a group ``differs_in`` are the
    options that are not the same over all runs of its architecture and recipe; options of the loss
    (``loss.*``) are compared only between runs of the same loss.
    """
    families: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        families.setdefault((run.architecture, run.recipe), []).append(run)
    groups = []
    for (architecture, recipe), family in families.items():
        members: dict[tuple[str, str], list[Run]] = {}
        for run in family:
            peers = [other for other in family if other.loss == run.loss]
            differing = _differing(family, of_loss=False) + _differing(peers, of_loss=True)
            text = ", ".join(f"{key}={run.options.get(key, '(absent)')}" for key in differing)
            members.setdefault((run.loss, text), []).append(run)
        groups += [Group(architecture, recipe, loss, text, tuple(m)) for (loss, text), m in members.items()]
    return sorted(
        groups,
        key=lambda g: (
            natural(g.architecture),
            natural(g.recipe),
            loss_rank(g.loss),
            natural(g.differs_in),
        ),
    )


def families(items: Iterable[T], of: Callable[[T], Group]) -> list[list[T]]:
    """The items of each architecture and recipe, in the order given; ``of`` says which group an item belongs to."""
    found: dict[tuple[str, str], list[T]] = {}
    for item in items:
        group = of(item)
        found.setdefault((group.architecture, group.recipe), []).append(item)
    return list(found.values())


def is_relevant(option: str) -> bool:
    """Whether runs that differ in this option are kept apart; those that this version does not know do so, too."""
    return not effect_of(option).averaged


def loss_rank(loss: str) -> tuple[int, str]:
    """A sort key that puts :data:`LOSS_ORDER` first and the other losses after it, by name."""
    return (LOSS_ORDER.index(loss), "") if loss in LOSS_ORDER else (len(LOSS_ORDER), loss)


@dataclass(frozen=True)
class Curve:
    """Figures over the epochs in which every one of some runs has them: mean, lowest and highest run, mean minutes."""

    epochs: list[int]
    minutes: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def curve(runs: Sequence[Run], value: Callable[[EpochLog], float | None]) -> Curve:
    """The curve of one or several runs."""
    logged = [{e.epoch: (e.total_seconds / 60, v) for e in run.log if (v := value(e)) is not None} for run in runs]
    epochs = sorted(set.intersection(*map(set, logged)))
    minutes = [statistics.fmean(run[e][0] for run in logged) for e in epochs]
    values = [[run[e][1] for run in logged] for e in epochs]
    return Curve(epochs, minutes, list(map(statistics.fmean, values)), list(map(min, values)), list(map(max, values)))


def last_fifth(groups: Iterable[Group]) -> int:
    """The epoch with which the last fifth of the longest planned training begins: two epochs at least."""
    longest = max(run.epochs for group in groups for run in group.runs)
    return min(math.ceil(0.8 * longest), longest - 1)


def top_1_percent(epoch: EpochLog) -> float | None:
    """Top-1 after an epoch in per cent, None where it was not evaluated."""
    return None if epoch.top_1 is None else 100 * epoch.top_1


def _differing(runs: Sequence[Run], of_loss: bool) -> list[str]:
    """The relevant options that are not the same in all runs: those of the loss, or all others."""
    keys = {key for run in runs for key in run.options if key.startswith("loss.") == of_loss and is_relevant(key)}
    return sorted(key for key in keys if len({run.options.get(key) for run in runs}) > 1)


def natural(text: str) -> list[str | int]:
    """A sort key by which "resnet18" comes before "resnet101"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
