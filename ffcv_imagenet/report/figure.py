"""A PNG of top-1 over epochs and over time."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ffcv_imagenet.report.groups import Group, curve, families, group_runs, top_1_percent
from ffcv_imagenet.report.output import save
from ffcv_imagenet.report.palette import COLOURS, LINE_STYLES, colour_indices
from ffcv_imagenet.report.runs import Run


def plot(runs: Iterable[Run], path: str | Path) -> None:
    """Save a PNG of top-1 (%) over epochs and over minutes, a pair of panels per architecture and recipe.

    A thick line is the mean of the finished runs of a loss, the band around it goes from the lowest to the
    highest run; thin lines are unfinished runs. Over minutes, an epoch stands at its mean time.

    Raises:
        ValueError: no runs, or a file name that does not end in ``.png``.
        FileNotFoundError: the file's folder is not there.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"plot file: got {str(path)!r}, allowed is a name that ends in .png")
    rows = families(group_runs(runs))
    if not rows:
        raise ValueError("no runs to plot")
    colours = colour_indices(group.loss for groups in rows for group in groups)

    figure = Figure(figsize=(12, 4 * len(rows)), dpi=150, layout="constrained")
    panels = figure.subplots(len(rows), 2, squeeze=False, sharey="row")
    for (left, right), groups in zip(panels, rows, strict=True):
        left.set_title(f"{groups[0].architecture}, recipe {groups[0].recipe}", loc="left")
        left.set(xlabel="epochs", ylabel="top-1 (%)")
        right.tick_params(labelleft=True)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set(xlabel="time (min)")
        variants: Counter[str] = Counter()
        for group in groups:
            style = LINE_STYLES[variants[group.loss] % len(LINE_STYLES)]
            variants[group.loss] += 1
            _draw(group, left, right, COLOURS[colours[group.loss]], style)
        for panel in (left, right):
            panel.grid(color="0.9")
            panel.set_axisbelow(True)
            panel.set_xlim(left=0)
            panel.spines[["top", "right"]].set_visible(False)
        if right.get_legend_handles_labels()[0]:
            band = any(len(group.finished) > 1 for group in groups)
            right.legend(
                title="last top-1 (%), mean ± sd; band: min to max" if band else "last top-1 (%)",
                loc="upper left",
                bbox_to_anchor=(1.02, 1),
                frameon=False,
                alignment="left",
            )
    image = io.BytesIO()
    figure.savefig(image, format="png")
    save(Path(path), image.getvalue())


def _draw(group: Group, left: Axes, right: Axes, colour: str, style: str) -> None:
    """Draw a group over epochs into the left panel and over minutes, with labels, into the right one."""
    name = f"{group.loss} ({group.differs_in.replace(', ', chr(10))})" if group.differs_in else group.loss
    if group.finished:
        epochs, minutes, top_1 = curve(group.finished, top_1_percent)
        last = top_1[:, -1]
        spread = f" ± {last.std(ddof=1):.2f}, {len(last)} runs" if len(last) > 1 else ", 1 run"
        for panel, x in ((left, epochs), (right, minutes)):
            label = f"{name}: {last.mean():.2f}{spread}"
            panel.plot(x, top_1.mean(axis=0), style, color=colour, lw=1.6, marker="o", ms=2.5, label=label)
            if len(last) > 1:
                panel.fill_between(x, top_1.min(axis=0), top_1.max(axis=0), color=colour, alpha=0.2, lw=0)
    for run in group.unfinished:
        epochs, minutes, top_1 = curve([run], top_1_percent)
        if len(epochs):
            left.plot(epochs, top_1[0], style, color=colour, lw=0.7, marker=".", ms=2.5)
            label = f"{name}: {run.progress}"
            right.plot(minutes, top_1[0], style, color=colour, lw=0.7, marker=".", ms=2.5, label=label)
