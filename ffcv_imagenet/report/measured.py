"""What ``python -m ffcv_imagenet.analysis`` has found of the runs: a table per measurement, from its JSON files."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ffcv_imagenet.files import read_json_object
from ffcv_imagenet.report.groups import Group
from ffcv_imagenet.report.paper import published_measurements

#: The format of the files that is understood.
_FORMAT = 1
_DASH = "\N{EN DASH}"


class MeasuredRow(NamedTuple):
    """A figure by name, with a text per group: mean ± standard deviation over seeds, or what is ``published``."""

    figure: str
    texts: list[str]
    published: bool = False


@dataclass(frozen=True)
class MeasuredTable:
    """One measurement of several groups of runs, with the same options, data and preparation of the images.

    ``seeds`` are the numbers of seeds of each group.
    """

    title: str
    caption: str
    seeds: list[int]
    rows: list[MeasuredRow]

    @property
    def has_published(self) -> bool:
        """Whether a row of it was not measured with this program."""
        return any(row.published for row in self.rows)


def measured_tables(groups: Sequence[Group], with_published: bool = False) -> list[MeasuredTable]:
    """A table for each measurement of the finished runs, and for each way in which it was done.

    ``with_published`` puts below a figure what is published for it, for the losses of the groups.

    Files that cannot be understood are left out: the analysis says what is wrong with them.
    """
    found: dict[tuple[str, str], list[dict[Hashable, list[dict[str, float]]]]] = {}
    for number, group in enumerate(groups):
        for seed, runs in group.repeats.items():
            for run in runs:
                for file in sorted((run.folder / "analysis").glob("*.json")):
                    if (one := _read(file)) is None:
                        continue
                    how, summary = one
                    of_groups = found.setdefault((file.stem, how), [{} for _ in groups])
                    of_groups[number].setdefault(seed, []).append(summary)
    ways: dict[str, int] = {}
    for name, _ in found:
        ways[name] = ways.get(name, 0) + 1
    tables = []
    for (name, how), of_groups in sorted(found.items()):
        figures = dict.fromkeys(f for seeds in of_groups for all_of in seeds.values() for one in all_of for f in one)
        rows = []
        for figure in figures:
            rows.append(MeasuredRow(figure, [_text(seeds, figure) for seeds in of_groups]))
            rows += _published(name, figure, groups) if with_published else []
        caption = "Mean and standard deviation over seeds." + (f" With {how}." if ways[name] > 1 else "")
        tables.append(MeasuredTable(name, caption, [len(seeds) for seeds in of_groups], rows))
    return tables


def _published(measurement: str, figure: str, groups: Sequence[Group]) -> list[MeasuredRow]:
    rows = []
    for of, values in published_measurements(measurement, figure).items():
        texts = [f"{values[group.loss]:.4f}" if group.loss in values else _DASH for group in groups]
        if set(texts) != {_DASH}:
            rows.append(MeasuredRow(f"{figure}, published: {of}", texts, published=True))
    return rows


def _read(file: Path) -> tuple[str, dict[str, float]] | None:
    """How it was measured, as text, and the figures; None of a file that is not understood."""
    try:
        content = read_json_object(file)
        if content["format"] != _FORMAT:
            return None
        inputs: dict[str, Any] = dict(content["inputs"])
        inputs.pop("weights")
        summary = content["results"]["summary"].items()
        figures = {str(name): float(value) for name, value in summary if isinstance(value, (int, float))}
    except (ValueError, OSError, KeyError, TypeError, AttributeError):
        return None
    if not all(map(math.isfinite, figures.values())):
        return None
    inputs["data"] = {role: str(checksum)[:8] for role, checksum in dict(inputs.get("data", {})).items()}
    return json.dumps(inputs, sort_keys=True), figures


def _text(seeds: dict[Hashable, list[dict[str, float]]], figure: str) -> str:
    values = [[one[figure] for one in repeats if figure in one] for repeats in seeds.values()]
    means = [statistics.fmean(of_seed) for of_seed in values if of_seed]
    if not means:
        return _DASH
    text = f"{statistics.fmean(means):.4g}"
    return text if len(means) < 2 else f"{text} ± {statistics.stdev(means):.2g}"
