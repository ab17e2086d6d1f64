"""The table of losses: a row per group of runs, with all its figures; and as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ffcv_imagenet.report.comparison import Comparison, compare
from ffcv_imagenet.report.groups import Group, group_runs
from ffcv_imagenet.report.runs import Run
from ffcv_imagenet.run.log import EpochLog


@dataclass(frozen=True)
class TableRow:
    """The figures of one architecture, recipe and loss (of several groups when options differ).

    ``runs`` counts the finished runs, ``seeds`` their different seeds (fewer: a run was repeated). Figures are
    means over the finished runs and None when there is none: ``top_1_percent`` and ``top_k_percent`` after the last
    epoch and ``best_top_1_percent`` of each run's best epoch are means over the seeds, of which each is the mean of
    its runs (``k`` is that of ``top_k_percent``; both are None where the runs' differ); ``top_1_sd_percent`` is the
    sample standard deviation over the seeds (None below two). ``minutes`` of wall-clock time per run,
    ``images_per_second`` in training, ``wait_share_percent`` of the training time spent waiting for data (without
    the first epoch, which holds the start-up, where there are more). ``unfinished`` counts the runs that are left
    out, ``notes`` says why. ``differs_in`` names the options that tell it from its neighbours ("" mostly).
    ``top_1_low_percent`` and ``top_1_high_percent`` are the 95 % interval of the mean; ``difference_points``,
    ``difference_low`` and ``difference_high`` (from the baseline, in percentage points), ``test``, ``pairs``,
    ``p``, ``tests``, ``p_adjusted`` and ``seeds_needed`` are those of :mod:`ffcv_imagenet.report.comparison`, None
    where they cannot be given.
    """

    architecture: str
    recipe: str
    loss: str
    differs_in: str
    runs: int
    seeds: int
    top_1_percent: float | None
    top_1_sd_percent: float | None
    top_1_low_percent: float | None
    top_1_high_percent: float | None
    difference_points: float | None
    difference_low: float | None
    difference_high: float | None
    test: str
    pairs: int | None
    p: float | None
    tests: int | None
    p_adjusted: float | None
    seeds_needed: float | None
    best_top_1_percent: float | None
    top_k_percent: float | None
    k: int | None
    epochs: int
    minutes: float | None
    images_per_second: float | None
    wait_share_percent: float | None
    unfinished: int
    notes: str


def table(runs: Iterable[Run]) -> list[TableRow]:
    """The rows of some runs, ordered as :func:`~ffcv_imagenet.report.groups.group_runs` does."""
    return list(map(table_row, compare(group_runs(runs))))


def table_row(comparison: Comparison) -> TableRow:
    """The row of one group."""
    group, mean, difference = comparison.group, comparison.mean, comparison.difference
    k = _k(group)
    return TableRow(
        architecture=group.architecture,
        recipe=group.recipe,
        loss=group.loss,
        differs_in=group.differs_in,
        runs=len(group.finished),
        seeds=len(group.repeats),
        top_1_percent=mean.mean if mean else None,
        top_1_sd_percent=mean.sd if mean else None,
        top_1_low_percent=mean.low if mean else None,
        top_1_high_percent=mean.high if mean else None,
        difference_points=difference.mean if difference else None,
        difference_low=difference.low if difference else None,
        difference_high=difference.high if difference else None,
        test=difference.test if difference else "",
        pairs=difference.pairs if difference else None,
        p=difference.p if difference else None,
        tests=difference.tests if difference else None,
        p_adjusted=difference.p_adjusted if difference else None,
        seeds_needed=difference.seeds_needed if difference else None,
        best_top_1_percent=_mean_over_seeds(group, _best_percent),
        top_k_percent=_mean_over_seeds(group, lambda run: _percent(run.log[-1].top_k)) if k else None,
        k=k,
        epochs=group.runs[0].epochs,
        minutes=_mean(run.log[-1].total_seconds / 60 for run in group.finished),
        images_per_second=_mean(map(_images_per_second, group.finished)),
        wait_share_percent=_mean(map(_wait_percent, group.finished)),
        unfinished=len(group.unfinished),
        notes=_notes(group),
    )


def to_csv(rows: Iterable[TableRow]) -> str:
    """All figures with full precision, a line per row; an empty cell where there is none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(TableRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, rows))
    return text.getvalue()


def ks(rows: Iterable[TableRow]) -> list[int]:
    """The k of all top-k scores of some rows, ascending: each is a column of its own."""
    return sorted({row.k for row in rows if row.k is not None})


def seeds_text(row: TableRow) -> str:
    """The number of seeds, and that of the runs where a seed was repeated."""
    return str(row.seeds) if row.runs == row.seeds else f"{row.runs} runs, {row.seeds} seed{'s'[: row.seeds - 1]}"


def _k(group: Group) -> int | None:
    """The k of the top-k scores, if it is one and the same."""
    found = {run.log[-1].k for run in group.finished}
    return found.pop() if len(found) == 1 else None


def _best_percent(run: Run) -> float | None:
    return _percent(max(epoch.top_1 for epoch in run.log if epoch.top_1 is not None))


def _images_per_second(run: Run) -> float | None:
    """Of the whole run: the harmonic mean, since all its epochs have the same number of images."""
    speeds = [e.images_per_second for e in run.log if e.images_per_second is not None]
    return statistics.harmonic_mean(speeds) if speeds else None


def _wait_percent(run: Run) -> float | None:
    """Share of a run's training seconds, which are in proportion to 1 / images per second, in per cent."""
    timed = [
        (1 / e.images_per_second, e.wait_share)
        for e in _after_start_up(run)
        if e.images_per_second and e.wait_share is not None
    ]
    seconds = sum(second for second, _ in timed)
    return 100 * sum(second * share for second, share in timed) / seconds if timed else None


def _after_start_up(run: Run) -> tuple[EpochLog, ...]:
    """The epochs without the first one, in which the loader starts and files are read first; a single one stays."""
    return run.log[1:] if len(run.log) > 1 else run.log


def _notes(group: Group) -> str:
    notes = [f"{n} {progress}" for progress, n in Counter(run.progress for run in group.unfinished).items()]
    if len({run.hardware for run in group.finished}) > 1:
        notes.append("timed on different machines")
    return ", ".join(notes)


def _mean_over_seeds(group: Group, value: Callable[[Run], float | None]) -> float | None:
    return _mean(_mean(map(value, runs)) for runs in group.repeats.values())


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean, None where a value is missing or there is none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return statistics.fmean(known) if known and len(known) == len(found) else None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
