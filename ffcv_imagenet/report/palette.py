"""Colours, markers and dashes by which losses are told apart, the same ones in every chart.

A loss has a colour, a marker and a dash of its own choice each, so that two losses differ in more than one of them, and
in marker or dash where a printer has no colours. The groups of one loss share colour and marker and differ in the dash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ffcv_imagenet.report.groups import LOSS_ORDER, Group

#: After Okabe and Ito's colour-blind-safe colours, with a contrast of 3 or more to their background.
LIGHT_COLOURS = ("#0072B2", "#B47800", "#00845F", "#C64A00", "#A8487F", "#0096BE", "#333333")
DARK_COLOURS = ("#5DB1F2", "#F0B03A", "#34C79C", "#FF8C4B", "#E48FBE", "#9AD7FA", "#DDDDDD")


class Marker(NamedTuple):
    """A marker as an SVG path around (0, 0), and its name in matplotlib."""

    svg: str
    matplotlib: str


MARKERS = (
    Marker("M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z", "o"),
    Marker("M-2.9-2.9h5.8v5.8h-5.8z", "s"),
    Marker("M0-3.8L3.6 2.6H-3.6z", "^"),
    Marker("M0-4L4 0L0 4L-4 0z", "D"),
    Marker("M0 3.8L3.6-2.6H-3.6z", "v"),
    Marker("M-1.1-3.6h2.2v2.5h2.5v2.2h-2.5v2.5h-2.2v-2.5h-2.5v-2.2h2.5z", "P"),
    Marker("M-3.8 0L2.6-3.6V3.6z", "<"),
    Marker("M-3.4-1.8L-1.8-3.4L0-1.6L1.8-3.4L3.4-1.8L1.6 0L3.4 1.8L1.8 3.4L0 1.6L-1.8 3.4L-3.4 1.8L-1.6 0z", "X"),
)
#: Lengths of strokes and gaps; () is a solid line.
DASHES: tuple[tuple[int, ...], ...] = ((), (7, 4), (2, 3), (9, 3, 2, 3))


@dataclass(frozen=True)
class Style:
    """How a group is drawn: indices into the lists of colours, markers and dashes."""

    colour: int
    marker: int = 0
    dash: int = 0


def style_of(loss: int, variant: int = 0) -> Style:
    """The style of a loss by its index, and of the groups of this loss by theirs.

    The numbers of colours and of markers have no common divisor: the two together repeat after their product only.
    """
    dash = (loss // len(LIGHT_COLOURS) + variant) % len(DASHES)
    return Style(loss % len(LIGHT_COLOURS), loss % len(MARKERS), dash)


def styles(groups: Sequence[Group]) -> list[Style]:
    """The style of each group; the losses in :data:`LOSS_ORDER` always have the same one."""
    losses = [*LOSS_ORDER, *sorted({group.loss for group in groups} - set(LOSS_ORDER))]
    variants: Counter[tuple[str, str, str]] = Counter()
    found = []
    for group in groups:
        key = (group.architecture, group.recipe, group.loss)
        found.append(style_of(losses.index(group.loss), variants[key]))
        variants[key] += 1
    return found
