"""How runs stand, as one HTML page that refreshes itself: no scripts, nothing loaded from anywhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from markupsafe import Markup

from ffcv_imagenet.report.charts import Series, legend_key, line_chart
from ffcv_imagenet.report.groups import loss_rank
from ffcv_imagenet.report.palette import Style, style_of
from ffcv_imagenet.report.runs import Run
from ffcv_imagenet.report.template import page_environment, style_sheet
from ffcv_imagenet.run.log import EpochLog
from ffcv_imagenet.watch.standings import ORDER, Standing, summary
from ffcv_imagenet.watch.table import COLUMNS, cells, state_words

TEMPLATE_FILE = Path(__file__).with_name("page.html.j2")
#: Lines in a chart, at most: those at work and those that changed last.
MOST_DRAWN = 12

#: Titles and what they show of an epoch, from zero where True.
_CHARTS: tuple[tuple[str, Callable[[EpochLog], float | None], bool], ...] = (
    ("Top-1 (%)", lambda line: None if line.top_1 is None else 100 * line.top_1, False),
    ("Training loss", lambda line: line.train_loss, False),
    ("Validation loss (cross entropy)", lambda line: line.val_loss, False),
    ("Images/s", lambda line: line.images_per_second, True),
    ("Waited for data (%)", lambda line: None if line.wait_share is None else 100 * line.wait_share, True),
)


def render_page(standings: Sequence[Standing], refresh_seconds: int) -> str:
    """The whole page; a browser loads it again after so many seconds."""
    with_log = [s for s in standings if s.run is not None and s.run.log]
    recent = sorted(with_log, key=lambda s: (ORDER.index(s.state), -s.changed))[:MOST_DRAWN]
    drawn = [s for s in standings if s in recent]
    styles = _styles([s.run for s in drawn if s.run is not None])
    return (
        page_environment(TEMPLATE_FILE.parent)
        .get_template(TEMPLATE_FILE.name)
        .render(
            style_sheet=style_sheet(),
            refresh_seconds=refresh_seconds,
            summary=summary(standings),
            written=time.strftime("%Y-%m-%d %H:%M:%S"),
            columns=COLUMNS,
            rows=[(s.name, state_words(s), cells(s)) for s in standings],
            legend=[(s.name, Markup(legend_key(style))) for s, style in zip(drawn, styles, strict=True)],
            not_drawn=len(with_log) - len(drawn),
            charts=[(title, Markup(_chart(drawn, styles, title, value, zero))) for title, value, zero in _CHARTS],
        )
    )


def _chart(
    drawn: Sequence[Standing],
    styles: Sequence[Style],
    title: str,
    value: Callable[[EpochLog], float | None],
    from_zero: bool,
) -> str:
    series = []
    for standing, style in zip(drawn, styles, strict=True):
        assert standing.run is not None
        points = [(line.epoch, number) for line in standing.run.log if (number := value(line)) is not None]
        epochs, numbers = [float(point[0]) for point in points], [point[1] for point in points]
        series.append(Series(standing.name, style, epochs, numbers, numbers, numbers))
    return line_chart(series, title=f"{title} over epochs", x_title="epochs", y_from_zero=from_zero, x_whole=True)


def _styles(runs: Sequence[Run]) -> list[Style]:
    """A style for each run: colour and marker of its loss, a dash of its own among the runs of that loss."""
    losses = sorted({run.loss for run in runs}, key=loss_rank)
    seen: Counter[str] = Counter()
    found = []
    for run in runs:
        found.append(style_of(losses.index(run.loss), seen[run.loss]))
        seen[run.loss] += 1
    return found
