"""A PNG of top-1 over epochs, over the last of them, and over time."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ffcv_imagenet.report.comparison import mean_interval
from ffcv_imagenet.report.groups import Curve, Group, curve, families, group_runs, last_fifth, top_1_percent
from ffcv_imagenet.report.output import save
from ffcv_imagenet.report.palette import DASHES, LIGHT_COLOURS, MARKERS, Style, styles
from ffcv_imagenet.report.runs import Run


def plot(runs: Iterable[Run], path: str | Path) -> None:
    """Save a PNG of top-1 (%) over epochs, over the last fifth of them and over minutes, a row per family.

    A thick line is the mean of the finished runs of a loss, the band around it goes from the lowest to the
    highest run; thin lines are unfinished runs. Over minutes, an epoch is drawn at its mean time.

    Raises:
        ValueError: no runs, or a file name that does not end in ``.png``.
        FileNotFoundError: the file's folder is not there.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"plot file: got {str(path)!r}, allowed is a name that ends in .png")
    groups = group_runs(runs)
    rows = families(list(zip(groups, styles(groups), strict=True)), of=lambda pair: pair[0])
    if not rows:
        raise ValueError("no runs to plot")

    figure = Figure(figsize=(16, 4 * len(rows)), dpi=150, layout="constrained")
    panels = figure.subplots(len(rows), 3, squeeze=False)
    for (left, middle, right), family in zip(panels, rows, strict=True):
        members = [group for group, _ in family]
        left.set_title(f"{members[0].architecture}, recipe {members[0].recipe}", loc="left")
        left.set(xlabel="epochs", ylabel="top-1 (%)")
        middle.set(xlabel="epochs, the last fifth")
        right.set(xlabel="time (min)")
        end = last_fifth(members)
        for group, style in family:
            _draw(group, left, middle, right, style, end)
        for panel in (left, middle, right):
            panel.grid(color="0.9")
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
        for panel in (left, middle):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set_xlim(left=0)
        right.set_xlim(left=0)
        right.sharey(left)
        if right.get_legend_handles_labels()[0]:
            band = any(len(group.finished) > 1 for group in members)
            right.legend(
                title="last top-1 (%), mean ± sd over seeds; band: min to max" if band else "last top-1 (%)",
                loc="upper left",
                bbox_to_anchor=(1.02, 1),
                frameon=False,
                alignment="left",
                handlelength=4,
            )
    image = io.BytesIO()
    figure.savefig(image, format="png")
    save(Path(path), image.getvalue())


def _draw(group: Group, left: Axes, middle: Axes, right: Axes, style: Style, end: int) -> None:
    """Draw a group over epochs into the left panel, from ``end`` into the middle one, over minutes into the right one.

    The labels of the legend go with the right one.
    """
    name = f"{group.loss} ({group.differs_in.replace(', ', chr(10))})" if group.differs_in else group.loss
    if group.finished:
        mean = mean_interval(list(group.top_1_by_seed.values()))
        spread = f" ± {mean.sd:.2f}, {mean.n} seeds" if mean.sd is not None else ", 1 seed"
        label = f"{name}: {mean.mean:.2f}{spread}"
        _draw_curve(curve(group.finished, top_1_percent), left, middle, right, style, end, label, width=1.6)
    for run in group.unfinished:
        label = f"{name}: {run.progress}"
        _draw_curve(curve([run], top_1_percent), left, middle, right, style, end, label, width=0.7)


def _draw_curve(
    line: Curve, left: Axes, middle: Axes, right: Axes, style: Style, end: int, label: str, width: float
) -> None:
    colour, dash = LIGHT_COLOURS[style.colour], DASHES[style.dash]
    late = sum(epoch < end for epoch in line.epochs)
    for panel, x, first in ((left, line.epochs, 0), (middle, line.epochs, late), (right, line.minutes, 0)):
        if len(x) == first:
            continue
        panel.plot(
            x[first:],
            line.mean[first:],
            linestyle=(0, [length / 2 for length in dash]) if dash else "-",
            color=colour,
            lw=width,
            marker=MARKERS[style.marker].matplotlib,
            ms=4 if width > 1 else 2.5,
            label=label,
        )
        if line.low != line.high:
            panel.fill_between(x[first:], line.low[first:], line.high[first:], color=colour, alpha=0.2, lw=0)
