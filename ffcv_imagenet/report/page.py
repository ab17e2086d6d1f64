"""The report as one HTML page: no scripts, nothing loaded from anywhere, the same bytes for the same runs."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from ffcv_imagenet.config import effect_of
from ffcv_imagenet.report.charts import Row, Series, Style, dot_chart, legend_key, line_chart
from ffcv_imagenet.report.comparison import Comparison, Inference, compare
from ffcv_imagenet.report.groups import (
    BASELINE,
    Group,
    curve,
    families,
    group_runs,
    is_relevant,
    natural,
    percent,
    top_1_percent,
)
from ffcv_imagenet.report.palette import DARK_COLOURS, LIGHT_COLOURS, colour_indices
from ffcv_imagenet.report.paper import PAPER_NOTE, beside_published
from ffcv_imagenet.report.runs import Run
from ffcv_imagenet.report.text import seeds_text, table
from ffcv_imagenet.run.log import EpochLog

STYLE_FILE = Path(__file__).with_name("page.css")
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


def render_page(runs: Sequence[Run], with_published: bool = False) -> str:
    """The whole page; ``with_published`` sets our rows beside the MaxSup paper's.

    Raises:
        ValueError: no runs.
    """
    if not runs:
        raise ValueError("no runs to report")
    names = _short_names(runs)
    groups = group_runs(runs)
    comparisons = compare(groups)
    styles = _styles(groups)
    rows = [row for _, row in table(runs).iterrows()]
    sections = []
    for number, family in enumerate(families(groups), start=1):
        places = [index for index, group in enumerate(groups) if group in family]
        sections.append(
            _family_section(
                number,
                [comparisons[i] for i in places],
                [rows[i] for i in places],
                [styles[i] for i in places],
                names,
            )
        )
    if with_published:
        sections.append(_published_section(comparisons))
    sections += [_notes_section(comparisons), _runs_section(runs, names)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Not even an escaped character that was forgotten could load or run anything.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>Losses compared</title>\n<style>\n{_style_sheet()}</style>\n</head>\n<body>\n"
        f"{_header(runs, groups)}<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def _style_sheet() -> str:
    def colours(of: Sequence[str]) -> str:
        return "".join(f".c{index}{{color:{colour}}}" for index, colour in enumerate(of))

    return (
        f"{STYLE_FILE.read_text()}{colours(LIGHT_COLOURS)}\n"
        f"@media screen and (prefers-color-scheme:dark){{{colours(DARK_COLOURS)}}}\n"
    )


def _header(runs: Sequence[Run], groups: Sequence[Group]) -> str:
    finished = sum(run.finished for run in runs)
    days = sorted({str(run.params["started"])[:10] for run in runs if "started" in run.params})
    when = "" if not days else f", started on {days[0]}" if len(days) == 1 else f", started {days[0]} to {days[-1]}"
    losses = len({group.loss for group in groups})
    counts = f"{_count(len(runs), 'run')} of {_count(losses, 'loss', 'losses')}, {finished} finished{when}"
    return f"<header>\n<h1>Losses compared</h1>\n<p>{escape(counts)}</p>\n</header>\n"


def _family_section(
    number: int,
    comparisons: Sequence[Comparison],
    rows: Sequence[pd.Series],
    styles: Sequence[Style],
    names: dict[Path, str],
) -> str:
    """The runs of one architecture and recipe: table, charts, and in what they differ."""
    groups = [comparison.group for comparison in comparisons]
    title = f"{groups[0].architecture}, recipe {groups[0].recipe}"
    parts = [
        f'<section aria-labelledby="family{number}">\n<h2 id="family{number}">{escape(title)}</h2>\n',
        _table(comparisons, rows, styles),
        _missing_figures(comparisons),
        _unfinished(groups, names),
        _legend(groups, styles),
        '<div class="charts">\n',
        _figure("Top-1 (%) after the last epoch", _last_top_1(comparisons, styles), _dots_caption(comparisons)),
        _figure(
            f"Difference from {BASELINE} (points)", _differences(comparisons, styles), _difference_caption(comparisons)
        ),
        *_curves(groups, styles),
        "</div>\n",
        _differing_options([run for group in groups for run in group.runs], names),
        "</section>\n",
    ]
    return "".join(parts)


def _table(comparisons: Sequence[Comparison], rows: Sequence[pd.Series], styles: Sequence[Style]) -> str:
    headers = [
        ("loss", ""),
        ("seeds", "finished runs"),
        ("top-1 (%)", "last, mean ± sd, 95 % interval"),
        (f"from {BASELINE}", "points, 95 % interval"),
        ("p", "two-sided"),
        ("best (%)", "top-1"),
        ("top-5 (%)", ""),
        ("epochs", ""),
        ("time (min)", "per run"),
        ("images/s", "training"),
        ("waiting (%)", "for data"),
    ]
    head = "".join(f'<th scope="col">{escape(name)}{_small(text)}</th>' for name, text in headers)
    body = "".join(_table_row(*triple) for triple in zip(comparisons, rows, styles, strict=True))
    return _scrolling_table(
        "Mean over finished runs that differ in nothing but the seed.", f"<tr>{head}</tr>", body, "losses"
    )


def _table_row(comparison: Comparison, row: pd.Series, style: Style) -> str:
    group, mean = comparison.group, comparison.mean
    name = f"{legend_key(style)} {escape(group.loss)}{_small(group.differs_in)}{_small(row.notes)}"
    cells = [
        escape(seeds_text(row.runs, row.seeds)),
        _mean_text(mean) + _small(_interval(mean)),
        *_difference_cells(comparison.difference),
        _number(row.best_top_1_percent, 2),
        _number(row.top_5_percent, 2),
        str(row.epochs),
        _number(row.minutes, 1 if row.minutes >= 10 else 2),
        _number(row.images_per_second, 0),
        _number(row.wait_share_percent, 1),
    ]
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'


def _difference_cells(difference: Inference | None) -> tuple[str, str]:
    if difference is None:
        return _DASH, _DASH
    points = _signed(difference.mean) + _small(_interval(difference, signed=True))
    if difference.p is None:
        return points, _DASH
    adjusted = "" if difference.p_adjusted is None else f"adjusted {_p_text(difference.p_adjusted)}"
    return points, escape(_p_text(difference.p)) + _small(adjusted) + _small(difference.test) + _small(difference.n)


def _missing_figures(comparisons: Sequence[Comparison]) -> str:
    """What the table cannot give, and why: a line per reason, not one per cell."""
    reasons: dict[str, list[str]] = {}
    for c in comparisons:
        if c.mean is None:
            why = ["No figures (no finished run)"]
        else:
            why = [f"No interval of the mean ({c.mean.why_not})"] if c.mean.why_not else []
        if c.why_no_difference:
            why.append(f"No difference ({c.why_no_difference})")
        elif c.difference and c.difference.why_not:
            why.append(f"No test of the difference ({c.difference.why_not})")
        for text in why:
            reasons.setdefault(text, []).append(_label(c.group))
    items = "".join(f"<li>{escape(why)}: {escape(', '.join(labels))}.</li>\n" for why, labels in reasons.items())
    return f'<ul class="plain missing">\n{items}</ul>\n' if items else ""


def _unfinished(groups: Sequence[Group], names: dict[Path, str]) -> str:
    items = []
    for run in (run for group in groups for run in group.unfinished):
        reason = f": {' '.join(run.error.split())}" if run.error else ""
        items.append(f"<li><code>{escape(names[run.folder])}</code> ({escape(run.progress + ')' + reason)}</li>\n")
    return f'<p>Not in the figures:</p>\n<ul class="plain">\n{"".join(items)}</ul>\n' if items else ""


def _legend(groups: Sequence[Group], styles: Sequence[Style]) -> str:
    items = "".join(
        f"<li>{legend_key(style)} {escape(_label(group))}</li>\n" for group, style in zip(groups, styles, strict=True)
    )
    return f'<ul class="legend" aria-label="Legend of the charts">\n{items}</ul>\n'


def _last_top_1(comparisons: Sequence[Comparison], styles: Sequence[Style]) -> str:
    rows = [
        Row(_label(c.group), style, _last_values(c.group.finished), c.mean.mean, _ends(c.mean))
        for c, style in zip(comparisons, styles, strict=True)
        if c.mean
    ]
    means = "; ".join(f"{row.label} {row.mean:.2f}" for row in rows)
    return dot_chart(
        rows, title=f"Top-1 of each run after the last epoch, in per cent. Means: {means}", x_title="top-1 (%)"
    )


def _differences(comparisons: Sequence[Comparison], styles: Sequence[Style]) -> str:
    rows = [
        Row(_label(c.group), style, (), c.difference.mean, _ends(c.difference))
        for c, style in zip(comparisons, styles, strict=True)
        if c.difference
    ]
    means = "; ".join(f"{row.label} {_signed(row.mean)}" for row in rows)
    title = f"Differences of mean top-1 from {BASELINE} in percentage points: {means}"
    return dot_chart(rows, title=title, x_title="percentage points", zero_line=True)


def _dots_caption(comparisons: Sequence[Comparison]) -> str:
    text = "A marker per run, a bar at the mean of several."
    if any(c.mean and c.mean.low is not None for c in comparisons):
        text += " The line is the 95 % interval of the mean; with an arrow it goes on beyond the chart."
    return text


def _difference_caption(comparisons: Sequence[Comparison]) -> str:
    if not any(c.difference for c in comparisons):
        return f"There is no finished run of {BASELINE} to compare with."
    text = "A bar at the difference of the means."
    if any(c.difference and c.difference.low is not None for c in comparisons):
        return text + " The line is its 95 % interval; with an arrow it goes on beyond the chart."
    return text + " One run says nothing about how much of it is chance."


def _curves(groups: Sequence[Group], styles: Sequence[Style]) -> list[str]:
    longest = max((run.log[-1].total_seconds / 60 for group in groups for run in group.runs if run.log), default=0.0)
    unit, minutes = ("h", 60.0) if longest >= _HOURS_FROM else ("min", 1.0)
    top_1 = _series(groups, styles, top_1_percent)
    over_time = _series(groups, styles, top_1_percent, minutes_per_unit=minutes)
    speed = _series(groups, styles, lambda e: e.images_per_second)
    waiting = _series(groups, styles, lambda e: None if e.wait_share is None else 100 * e.wait_share)
    several = any(len(group.finished) > 1 for group in groups)
    band = "The band goes from the lowest to the highest run. " if several else ""
    thin = "Thin lines are unfinished runs." if any(group.unfinished for group in groups) else ""
    caption = (band + thin).strip()
    return [
        _figure(
            "Top-1 (%) over epochs",
            line_chart(top_1, title="Top-1 in per cent over epochs", x_title="epochs"),
            caption,
        ),
        _figure(
            "Top-1 (%) over time",
            line_chart(over_time, title="Top-1 in per cent over time", x_title=unit),
            f"Wall-clock time of a run in {'hours' if unit == 'h' else 'minutes'}, with validation. {caption}".strip(),
        ),
        _figure(
            "Throughput (images/s)",
            line_chart(speed, title="Training images per second", x_title="epochs", y_from_zero=True),
            "Training images per second over all processes, by epoch.",
        ),
        _figure(
            "Waiting for data (%)",
            line_chart(
                waiting,
                title="Share of the training time spent waiting for data, in per cent",
                x_title="epochs",
                y_from_zero=True,
            ),
            "Share of the training time in which the model had no batch to work on.",
        ),
    ]


def _series(
    groups: Sequence[Group],
    styles: Sequence[Style],
    value: Callable[[EpochLog], float | None],
    minutes_per_unit: float | None = None,
) -> list[Series]:
    """A line for the finished runs of each group and a thin one for each other run; over time where asked for."""
    series = []
    for group, style in zip(groups, styles, strict=True):
        parts = [(group.finished, _label(group), False)] if group.finished else []
        parts += [((run,), f"{_label(group)}, {run.progress}", True) for run in group.unfinished]
        for runs, label, thin in parts:
            epochs, minutes, values = curve(runs, value)
            x = epochs if minutes_per_unit is None else minutes / minutes_per_unit
            if len(epochs):
                low, high = values.min(axis=0), values.max(axis=0)
                series.append(Series(label, style, x.tolist(), values.mean(axis=0).tolist(), low, high, thin))
    return series


def _differing_options(runs: Sequence[Run], names: dict[Path, str]) -> str:
    flat = {run.folder: _settings(run) for run in runs}
    rows = []
    for key in sorted({key for settings in flat.values() for key in settings}):
        if key in _NOT_COMPARED or not effect_of(key).shown:
            continue
        texts: dict[str, list[Run]] = {}
        for run in runs:
            texts.setdefault(flat[run.folder].get(key, "(absent)"), []).append(run)
        by_loss = [{flat[r.folder].get(key) for r in runs if r.loss == loss} for loss in {r.loss for r in runs}]
        if len(texts) < 2 or (key.startswith("loss.") and all(len(values) == 1 for values in by_loss)):
            continue
        apart = key in runs[0].options and is_relevant(key)
        values = "".join(
            f"<li><code>{escape(text)}</code> {_small(_names(having, names))}</li>"
            for text, having in sorted(texts.items(), key=lambda item: natural(item[0]))
        )
        rows.append(
            f'<tr><th scope="row"><code>{escape(key)}</code></th>'
            f'<td class="text"><ul class="plain">{values}</ul></td>'
            f'<td class="text">{"kept apart" if apart else "averaged all the same"}</td></tr>\n'
        )
    if not rows:
        return "<p>The runs differ in nothing but the loss, its options and the seed.</p>\n"
    head = (
        '<tr><th scope="col">option</th><th scope="col" class="text">values</th>'
        '<th scope="col" class="text">such runs are</th></tr>'
    )
    return "<h3>What differs besides loss and seed</h3>\n" + _scrolling_table(
        "Options, data, versions and hardware that are not the same in all of these runs.",
        head,
        "".join(rows),
        "differences",
    )


def _published_section(comparisons: Sequence[Comparison]) -> str:
    rows = []
    for pair in beside_published(comparisons):
        group = pair.ours.group if pair.ours else None
        mean = pair.ours.mean if pair.ours else None
        published = f"{pair.published.top_1:.2f} ± {pair.published.sd:.2f}" if pair.published else _DASH
        rows.append(
            f'<tr><th scope="row">{escape(pair.architecture)}, {escape(pair.loss)}'
            f"{_small(group.differs_in) if group else ''}</th>"
            f'<td class="text">{escape(group.recipe) if group else _DASH}</td>'
            f"<td>{group.runs[0].epochs if group else _DASH}</td>"
            f"<td>{len(group.finished) if group else 0}</td><td>{_mean_text(mean)}</td>"
            f'<td class="published">{published}</td></tr>\n'
        )
    names = ("architecture, loss", "our recipe", "our epochs", "our runs", "ours, top-1 (%)", "published, top-1 (%)")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        '<section aria-labelledby="published">\n<h2 id="published">Beside published figures</h2>\n'
        + _scrolling_table(
            "Last epoch, mean ± standard deviation.", f"<tr>{head}</tr>", "".join(rows), "published figures"
        )
        + f"<p>{escape(PAPER_NOTE)}</p>\n</section>\n"
    )


def _notes_section(comparisons: Sequence[Comparison]) -> str:
    tests = sum(c.difference is not None and c.difference.p is not None for c in comparisons)
    notes = [
        "Only finished runs enter the figures, and runs are averaged only when they differ in nothing that changes "
        "what is learned.",
        "± is the sample standard deviation over seeds. The 95 % interval of a mean is Student's: it says how far the "
        "mean of so few seeds may be from the mean of many, not how another validation set would come out. From two or "
        "three seeds it is wide and may even leave 0 to 100 %.",
        f"A difference from {BASELINE} is tested with a paired t-test where both losses were run with the same seeds "
        "(same initial weights, same order of images), else with Welch's t-test. p is the probability of a difference "
        "at least this large if the losses were equal; a large p does not show that they are.",
    ]
    if tests > 1:
        notes.append(
            f"{tests} differences are tested on this page; the more tests, the likelier a small p by chance. "
            "Adjusted p-values take that into account (Holm's method)."
        )
    notes.append("Best top-1 is chosen on the validation images themselves and therefore optimistic; compare the last.")
    items = "".join(f"<li>{escape(note)}</li>\n" for note in notes)
    return f'<section aria-labelledby="notes">\n<h2 id="notes">How to read this</h2>\n<ul>\n{items}</ul>\n</section>\n'


def _runs_section(runs: Sequence[Run], names: dict[Path, str]) -> str:
    details = []
    for run in runs:
        state = "finished" if run.finished else run.progress
        seed = "no seed" if run.seed is None else f"seed {run.seed}"
        top_1 = f", top-1 {100 * run.log[-1].top_1:.2f} %" if run.finished and run.log[-1].top_1 is not None else ""
        rows = "".join(
            f'<tr><th scope="row">{escape(key)}</th><td class="text">{escape(text)}</td></tr>\n'
            for key, text in _parameters(run)
        )
        details.append(
            f"<details>\n<summary><code>{escape(names[run.folder])}</code> "
            f"<span>{escape(f'{run.loss}, {seed}, {state}{top_1}')}</span></summary>\n"
            + _scrolling_table("All parameters, from params.json.", "", rows, f"parameters of {names[run.folder]}")
            + "</details>\n"
        )
    return f'<section aria-labelledby="runs">\n<h2 id="runs">Runs</h2>\n{"".join(details)}</section>\n'


def _scrolling_table(caption: str, head: str, body: str, name: str) -> str:
    """A table that scrolls inside its box where the page is narrow; the box can be reached by the keyboard."""
    thead = f"<thead>{head}</thead>\n" if head else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(f"Table: {name}")}">\n<table>\n'
        f"<caption><span>{escape(caption)}</span></caption>\n{thead}<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )


def _figure(title: str, chart: str, caption: str) -> str:
    return f"<figure>\n<h3>{escape(title)}</h3>\n{chart}\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n"


def _styles(groups: Sequence[Group]) -> list[Style]:
    colours = colour_indices(group.loss for group in groups)
    variants: Counter[tuple[str, str, str]] = Counter()
    styles = []
    for group in groups:
        key = (group.architecture, group.recipe, group.loss)
        styles.append(Style(colours[group.loss], variants[key]))
        variants[key] += 1
    return styles


def _label(group: Group) -> str:
    return f"{group.loss} ({group.differs_in})" if group.differs_in else group.loss


def _last_values(runs: Iterable[Run]) -> list[float]:
    return percent(run.log[-1].top_1 for run in runs)


def _ends(inference: Inference) -> tuple[float, float] | None:
    return None if inference.low is None or inference.high is None else (inference.low, inference.high)


def _mean_text(mean: Inference | None) -> str:
    if mean is None:
        return _DASH
    return f"{mean.mean:.2f}" if mean.sd is None else f"{mean.mean:.2f} ± {mean.sd:.2f}"


def _interval(inference: Inference | None, signed: bool = False) -> str:
    ends = _ends(inference) if inference else None
    text: Callable[[float], str] = _signed if signed else "{:.2f}".format
    return f"{text(ends[0])} to {text(ends[1])}" if ends else ""


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _number(value: float, decimals: int) -> str:
    return _DASH if math.isnan(value) else f"{value:.{decimals}f}"


def _p_text(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}" if p < 0.01 else f"{p:.2f}"


def _small(text: str) -> str:
    return f"<small>{escape(text)}</small>" if text else ""


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _names(runs: Sequence[Run], names: dict[Path, str]) -> str:
    shown = ", ".join(names[run.folder] for run in runs[:_NAMES_SHOWN])
    return shown if len(runs) <= _NAMES_SHOWN else f"{shown} and {len(runs) - _NAMES_SHOWN} more"


def _short_names(runs: Sequence[Run]) -> dict[Path, str]:
    """The runs' folders below the deepest folder that holds them all: the same wherever that lies."""
    root = os.path.commonpath([run.folder.parent for run in runs])
    return {run.folder: run.folder.relative_to(root).as_posix() for run in runs}


def _settings(run: Run) -> dict[str, str]:
    """All of params.json as dotted keys; what is compared, as in ``options``."""
    return dict(_parameters(run)) | run.options


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
