"""Charts as inline SVG, without a library or scripts: coloured by the page's style sheet, legible in light and dark.

Colours come from the classes ``c0``, ``c1``, ..., which set ``color``; their order is that of
:mod:`ffcv_imagenet.report.palette`, which chooses colour, marker and dash of each group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ffcv_imagenet.report.palette import DASHES, MARKERS, Style

#: Size of every chart in user units; the page scales it to the width there is.
WIDTH, HEIGHT = 460.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 18.0, 12.0, 48.0
#: Points of a line that get a marker and a tooltip, at most.
_MARKED_POINTS = 16
_ROW_HEIGHT, _SIDE = 46.0, 24.0


@dataclass(frozen=True)
class Series:
    """A line: the mean, and the band from the lowest to the highest run; a thin line is a run that is not finished."""

    label: str
    style: Style
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    thin: bool = False

    def since(self, x_from: float) -> Series:
        """The part of the line from ``x_from`` on."""
        first = next((i for i, x in enumerate(self.x) if x >= x_from), len(self.x))
        parts = (self.x[first:], self.mean[first:], self.low[first:], self.high[first:])
        return Series(self.label, self.style, *parts, self.thin)


@dataclass(frozen=True)
class Row:
    """A line of a dot chart: single values, their mean and its interval (None: there is none)."""

    label: str
    style: Style
    values: Sequence[float]
    mean: float
    interval: tuple[float, float] | None


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_title: str,
    y_from_zero: bool = False,
    x_from: float = 0.0,
    x_whole: bool = False,
) -> str:
    """Lines over a common x axis from ``x_from``; a text in place of the chart when no series has a point there.

    ``x_whole`` puts the marks of the x axis at whole numbers.
    """
    series = [part for s in series if len((part := s.since(x_from)).x)]
    if not series:
        return '<p class="empty">Nothing logged.</p>'
    x_end = max(max(s.x) for s in series)
    x_end = x_end if x_end > x_from else x_from + 1.0
    x_ticks = ticks(x_from, x_end, least_step=1.0 if x_whole else 0.0)
    low = 0.0 if y_from_zero else min(min(s.low) for s in series)
    y_ticks = ticks(low, max(max(s.high) for s in series))
    x_scale = _Scale(x_from, x_end, _LEFT, WIDTH - _RIGHT)
    y_scale = _Scale(y_ticks[0], y_ticks[-1], HEIGHT - _BOTTOM, _TOP)
    parts = [_y_axis(y_ticks, y_scale), _x_axis(x_ticks, x_scale, x_title, HEIGHT - _BOTTOM)]
    for s in series:
        if not s.thin and any(high > low for low, high in zip(s.low, s.high, strict=True)):
            upper = [(x_scale(x), y_scale(y)) for x, y in zip(s.x, s.high, strict=True)]
            lower = [(x_scale(x), y_scale(y)) for x, y in zip(s.x, s.low, strict=True)]
            parts.append(f'<path class="band c{s.style.colour}" d="{_path([*upper, *reversed(lower)])}z"/>')
    for s in series:
        parts.append(_line(s, x_scale, y_scale, x_title))
    return _svg(title, HEIGHT, parts)


def dot_chart(rows: Sequence[Row], *, title: str, x_title: str, zero_line: bool = False) -> str:
    """A row per group: a marker per value, a bar at the mean and a line over its interval.

    The axis spans the values; where an interval leaves it, an arrow says so. ``zero_line`` marks x = 0.
    """
    if not rows:
        return '<p class="empty">Nothing to compare.</p>'
    values = [v for row in rows for v in (*row.values, row.mean)] + ([0.0] if zero_line else [])
    spread = max(max(values) - min(values), 0.1)
    low, high = min(values) - 0.5 * spread, max(values) + 0.5 * spread
    for row in rows:  # intervals that are not much wider than the values are shown whole
        if row.interval and row.interval[1] - row.interval[0] < 4 * spread:
            low, high = min(low, row.interval[0]), max(high, row.interval[1])
    marks = ticks(low, high)
    scale = _Scale(marks[0], marks[-1], _SIDE, WIDTH - _SIDE)
    bottom = _TOP + _ROW_HEIGHT * len(rows)
    parts = [_x_axis(marks, scale, x_title, bottom, grid_from=_TOP)]
    if zero_line:
        parts.append(f'<path class="zero" d="M{scale(0):.1f} {_TOP:.1f}V{bottom:.1f}"/>')
    for index, row in enumerate(rows):
        parts.append(_dots(row, scale, _TOP + _ROW_HEIGHT * index))
    return _svg(title, bottom + _BOTTOM, parts)


def legend_key(style: Style) -> str:
    """A small picture of how a group is drawn."""
    return (
        f'<svg class="key c{style.colour}" viewBox="0 0 34 12" aria-hidden="true">'
        f'<path class="line"{_dash(style)} d="M1 6H33"/>{_marker(style, 17, 6)}</svg>'
    )


def ticks(low: float, high: float, least_step: float = 0.0) -> list[float]:
    """Round numbers at equal distances, about five, from at most ``low`` to at least ``high``."""
    if high <= low:
        high = low + max(abs(low), 1.0)
    raw = max((high - low) / 5, least_step)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    return [round(index * step, 12) for index in range(first, last + 1)]


@dataclass(frozen=True)
class _Scale:
    """Values from ``low`` to ``high`` onto user units from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _y_axis(marks: Sequence[float], scale: _Scale) -> str:
    lines = "".join(f"M{_LEFT:.1f} {scale(mark):.1f}H{WIDTH - _RIGHT:.1f}" for mark in marks)
    texts = "".join(
        f'<text class="end" x="{_LEFT - 7:.1f}" y="{scale(mark) + 4:.1f}">{label}</text>'
        for mark, label in zip(marks, _labels(marks), strict=True)
    )
    return f'<path class="grid" d="{lines}"/>{texts}'


