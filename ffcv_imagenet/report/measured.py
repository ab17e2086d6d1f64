"""What ``python -m ffcv_imagenet.analysis`` has found of the runs: a table per measurement, from its JSON files."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffcv_imagenet.files import read_json_object
from ffcv_imagenet.report.groups import Group

#: The format of the files that is understood.
_FORMAT = 1


@dataclass(frozen=True)
class MeasuredTable:
    """One measurement of several groups of runs, with the same options, data and preparation of the images.

    ``rows`` are figures by name, each with a text per group (mean ± standard deviation over seeds); ``seeds`` are the
    numbers of seeds.
    """

    title: str
    caption: str
    seeds: list[int]
    rows: list[tuple[str, list[str]]]


def measured_tables(groups: Sequence[Group]) -> list[MeasuredTable]:
    """A table for each measurement of the finished runs, and for each way in which it was done.

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
        rows = [(figure, [_text(seeds, figure) for seeds in of_groups]) for figure in figures]
        caption = "Mean and standard deviation over seeds." + (f" With {how}." if ways[name] > 1 else "")
        tables.append(MeasuredTable(name, caption, [len(seeds) for seeds in of_groups], rows))
    return tables


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
        return "\N{EN DASH}"
    text = f"{statistics.fmean(means):.4g}"
    return text if len(means) < 2 else f"{text} ± {statistics.stdev(means):.2g}"
