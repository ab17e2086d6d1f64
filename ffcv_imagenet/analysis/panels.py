"""How figures of several runs are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ffcv_imagenet.analysis.measurement import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Panels next to each other.
_COLUMNS = 3


def with_short_names(measured: Sequence[Measured]) -> list[Measured]:
    """The same without the words, up to a ``_``, with which the names of all begin."""
    names = [one.name for one in measured]
    if len(set(names)) < 2:
        return list(measured)
    cut = 0
    for words in zip(*(name.split("_")[:-1] for name in names), strict=False):
        if len(set(words)) > 1:
            break
        cut += len(words[0]) + 1
    return [Measured(one.name[cut:], one.results) for one in measured]


def panel_for_each(figure: Figure, count: int, side: float) -> list[Axes]:
    """So many panels of this side in inches, at most three in a row, with the same axes."""
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure.set_size_inches(side * columns, side * rows + 0.2)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    for panel in panels[count:]:
        panel.set_visible(False)
    return panels[:count]
