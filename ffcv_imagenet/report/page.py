"""The report as one HTML page: no scripts, nothing loaded from anywhere, the same bytes for the same runs.

``page.html.j2`` is the page, which escapes all texts; this module computes what it shows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ffcv_imagenet.config import effect_of
from ffcv_imagenet.report.charts import Row, Series, dot_chart, legend_key, line_chart
from ffcv_imagenet.report.comparison import ALPHA, POWER, Comparison, Inference, compare
from ffcv_imagenet.report.groups import (
    BASELINE,
    Group,
    curve,
    families,
    group_runs,
    is_relevant,
    last_fifth,
    natural,
    top_1_percent,
)
from ffcv_imagenet.report.measured import MeasuredTable, measured_tables
from ffcv_imagenet.report.palette import Style, styles
from ffcv_imagenet.report.paper import MEASURED_NOTE, PAPER_NOTE, Published, beside_published
from ffcv_imagenet.report.planning import needed_text
from ffcv_imagenet.report.runs import LeftOut, Run
from ffcv_imagenet.report.table import TableRow, ks, seeds_text, table_row
from ffcv_imagenet.report.template import page_environment, style_sheet
from ffcv_imagenet.run.log import EpochLog

TEMPLATE_FILE = Path(__file__).with_name("page.html.j2")
#: Entries of params.json that always differ between runs or are shown elsewhere.
_NOT_COMPARED = (
    "name",
    "command",
    "started",
    "resumed",
    "launcher",
    "compilation_seconds",
    "loss.name",
)
#: From this many minutes on, time axes are in hours.
_HOURS_FROM = 180.0
_NAMES_SHOWN = 4
_DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Entry:
    """A group of runs as the page shows it: a row of the table and a line of the charts."""

    comparison: Comparison
    style: Style

    @property
    def group(self) -> Group:
        """The runs."""
        return self.comparison.group

    @property
    def row(self) -> TableRow:
        """Their figures."""
        return table_row(self.comparison)

    @property
    def label(self) -> str:
        """The name in legends and charts."""
        return f"{self.group.loss} ({self.group.differs_in})" if self.group.differs_in else self.group.loss

    @property
    def key(self) -> Markup:
        """A picture of how it is drawn."""
        return Markup(legend_key(self.style))


@dataclass(frozen=True)
class Figure:
    """A chart with its title and caption."""

    title: str
    chart: Markup
    caption: str


@dataclass(frozen=True)
class Option:
    """An option in which runs differ: its values with the names of the runs that have them."""

    name: str
    values: list[tuple[str, str]]
    kept_apart: bool


@dataclass(frozen=True)
class Family:
    """The section of one architecture and recipe.

    ``ks`` are the k of its top-k scores, ``tests`` is the number of differences tested, ``missing`` are reasons for
    figures that cannot be given, with the labels of the groups, ``needed`` lines on the number of seeds,
    ``unfinished`` names of runs with what became of them.
    """

    title: str
    entries: list[Entry]
    ks: list[int]
    tests: int
    missing: list[tuple[str, list[str]]]
    needed: list[str]
    unfinished: list[tuple[str, str]]
    figures: list[Figure]
    options: list[Option]
    measured: list[MeasuredTable]


def render_page(runs: Sequence[Run], left_out: Sequence[LeftOut] = (), with_published: bool = False) -> str:
    """The whole page; ``with_published`` sets our rows next to the MaxSup paper's.

    Raises:
        ValueError: no runs.
    """
    if not runs:
        raise ValueError("no runs to report")
    folders = [*(run.folder for run in runs), *(run.folder for run in left_out)]
    root = os.path.commonpath([folder.parent for folder in folders])
    names = {folder: folder.relative_to(root).as_posix() for folder in folders}
    groups = group_runs(runs)
    comparisons = compare(groups)
    drawn = styles([comparison.group for comparison in comparisons])
    entries = [Entry(*pair) for pair in zip(comparisons, drawn, strict=True)]
    return (
        page_environment(TEMPLATE_FILE.parent, _FILTERS)
        .get_template(TEMPLATE_FILE.name)
        .render(
            style_sheet=style_sheet(),
            counts=_counts(runs, groups),
            families=[
                _family(family, names, with_published) for family in families(entries, of=lambda entry: entry.group)
            ],
            pairs=beside_published(comparisons) if with_published else None,
            runs=[_run(run, names) for run in runs],
            left_out=[(names[run.folder], run.reason.replace(f"{root}{os.sep}", "")) for run in left_out],
            baseline=BASELINE,
            paper_note=PAPER_NOTE,
            measured_note=MEASURED_NOTE,
            dash=_DASH,
        )
    )


def _counts(runs: Sequence[Run], groups: Sequence[Group]) -> str:
    finished = sum(run.finished for run in runs)
    days = sorted({str(run.params["started"])[:10] for run in runs if "started" in run.params})
    when = "" if not days else f", started on {days[0]}" if len(days) == 1 else f", started {days[0]} to {days[-1]}"
    losses = len({group.loss for group in groups})
    return f"{_count(len(runs), 'run')} of {_count(losses, 'loss', 'losses')}, {finished} finished{when}"


def _family(entries: list[Entry], names: dict[Path, str], with_published: bool) -> Family:
    groups = [entry.group for entry in entries]
    return Family(
        title=f"{groups[0].architecture}, recipe {groups[0].recipe}",
        entries=entries,
        ks=ks(entry.row for entry in entries),
        tests=max((d.tests or 0 for e in entries if (d := e.comparison.difference)), default=0),
        missing=_missing(entries),
        needed=_needed(entries),
        unfinished=[_unfinished(run, names) for group in groups for run in group.unfinished],
        figures=[_last_top_1(entries), _differences(entries), *_curves(entries)],
        options=_differing_options([run for group in groups for run in group.runs], names),
        measured=measured_tables(groups, with_published),
    )


def _missing(entries: Iterable[Entry]) -> list[tuple[str, list[str]]]:
    """What the table cannot give, and why: a line per reason, not one per cell."""
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        c = entry.comparison
        if c.mean is None:
            why = ["No figures (no finished run)"]
        else:
            why = [f"No interval of the mean ({c.mean.why_not})"] if c.mean.why_not else []
        if c.why_no_difference:
            why.append(f"No difference ({c.why_no_difference})")
        elif c.difference and c.difference.why_not:
            why.append(f"No test of the difference ({c.difference.why_not})")
        for text in why:
            reasons.setdefault(text, []).append(entry.label)
    return list(reasons.items())


def _needed(entries: Iterable[Entry]) -> list[str]:
    tested = [(e.label, d) for e in entries if (d := e.comparison.difference) and d.seeds_needed is not None]
    if not tested:
        return []
    tests = tested[0][1].tests
    level = f"{ALPHA:.0%}" if tests == 1 else f"{ALPHA:.0%} / {tests} tests"
    each = ", ".join(f"{label} {needed_text(d.seeds_needed or 0)}" for label, d in tested)
    return [
        f"Seeds of each loss that a difference of the size seen would take (power {POWER}, {level}): {each}.".replace(
            "%", " %"
        )
    ]


def _unfinished(run: Run, names: dict[Path, str]) -> tuple[str, str]:
    reason = f": {' '.join(run.error.split())}" if run.error else ""
    return names[run.folder], f"({run.progress}){reason}"


def _last_top_1(entries: Iterable[Entry]) -> Figure:
    rows = [
        Row(e.label, e.style, [100 * run.last_top_1 for run in e.group.finished], mean.mean, _ends(mean))
        for e in entries
        if (mean := e.comparison.mean)
    ]
    means = "; ".join(f"{row.label} {row.mean:.2f}" for row in rows)
    caption = "A marker per run, a bar at the mean of several."
    if any(row.interval for row in rows):
        caption += " The line is the 95 % interval of the mean; with an arrow it goes on beyond the chart."
    title = f"Top-1 of each run after the last epoch, in per cent. Means: {means}"
    chart = dot_chart(rows, title=title, x_title="top-1 (%)")
    return Figure("Top-1 (%) after the last epoch", Markup(chart), caption)


def _differences(entries: Iterable[Entry]) -> Figure:
    rows = [
        Row(e.label, e.style, (), difference.mean, _ends(difference))
        for e in entries
        if (difference := e.comparison.difference)
    ]
    means = "; ".join(f"{row.label} {_signed(row.mean)}" for row in rows)
    title = f"Differences of mean top-1 from {BASELINE} in percentage points: {means}"
    if not rows:
        caption = f"There is no finished run of {BASELINE} to compare with."
    elif any(row.interval for row in rows):
        caption = (
            "A bar at the difference of the means. The line is its 95 % interval, not adjusted; with an arrow it goes "
            "on beyond the chart."
        )
    else:
        caption = "A bar at the difference of the means. One run says nothing about how much of it is chance."
    chart = dot_chart(rows, title=title, x_title="percentage points", zero_line=True)
    return Figure(f"Difference from {BASELINE} (points)", Markup(chart), caption)


def _curves(entries: Sequence[Entry]) -> list[Figure]:
    groups = [entry.group for entry in entries]
    longest = max((run.log[-1].total_seconds / 60 for group in groups for run in group.runs if run.log), default=0.0)
    unit, minutes, unit_name = ("h", 60.0, "hours") if longest >= _HOURS_FROM else ("min", 1.0, "minutes")
    top_1 = _series(entries, top_1_percent)
    over_time = _series(entries, top_1_percent, minutes_per_unit=minutes)
    speed = _series(entries, lambda e: e.images_per_second)
    waiting = _series(entries, lambda e: None if e.wait_share is None else 100 * e.wait_share)
    end = last_fifth(groups)
    several = any(len(group.finished) > 1 for group in groups)
    band = "The band goes from the lowest to the highest run. " if several else ""
    thin = "Thin lines are unfinished runs." if any(group.unfinished for group in groups) else ""
    caption = (band + thin).strip()
    end_title = "Top-1 in per cent over the last fifth of the epochs"
    wait_title = "Share of the training time spent waiting for data, in per cent"
    charts = [
        (
            "Top-1 (%) over epochs",
            line_chart(top_1, title="Top-1 in per cent over epochs", x_title="epochs", x_whole=True),
            caption,
        ),
        (
            "Top-1 (%) over the last fifth of the epochs",
            line_chart(top_1, title=end_title, x_title="epochs", x_from=end, x_whole=True),
            f"The end of the chart of all epochs, on a scale of its own. {caption}",
        ),
        (
            "Top-1 (%) over time",
            line_chart(over_time, title="Top-1 in per cent over time", x_title=unit),
            f"Wall-clock time of a run in {unit_name}, with validation. {caption}",
        ),
        (
            "Throughput (images/s)",
            line_chart(speed, title="Training images per second", x_title="epochs", y_from_zero=True, x_whole=True),
            "Training images per second over all processes, by epoch.",
        ),
        (
            "Waiting for data (%)",
            line_chart(waiting, title=wait_title, x_title="epochs", y_from_zero=True, x_whole=True),
            "Share of the training time in which the model had no batch to work on.",
        ),
    ]
    return [Figure(title, Markup(chart), text.strip()) for title, chart, text in charts]


def _series(
    entries: Iterable[Entry], value: Callable[[EpochLog], float | None], minutes_per_unit: float | None = None
) -> list[Series]:
    """A line for the finished runs of each group and a thin one for each other run; over time where asked for."""
    series = []
    for entry in entries:
        group = entry.group
        parts = [(group.finished, entry.label, False)] if group.finished else []
        parts += [((run,), f"{entry.label}, {run.progress}", True) for run in group.unfinished]
        for runs, label, thin in parts:
            line = curve(runs, value)
            x = line.epochs if minutes_per_unit is None else [minute / minutes_per_unit for minute in line.minutes]
            series.append(Series(label, entry.style, x, line.mean, line.low, line.high, thin))
    return series


def _differing_options(runs: Sequence[Run], names: dict[Path, str]) -> list[Option]:
    flat = {run.folder: dict(_parameters(run)) | run.options for run in runs}
    options = []
    for key in sorted({key for settings in flat.values() for key in settings}):
        if key in _NOT_COMPARED or not effect_of(key).shown:
            continue
        texts: dict[str, list[Run]] = {}
        for run in runs:
            texts.setdefault(flat[run.folder].get(key, "(absent)"), []).append(run)
        by_loss = [{flat[r.folder].get(key) for r in runs if r.loss == loss} for loss in {r.loss for r in runs}]
        if len(texts) < 2 or (key.startswith("loss.") and all(len(values) == 1 for values in by_loss)):
            continue
        values = sorted(texts.items(), key=lambda item: natural(item[0]))
        kept_apart = key in runs[0].options and is_relevant(key)
        options.append(Option(key, [(text, _names(having, names)) for text, having in values], kept_apart))
    return options


def _run(run: Run, names: dict[Path, str]) -> dict[str, Any]:
    state = f"finished, top-1 {100 * run.last_top_1:.2f} %" if run.finished else run.progress
    seed = "no seed" if run.seed is None else f"seed {run.seed}"
    return {
        "name": names[run.folder],
        "summary": f"{run.loss}, {seed}, {state}",
        "parameters": _parameters(run),
    }


def _ends(inference: Inference) -> tuple[float, float] | None:
    return None if inference.low is None or inference.high is None else (inference.low, inference.high)


def _mean_text(mean: Inference | None) -> str:
    if mean is None:
        return _DASH
    return f"{mean.mean:.2f}" if mean.sd is None else f"{mean.mean:.2f} ± {mean.sd:.2f}"


def _interval(inference: Inference | None, form: str = ".2f") -> str:
    ends = _ends(inference) if inference else None
    return f"{_minus(format(ends[0], form))} to {_minus(format(ends[1], form))}" if ends else ""


def _signed(value: float) -> str:
    return _minus(f"{value:+.2f}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _number(value: float | None, decimals: int) -> str:
    return _DASH if value is None else f"{value:.{decimals}f}"


def _p_text(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}" if p < 0.01 else f"{p:.2f}"


def _published(row: Published) -> str:
    return f"{row.top_1:.2f} ± {row.sd:.2f}"


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _names(runs: Sequence[Run], names: dict[Path, str]) -> str:
    shown = ", ".join(names[run.folder] for run in runs[:_NAMES_SHOWN])
    return shown if len(runs) <= _NAMES_SHOWN else f"{shown} and {len(runs) - _NAMES_SHOWN} more"


def _parameters(run: Run) -> list[tuple[str, str]]:
    """All of params.json as dotted keys, the options without their ``config.``."""
    return [(key.removeprefix("config."), text) for key, text in _flatten(run.params)]


def _flatten(params: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested objects as (dotted key, text), in the order of the file."""
    rows = []
    for key, value in params.items():
        if isinstance(value, dict):
            rows += _flatten(value, f"{prefix}{key}.")
        elif key == "command" and isinstance(value, list):
            rows.append((prefix + key, " ".join(map(str, value))))
        else:
            rows.append((prefix + key, value if isinstance(value, str) else json.dumps(value)))
    return rows


#: How the page writes figures.
_FILTERS: dict[str, Callable[..., str]] = {
    "seeds": seeds_text,
    "mean": _mean_text,
    "interval": _interval,
    "signed": _signed,
    "number": _number,
    "p": _p_text,
    "published": lambda row: _DASH if row is None else _published(row),
}
