"""How runs stand, as a table and as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ffcv_imagenet.names import shown
from ffcv_imagenet.run.log import percent
from ffcv_imagenet.units import duration
from ffcv_imagenet.watch.standings import ORDER, Standing, summary

if TYPE_CHECKING:
    from rich.table import Table

#: From this share of the time without data on, it is marked (docs/training.md says why).
WAITED_HIGH = 0.05

#: What each column says, after the run's name and state.
COLUMNS = ("epoch", "top-1 %", "best %", "images/s", "waited %", "left")
_STYLES = {"failed": "red", "damaged": "red", "killed": "red", "silent": "yellow", "finished": "dim"}
#: Characters of a line that a run without a reason takes; what is left is a reason's. Lines and the page have it whole.
_WITHOUT_DETAIL = 100


def cells(standing: Standing) -> list[str]:
    """The texts of :data:`COLUMNS`."""
    run = standing.run
    if run is None:
        return ["-"] * (len(COLUMNS) - 1) + [""]
    last = run.log[-1] if run.log else None
    top_1s = [line.top_1 for line in run.log if line.top_1 is not None]
    rate = last.images_per_second if last else None
    left = standing.seconds_left
    return [
        f"{run.epochs_done}/{run.epochs}",
        percent(top_1s[-1] if top_1s else None),
        percent(max(top_1s, default=None)),
        "-" if rate is None else f"{rate:.0f}",
        percent(last.wait_share if last else None, 0),
        "" if left is None else duration(left),
    ]


def state_words(standing: Standing, most: int | None = None) -> str:
    """State and reason, cut after ``most`` characters of it."""
    detail = shown(standing.detail)
    if most is not None and len(detail) > most:
        detail = f"{detail[: most - 1]}…"
    separator = ": " if standing.state in ("failed", "damaged", "interrupted") else " "
    return f"{standing.state}{separator}{detail}" if detail else standing.state


def line(standing: Standing) -> str:
    """A run in one line."""
    words = f"{shown(standing.name)}: {state_words(standing)}"
    if standing.run is None:
        return words
    epoch, top_1, best, rate, waited, left = cells(standing)
    ends = f", about {left} left" if left else ""
    if not standing.run.log:
        return f"{words}, epoch {epoch}"
    return f"{words}, epoch {epoch}, top-1 {top_1} % (best {best} %), {rate} images/s, waited {waited} %{ends}"


def table(standings: Sequence[Standing], rows: int, width: int) -> Table:
    """A row per run; where there are more than ``rows``, those at work and those that failed come first.

    ``width`` is that of the terminal: a reason gets what is left of it.
    """
    from rich.table import Table
    from rich.text import Text

    chosen = sorted(standings, key=lambda s: (ORDER.index(s.state), -s.changed))[: max(1, rows)]
    hidden = f"; {len(standings) - len(chosen)} not shown" if len(chosen) < len(standings) else ""
    table = Table(box=None, pad_edge=False, caption=summary(standings) + hidden, caption_justify="left")
    table.add_column("run", overflow="fold")
    table.add_column("state", overflow="ellipsis", no_wrap=True)
    for title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for standing in (s for s in standings if s in chosen):
        texts = [Text(text) for text in cells(standing)]
        last = standing.run.log[-1] if standing.run and standing.run.log else None
        if last and (last.wait_share or 0.0) > WAITED_HIGH:
            texts[COLUMNS.index("waited %")].stylize("yellow")
        names = (Text(shown(standing.name)), Text(state_words(standing, max(4, width - _WITHOUT_DETAIL))))
        table.add_row(*names, *texts, style=_STYLES.get(standing.state))
    return table