def _x_axis(marks: Sequence[float], scale: _Scale, title: str, y: float, grid_from: float | None = None) -> str:
    marks = [mark for mark in marks if scale.low <= mark <= scale.high]
    lines = "".join(f"M{scale(mark):.1f} {grid_from:.1f}V{y:.1f}" for mark in marks) if grid_from is not None else ""
    texts = "".join(
        f'<text class="middle" x="{scale(mark):.1f}" y="{y + 18:.1f}">{label}</text>'
        for mark, label in zip(marks, _labels(marks), strict=True)
    )
    middle = (scale.start + scale.end) / 2
    return (
        f'<path class="grid" d="{lines}"/><path class="axis" d="M{scale.start:.1f} {y:.1f}H{scale.end:.1f}"/>{texts}'
        f'<text class="middle" x="{middle:.1f}" y="{y + 38:.1f}">{escape(title)}</text>'
    )


def _line(series: Series, x_scale: _Scale, y_scale: _Scale, x_title: str) -> str:
    points = [(x_scale(x), y_scale(y)) for x, y in zip(series.x, series.mean, strict=True)]
    kind = "line thin" if series.thin else "line"
    parts = [f'<path class="{kind}"{_dash(series.style)} d="{_path(points)}"/>']
    every = math.ceil(len(points) / _MARKED_POINTS)
    for index, (x, y) in enumerate(points):
        if (len(points) - 1 - index) % every == 0:
            text = f"{series.label}: {series.mean[index]:.4g} at {series.x[index]:.4g} {x_title}"
            if series.high[index] > series.low[index]:
                text += f" (mean; runs from {series.low[index]:.4g} to {series.high[index]:.4g})"
            parts.append(f"<g>{_hover(text)}{_marker(series.style, x, y, thin=series.thin)}</g>")
    return f'<g class="c{series.style.colour}">{"".join(parts)}</g>'


def _dots(row: Row, scale: _Scale, top: float) -> str:
    y = top + 30
    parts = [f'<text class="row" x="{scale.start:.1f}" y="{top + 15:.1f}">{escape(_shorten(row.label))}</text>']
    if row.interval:
        low, high = (min(max(end, scale.low), scale.high) for end in row.interval)
        parts.append(f'<path class="interval" d="M{scale(low):.1f} {y:.1f}H{scale(high):.1f}"/>')
        ends = ((scale(low), row.interval[0] < scale.low, 1), (scale(high), row.interval[1] > scale.high, -1))
        for x, beyond, side in ends:
            shape = (
                f"M{x + 6 * side:.1f} {y - 4:.1f}L{x:.1f} {y:.1f}l{6 * side} 4"
                if beyond
                else f"M{x:.1f} {y - 5:.1f}v10"
            )
            parts.append(f'<path class="interval" d="{shape}"/>')
    interval = f", 95 % interval {row.interval[0]:.2f} to {row.interval[1]:.2f}" if row.interval else ""
    text = f"{row.label}: mean {row.mean:.2f}{interval}"
    if len(row.values) != 1:
        parts.append(f'<g>{_hover(text)}<path class="mean" d="M{scale(row.mean):.1f} {y - 9:.1f}v18"/></g>')
    for value in row.values:
        parts.append(f"<g>{_hover(f'{row.label}: {value:.2f}')}{_marker(row.style, scale(value), y)}</g>")
    return f'<g class="c{row.style.colour}">{"".join(parts)}</g>'


def _marker(style: Style, x: float, y: float, thin: bool = False) -> str:
    shape = MARKERS[style.marker].svg
    size = " scale(.7)" if thin else ""
    return f'<path class="marker" transform="translate({x:.1f} {y:.1f}){size}" d="{shape}"/>'


def _hover(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _dash(style: Style) -> str:
    dash = DASHES[style.dash]
    return f' stroke-dasharray="{" ".join(map(str, dash))}"' if dash else ""


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _labels(marks: Sequence[float]) -> list[str]:
    """The marks with as many decimals as their distance needs."""
    step = marks[1] - marks[0] if len(marks) > 1 else 1.0
    if max(map(abs, marks)) >= 10_000:
        return [f"{mark / 1000:g}k" if mark else "0" for mark in marks]
    decimals = next((d for d in range(6) if abs(round(step, d) - step) < 1e-9), 6)
    return [f"{mark:,.{decimals}f}".replace("-", "\N{MINUS SIGN}") for mark in marks]


def _shorten(text: str, length: int = 62) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
