"""Which runs may be averaged: runs into groups, groups into families that are compared with each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ffcv_imagenet.config import effect_of
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.report.runs import Run
from ffcv_imagenet.run.log import EpochLog

#: The loss that the others are compared with.
BASELINE = "baseline"
#: The losses that come first in tables and plots, in this order; others follow by name.
LOSS_ORDER = tuple(LOSSES.kinds)


@dataclass(frozen=True)
class Group:
    """Runs that belong into one row of the table; ``differs_in`` tells it from its neighbours ("" mostly)."""

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
    def seeds(self) -> int:
        """How many different seeds the finished runs have; a run without a seed counts as one of its own."""
        return len({run.folder if run.seed is None else run.seed for run in self.finished})

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


def families(groups: Iterable[Group]) -> list[list[Group]]:
    """The groups of each architecture and recipe, in the order given."""
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        found.setdefault((group.architecture, group.recipe), []).append(group)
    return list(found.values())


def is_relevant(option: str) -> bool:
    """Whether runs that differ in this option are kept apart; those that this version does not know do so, too."""
    return not effect_of(option).averaged


def loss_rank(loss: str) -> tuple[int, str]:
    """A sort key that puts :data:`LOSS_ORDER` first and the other losses behind, by name."""
    return (LOSS_ORDER.index(loss), "") if loss in LOSS_ORDER else (len(LOSS_ORDER), loss)


def curve(runs: Sequence[Run], value: Callable[[EpochLog], float | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs [E], mean minutes [E] and the values [runs, E], over the epochs in which every run has a value."""
    logged = [{e.epoch: e for e in run.log if value(e) is not None} for run in runs]
    epochs = sorted(set.intersection(*map(set, logged)))
    minutes = np.array([[run[e].total_seconds / 60 for e in epochs] for run in logged])
    values = np.array([[value(run[e]) for e in epochs] for run in logged])
    return np.array(epochs), minutes.mean(axis=0), values


def percent(fractions: Iterable[float | None]) -> list[float]:
    """Fractions of 1 as per cent; NaN for None."""
    return [np.nan if fraction is None else 100 * fraction for fraction in fractions]


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
