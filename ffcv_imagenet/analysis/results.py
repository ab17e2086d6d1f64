"""Results on disk: a JSON file per measurement and subject, CSV and SVG next to it."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ffcv_imagenet
from ffcv_imagenet.analysis.measurement import DataSet, Measured, Measurement, Row
from ffcv_imagenet.analysis.panels import with_short_names
from ffcv_imagenet.analysis.subject import Subject
from ffcv_imagenet.files import read_json_object, write_atomically

#: Changes when a reader of the old files would misread the new ones.
FORMAT = 1
_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "ffcv")


def result_file(folder: Path, name: str) -> Path:
    """Where the results of the measurement ``name`` lie."""
    return folder / f"{name}.json"


def inputs(
    name: str, measurement: Measurement, options: Mapping[str, Any], subject: Subject, data: Mapping[str, DataSet]
) -> dict[str, Any]:
    """All that the results depend on, but for rounding."""
    return {
        "measurement": name,
        "version": measurement.version,
        "options": dict(options),
        "weights": subject.checksum,
        "architecture": subject.config.model.arch,
        "blurpool": subject.config.model.blurpool,
        "preparation": subject.preparation,
        "data": {role: one.manifest.checksum for role, one in data.items()},
        **measurement.extra_inputs(),
    }


def read_results(file: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The results in ``file`` when they are of these inputs; None when they aren't, or there are none."""
    if not file.is_file():
        return None
    try:
        content = read_json_object(file)
    except ValueError:  # It is written anew.
        return None
    same = content.get("format") == FORMAT and content.get("inputs") == json.loads(json.dumps(wanted))
    return content["results"] if same and isinstance(content.get("results"), dict) else None


def write_results(
    file: Path,
    wanted: Mapping[str, Any],
    results: Mapping[str, Any],
    *,
    subject: Subject,
    data: Mapping[str, DataSet],
    command: Sequence[str],
    seconds: float,
) -> None:
    """Write the JSON file, whole or not at all.

    Raises:
        TypeError: a result is no plain value, or not finite; says where.
    """
    _check_plain(results, "results")
    content = {
        "format": FORMAT,
        "inputs": wanted,
        "results": results,
        "subject": {"name": subject.name, "source": subject.source},
        "files": {role: str(one.place) for role, one in data.items()},
        "command": list(command),
        "seconds": seconds,
        "device": str(subject.world.device.type),
        "processes": subject.world.size,
        "versions": {
            "python": platform.python_version(),
            "ffcv_imagenet": ffcv_imagenet.__version__,
            **{name: version(name) for name in _PACKAGES},
        },
    }
    write_atomically(file, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, part in value.items():
            _check_plain(part, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            _check_plain(part, f"{where}[{number}]")
    elif type(value) not in (int, float, str, bool, type(None)) or value in (math.inf, -math.inf) or value != value:
        raise TypeError(f"{where} is {type(value).__name__} {value}: allowed are int, finite float, str, bool and None")


def write_table(file: Path, measurement: Measurement, measured: Sequence[Measured]) -> None:
    """Write a CSV file: the rows of each subject, with its name in front."""
    rows: list[Row] = [{"run": one.name, **row} for one in measured for row in measurement.rows(one.results)]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(file, text.getvalue().encode())


def write_figure(file: Path, measurement: Measurement, measured: Sequence[Measured]) -> None:
    """Draw an SVG file, the same bytes for the same results."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "ffcv_imagenet", "font.size": 9}):
        figure = Figure(layout="constrained")
        measurement.draw(figure, with_short_names(measured))
        image = io.BytesIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
    write_atomically(file, image.getvalue())


def format_summary(measured: Sequence[Measured]) -> str:
    """A table of the summaries, a line per figure and a column per subject."""
    names = list(dict.fromkeys(name for one in measured for name in one.results["summary"]))
    lines = [["", *(one.name for one in measured)]]
    lines += [[name, *(_number(one.results["summary"].get(name)) for one in measured)] for name in names]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = ("  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines)
    return "\n".join(re.sub(r" +$", "", text) for text in texts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
