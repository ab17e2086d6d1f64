"""Colours, markers and dashes by which losses are told apart, the same ones in every chart."""

from __future__ import annotations

from collections.abc import Iterable

from ffcv_imagenet.report.groups import LOSS_ORDER

#: Okabe and Ito's colour-blind-safe colours, for the PNG; the first three belong to LOSS_ORDER.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
#: The same hues for the page, with a contrast of 3 or more to its light and to its dark background.
LIGHT_COLOURS = ("#0072B2", "#B47800", "#00845F", "#C64A00", "#A8487F", "#3A85B8", "#333333")
DARK_COLOURS = ("#5DB1F2", "#F0B03A", "#34C79C", "#FF8C4B", "#E48FBE", "#9AD7FA", "#DDDDDD")
#: Dashes of a group's line, by its place among the groups of its loss.
LINE_STYLES = ("-", "--", ":", "-.")


def colour_indices(losses: Iterable[str]) -> dict[str, int]:
    """Each loss's place in the lists of colours: always the same one for the losses in LOSS_ORDER."""
    others = sorted(set(losses) - set(LOSS_ORDER))
    free = len(COLOURS) - len(LOSS_ORDER)
    return {loss: index for index, loss in enumerate(LOSS_ORDER)} | {
        loss: len(LOSS_ORDER) + index % free for index, loss in enumerate(others)
    }
