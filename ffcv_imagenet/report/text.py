"""The table of losses: as a data frame, for a terminal and in Markdown."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Container, Iterable
from typing import Any

import numpy as np
import pandas as pd

from ffcv_imagenet.report.comparison import Comparison, compare
from ffcv_imagenet.report.groups import Group, group_runs, percent
from ffcv_imagenet.report.paper import Pair
from ffcv_imagenet.report.runs import Run

MISSING = "-"


def table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per architecture, recipe and loss (more when options differ), with numeric columns.

    ``runs`` counts the finished runs, ``seeds`` their different seeds (fewer: a run was repeated). Figures
    are means over the finished runs and NaN when there is none: ``top_1_percent`` and ``top_5_percent`` after
    the last epoch, ``top_1_sd_percent`` the sample standard deviation (NaN below two runs),
    ``best_top_1_percent`` of each run's best epoch, ``minutes`` of wall-clock time per run,
    ``images_per_second`` in training, ``wait_share_percent`` of the training time spent waiting for data.
    ``unfinished`` counts the runs that are left out, ``notes`` says why. ``differs_in`` is there only when options
    differ. ``top_1_low_percent`` and ``top_1_high_percent`` are the 95 % interval of the mean; ``difference_points``,
    ``difference_low`` and ``difference_high`` (from the baseline, in percentage points), ``test``, ``p`` and
    ``p_adjusted`` are those of :mod:`ffcv_imagenet.report.comparison`, NaN where they cannot be given.
    """
    groups = group_runs(runs)
    frame = pd.DataFrame(
        [_row(comparison) for comparison in compare(groups)],
        columns=[
            "architecture",
            "recipe",
            "loss",
            "differs_in",
            "runs",
            "seeds",
            "top_1_percent",
            "top_1_sd_percent",
            "top_1_low_percent",
            "top_1_high_percent",
            "difference_points",
            "difference_low",
            "difference_high",
            "test",
            "p",
            "p_adjusted",
            "best_top_1_percent",
            "top_5_percent",
            "epochs",
            "minutes",
            "images_per_second",
            "wait_share_percent",
            "unfinished",
            "notes",
        ],
    )
    return frame if any(group.differs_in for group in groups) else frame.drop(columns="differs_in")


def format_table(frame: pd.DataFrame, markdown: bool = False) -> str:
    """The table of :func:`table` as aligned text for a terminal, or as a Markdown table."""
    columns: dict[str, list[str]] = {"architecture": list(frame.architecture), "recipe": list(frame.recipe)}
    columns["loss"] = list(frame.loss)
    if "differs_in" in frame:
        columns["differs in"] = list(frame.differs_in)
    text_columns = set(columns) | {"notes"}
    columns["seeds"] = [seeds_text(row.runs, row.seeds) for row in frame.itertuples()]
    columns["top-1 last (%)"] = [_spread_text(row.top_1_percent, row.top_1_sd_percent) for row in frame.itertuples()]
    columns["top-1 best (%)"] = [_number_text(x, 2) for x in frame.best_top_1_percent]
    columns["top-5 last (%)"] = [_number_text(x, 2) for x in frame.top_5_percent]
    columns["epochs"] = [str(x) for x in frame.epochs]
    columns["time (min)"] = [_number_text(x, 1 if x >= 10 else 2) for x in frame.minutes]
    columns["images/s"] = [_number_text(x, 0) for x in frame.images_per_second]
    columns["notes"] = list(frame.notes)

    return _align(columns, text_columns, markdown)


def format_published(pairs: Iterable[Pair], markdown: bool = False) -> str:
    """Our rows beside the published ones as aligned text for a terminal, or as a Markdown table."""
    rows = list(pairs)
    columns = {
        "architecture": [row.architecture for row in rows],
        "loss": [row.loss for row in rows],
        "recipe": [row.ours.group.recipe if row.ours else MISSING for row in rows],
        "differs in": [row.ours.group.differs_in if row.ours else "" for row in rows],
        "epochs": [str(row.ours.group.runs[0].epochs) if row.ours else MISSING for row in rows],
        "runs": [str(len(row.ours.group.finished)) if row.ours else "0" for row in rows],
        "ours, top-1 (%)": [_spread_text(*_mean_and_sd(row.ours)) for row in rows],
        "published, top-1 (%)": [
            _spread_text(row.published.top_1, row.published.sd) if row.published else MISSING for row in rows
        ],
    }
    if not any(columns["differs in"]):
        del columns["differs in"]
    return _align(columns, {"architecture", "loss", "recipe", "differs in"}, markdown)


