"""The MaxSup paper's figures, to be set next to one's own; ``paper.csv`` (top-1 on ImageNet) and
``paper_measured.csv`` (measurements on trained networks) say where they come from.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ffcv_imagenet.report.comparison import Comparison
from ffcv_imagenet.report.groups import loss_rank

PAPER_FILE = Path(__file__).with_name("paper.csv")
MEASURED_FILE = Path(__file__).with_name("paper_measured.csv")
#: What has to be said wherever the figures are shown.
PAPER_NOTE = (
    "Published figures are from Zhou et al., MaxSup: Overcoming Representation Collapse in Label Smoothing "
    "(NeurIPS 2025, arXiv 2502.15798), Table 4: ImageNet-1K, mean and standard deviation over a number of runs that "
    "the table does not give, ResNets for 200 epochs. They were not measured with this program and can be compared "
    "only with runs on ImageNet-1K; one with other epochs, resolutions or augmentation is another experiment."
)
#: What has to be said wherever the published measurements are shown.
MEASURED_NOTE = (
    "Published figures are those of ResNet-50 in Tables 1, 2 and 4 of the README of the MaxSup paper's repository "
    "(arXiv 2502.15798), single values without a spread. They were not measured with this program, and only their "
    "order can be compared with that of other networks and other data."
)


@dataclass(frozen=True)
class Published:
    """Top-1 in per cent of one architecture (named as torchvision does) and loss: mean and standard deviation."""

    architecture: str
    loss: str
    top_1: float
    sd: float


@dataclass(frozen=True)
class Pair:
    """A group of runs (None: there is none) next to what is published for its architecture and loss (None: nothing)."""

    architecture: str
    loss: str
    ours: Comparison | None
    published: Published | None


def published_figures() -> list[Published]:
    """All rows of ``paper.csv``."""
    return [
        Published(row["architecture"], row["loss"], float(row["top_1_percent"]), float(row["top_1_sd_percent"]))
        for row in _rows(PAPER_FILE)
    ]


def published_measurements(measurement: str, figure: str) -> dict[str, dict[str, float]]:
    """What is published for a figure of a measurement: by what it is of (network and data) and by loss."""
    found: dict[str, dict[str, float]] = {}
    for row in _rows(MEASURED_FILE):
        if (row["measurement"], row["figure"]) == (measurement, figure):
            found.setdefault(row["of"], {})[row["loss"]] = float(row["value"])
    return found


def _rows(file: Path) -> Iterator[dict[str, str]]:
    return csv.DictReader(line for line in file.read_text().splitlines() if not line.startswith("#"))


def beside_published(comparisons: Iterable[Comparison]) -> list[Pair]:
    """Our groups next to the published figures, for the architectures that have runs, ordered as in the table.

    A published loss of which there is no run has a row of its own; so has a group for which nothing is published.
    """
    ours = list(comparisons)
    architectures = list(dict.fromkeys(c.group.architecture for c in ours))
    pairs: list[Pair] = []
    for architecture in architectures:
        figures = {row.loss: row for row in published_figures() if row.architecture == architecture}
        own = [c for c in ours if c.group.architecture == architecture]
        for loss in sorted({c.group.loss for c in own} | set(figures), key=loss_rank):
            matching: Sequence[Comparison | None] = [c for c in own if c.group.loss == loss] or [None]
            pairs += [Pair(architecture, loss, comparison, figures.get(loss)) for comparison in matching]
    return pairs