def _mean_and_sd(comparison: Comparison | None) -> tuple[float, float]:
    mean = comparison.mean if comparison else None
    return (mean.mean, _or_nan(mean.sd)) if mean else (np.nan, np.nan)


def _align(columns: dict[str, list[str]], text_columns: Container[str], markdown: bool) -> str:
    """Columns of cells as aligned lines; those of ``text_columns`` stand on the left, numbers on the right."""
    if markdown:
        columns = {header: [cell.replace("|", r"\|") for cell in cells] for header, cells in columns.items()}
    widths = {header: max(map(len, [header, *cells])) for header, cells in columns.items()}

    def line(cells: Iterable[str]) -> str:
        padded = [
            cell.ljust(widths[header]) if header in text_columns else cell.rjust(widths[header])
            for header, cell in zip(columns, cells, strict=True)
        ]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    rules = []
    for header, width in widths.items():
        right = markdown and header not in text_columns
        rules.append("-" * (width - 1) + ":" if right else "-" * width)
    return "\n".join([line(columns), line(rules), *map(line, zip(*columns.values(), strict=True))])


def _row(comparison: Comparison) -> dict[str, Any]:
    group, mean, difference = comparison.group, comparison.mean, comparison.difference
    runs = group.finished
    last = [run.log[-1] for run in runs]
    return {
        "architecture": group.architecture,
        "recipe": group.recipe,
        "loss": group.loss,
        "differs_in": group.differs_in,
        "runs": len(runs),
        "seeds": group.seeds,
        "top_1_percent": mean.mean if mean else np.nan,
        "top_1_sd_percent": _or_nan(mean.sd if mean else None),
        "top_1_low_percent": _or_nan(mean.low if mean else None),
        "top_1_high_percent": _or_nan(mean.high if mean else None),
        "difference_points": difference.mean if difference else np.nan,
        "difference_low": _or_nan(difference.low if difference else None),
        "difference_high": _or_nan(difference.high if difference else None),
        "test": difference.test if difference else "",
        "p": _or_nan(difference.p if difference else None),
        "p_adjusted": _or_nan(difference.p_adjusted if difference else None),
        "best_top_1_percent": _mean([max(percent(e.top_1 for e in run.log if e.top_1 is not None)) for run in runs]),
        "top_5_percent": _mean(percent(epoch.top_5 for epoch in last)),
        "epochs": group.runs[0].epochs,
        "minutes": _mean([epoch.total_seconds / 60 for epoch in last]),
        # All epochs of a run have the same number of images: its images per second is their harmonic mean, and its
        # share of waiting is that of its seconds.
        "images_per_second": _mean([statistics.harmonic_mean(s) if s else np.nan for s in map(_speeds, runs)]),
        "wait_share_percent": _mean([_wait_percent(run) for run in runs]),
        "unfinished": len(group.unfinished),
        "notes": _notes(group),
    }


def _speeds(run: Run) -> list[float]:
    return [e.images_per_second for e in run.log if e.images_per_second is not None]


def _wait_percent(run: Run) -> float:
    """Share of a run's training seconds, which are in proportion to 1 / images per second, in per cent."""
    timed = [
        (1 / e.images_per_second, e.wait_share) for e in run.log if e.images_per_second and e.wait_share is not None
    ]
    seconds = sum(second for second, _ in timed)
    return 100 * sum(second * share for second, share in timed) / seconds if timed else np.nan


def _notes(group: Group) -> str:
    notes = [f"{n} {progress}" for progress, n in Counter(run.progress for run in group.unfinished).items()]
    if len({run.hardware for run in group.finished}) > 1:
        notes.append("timed on different machines")
    return ", ".join(notes)


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else np.nan


def _number_text(value: float, decimals: int) -> str:
    return MISSING if np.isnan(value) else f"{value:.{decimals}f}"


def _spread_text(mean: float, sd: float) -> str:
    return MISSING if np.isnan(mean) else f"{mean:.2f} ± {_number_text(sd, 2)}"


def seeds_text(runs: int, seeds: int) -> str:
    """The number of seeds, and that of the runs where a seed was repeated."""
    return str(seeds) if runs == seeds else f"{runs} runs, {seeds} seed{'s' if seeds > 1 else ''}"


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
