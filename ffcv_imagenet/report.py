"""Compare the losses: read run folders, print a table of top-1 per loss, save it and plot it.

    python -m ffcv_imagenet.report runs/ [more folders] [--csv FILE] [--markdown FILE] [--plot FILE.png]

A run folder holds ``params.json``, ``log.jsonl`` and ``status.json``, as the trainer writes them. Only
finished runs enter the figures; the others are counted and named beside them. Runs are averaged only when
they differ in nothing but the seed and the options listed in :data:`IRRELEVANT_OPTIONS`.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ffcv_imagenet.atomic import write_atomically
from ffcv_imagenet.options import run_script

#: Options (as shell patterns) in which runs may differ and still be averaged: they do not change what is
#: learned. Every other option, also one added later, keeps runs apart.
IRRELEVANT_OPTIONS = (
    "training.seed",
    "logging.*",
    "checkpoint.*",
    "data.train",
    "data.val",
    "data.num_workers",
    "validation.batch_size",
    "dist.cpu_threads",
    "dist.timeout_minutes",
)
#: Entries of params.json outside "config" that are compared like options. The data are compared by checksum, not
#: by where they lie. Without synchronised batch normalisation the number of processes changes the result, and it
#: always changes the minutes.
COMPARED_PARAMS = ("train_data", "val_data", "world_size", "precision")
#: The losses that come first in tables and plots, in this order; others follow by name.
LOSS_ORDER = ("baseline", "label_smoothing", "maxsup")
#: Okabe and Ito's colour-blind-safe colours; the first three belong to LOSS_ORDER.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", ":", "-.")
MISSING = "-"


@dataclass(frozen=True)
class Epoch:
    """One line of ``log.jsonl``.

    ``epoch`` is the number of completed epochs, ``top_1`` and ``top_5`` are fractions from 0 to 1 (None: not
    evaluated after this epoch), ``total_seconds`` is the time since the start of training.
    """

    epoch: int
    top_1: float | None
    top_5: float | None
    images_per_second: float | None
    total_seconds: float


@dataclass(frozen=True)
class Run:
    """One run folder.

    ``epochs`` is the planned number, ``options`` holds everything that must be equal for runs to be averaged,
    ``state`` and ``error`` are those of ``status.json`` (None: not there), ``hardware`` is a JSON text.
    """

    folder: Path
    name: str
    architecture: str
    recipe: str
    loss: str
    seed: int
    epochs: int
    options: dict[str, str]
    hardware: str
    log: tuple[Epoch, ...]
    state: str | None
    error: str | None

    @property
    def finished(self) -> bool:
        """Whether every planned epoch is logged, the last one was evaluated and the run did not fail."""
        return self.epochs_done == self.epochs and self.log[-1].top_1 is not None and self.state != "failed"

    @property
    def epochs_done(self) -> int:
        """Number of completed epochs."""
        return self.log[-1].epoch if self.log else 0

    @property
    def progress(self) -> str:
        """State and completed epochs in words, such as "failed at 3/16"."""
        words = f"at {self.epochs_done}/{self.epochs}"
        if self.epochs_done == self.epochs and self.log[-1].top_1 is None:
            words += " without final top-1"
        return words if self.state in (None, "finished") else f"{self.state} {words}"


@dataclass(frozen=True)
class Group:
    """Runs that belong into one row of the table; ``differs_in`` tells it from its neighbours ("" mostly)."""

    architecture: str
    recipe: str
    loss: str
    differs_in: str
    runs: tuple[Run, ...]

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs that enter the figures."""
        return tuple(run for run in self.runs if run.finished)

    @property
    def unfinished(self) -> tuple[Run, ...]:
        """The runs that do not enter the figures."""
        return tuple(run for run in self.runs if not run.finished)


def load_runs(folders: Iterable[str | Path]) -> list[Run]:
    """All runs at or below the given folders, each once, sorted by path.

    Raises:
        FileNotFoundError: a folder that is not there.
        ValueError: a folder without runs, or a file in a run folder that cannot be understood. An incomplete
            last line of ``log.jsonl`` is no error: the run is just writing it.
    """
    found = set()
    for folder in map(Path, folders):
        if not folder.exists():
            raise FileNotFoundError(f"folder not found: {folder}")
        below = {path.parent.resolve() for path in folder.rglob("params.json")}
        if not below:
            raise ValueError(f"{folder}: no run found (a run is a folder with a params.json)")
        found |= below
    return [_load_run(folder) for folder in sorted(found)]


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Put runs into groups that may be averaged: same architecture, recipe, loss and relevant options.

    Order: architecture, recipe, loss (:data:`LOSS_ORDER` first), options. What a group ``differs_in`` are the
    options that are not the same over all runs of its architecture and recipe; options of the loss
    (``loss.*``) are compared only between runs of the same loss.
    """
    families: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        families.setdefault((run.architecture, run.recipe), []).append(run)
    groups = []
    for (architecture, recipe), family in families.items():
        members: dict[tuple[str, str], list[Run]] = {}
        for run in family:
            peers = [other for other in family if other.loss == run.loss]
            differing = _differing(family, of_loss=False) + _differing(peers, of_loss=True)
            text = ", ".join(f"{key}={run.options.get(key, '(absent)')}" for key in differing)
            members.setdefault((run.loss, text), []).append(run)
        groups += [Group(architecture, recipe, loss, text, tuple(m)) for (loss, text), m in members.items()]
    return sorted(
        groups,
        key=lambda g: (
            _natural(g.architecture),
            _natural(g.recipe),
            _loss_rank(g.loss),
            _natural(g.differs_in),
        ),
    )


def table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per architecture, recipe and loss (more when options differ), with numeric columns.

    ``runs`` counts the finished runs, ``seeds`` their different seeds (fewer: a run was repeated). Figures
    are means over the finished runs and NaN when there is none: ``top_1_percent`` and ``top_5_percent`` after
    the last epoch, ``top_1_sd_percent`` the sample standard deviation (NaN below two runs),
    ``best_top_1_percent`` of each run's best epoch, ``minutes`` of wall-clock time per run,
    ``images_per_second`` in training. ``unfinished`` counts the runs that are left out, ``notes`` says why.
    ``differs_in`` is there only when options differ.
    """
    groups = group_runs(runs)
    frame = pd.DataFrame(
        [_row(group) for group in groups],
        columns=[
            "architecture",
            "recipe",
            "loss",
            "differs_in",
            "runs",
            "seeds",
            "top_1_percent",
            "top_1_sd_percent",
            "best_top_1_percent",
            "top_5_percent",
            "epochs",
            "minutes",
            "images_per_second",
            "unfinished",
            "notes",
        ],
    )
    return frame if any(group.differs_in for group in groups) else frame.drop(columns="differs_in")


def format_table(frame: pd.DataFrame, markdown: bool = False) -> str:
    """The table of :func:`table` as aligned text for a terminal, or as a Markdown table."""
    columns: dict[str, list[str]] = {"architecture": list(frame.architecture), "recipe": list(frame.recipe)}
    columns["loss"] = list(frame.loss)
    if "differs_in" in frame:
        columns["differs in"] = list(frame.differs_in)
    text_columns = set(columns) | {"notes"}
    columns["seeds"] = [_seeds_text(row.runs, row.seeds) for row in frame.itertuples()]
    columns["top-1 last (%)"] = [_spread_text(row.top_1_percent, row.top_1_sd_percent) for row in frame.itertuples()]
    columns["top-1 best (%)"] = [_number_text(x, 2) for x in frame.best_top_1_percent]
    columns["top-5 last (%)"] = [_number_text(x, 2) for x in frame.top_5_percent]
    columns["epochs"] = [str(x) for x in frame.epochs]
    columns["time (min)"] = [_number_text(x, 1 if x >= 10 else 2) for x in frame.minutes]
    columns["images/s"] = [_number_text(x, 0) for x in frame.images_per_second]
    columns["notes"] = list(frame.notes)

    if markdown:
        columns = {header: [cell.replace("|", r"\|") for cell in cells] for header, cells in columns.items()}
    widths = {header: max(map(len, [header, *cells])) for header, cells in columns.items()}

    def line(cells: Iterable[str]) -> str:
        padded = [
            cell.ljust(widths[header]) if header in text_columns else cell.rjust(widths[header])
            for header, cell in zip(columns, cells, strict=True)
        ]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    rules = []
    for header, width in widths.items():
        right = markdown and header not in text_columns
        rules.append("-" * (width - 1) + ":" if right else "-" * width)
    return "\n".join([line(columns), line(rules), *map(line, zip(*columns.values(), strict=True))])


def plot(runs: Iterable[Run], path: str | Path) -> None:
    """Save a PNG of top-1 (%) over epochs and over minutes, a pair of panels per architecture and recipe.

    A thick line is the mean of the finished runs of a loss, the band around it goes from the lowest to the
    highest run; thin lines are unfinished runs. Over minutes, an epoch stands at its mean time.

    Raises:
        ValueError: no runs, or a file name that does not end in ``.png``.
        FileNotFoundError: the file's folder is not there.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"plot file: got {str(path)!r}, allowed is a name that ends in .png")
    families: dict[tuple[str, str], list[Group]] = {}
    for group in group_runs(runs):
        families.setdefault((group.architecture, group.recipe), []).append(group)
    if not families:
        raise ValueError("no runs to plot")
    colours = _colours({group.loss for groups in families.values() for group in groups})

    figure = Figure(figsize=(12, 4 * len(families)), dpi=150, layout="constrained")
    panels = figure.subplots(len(families), 2, squeeze=False, sharey="row")
    for (left, right), ((architecture, recipe), groups) in zip(panels, families.items(), strict=True):
        left.set_title(f"{architecture}, recipe {recipe}", loc="left")
        left.set(xlabel="epochs", ylabel="top-1 (%)")
        right.tick_params(labelleft=True)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set(xlabel="time (min)")
        variants: Counter[str] = Counter()
        for group in groups:
            style = LINE_STYLES[variants[group.loss] % len(LINE_STYLES)]
            variants[group.loss] += 1
            _draw(group, left, right, colours[group.loss], style)
        for panel in (left, right):
            panel.grid(color="0.9")
            panel.set_axisbelow(True)
            panel.set_xlim(left=0)
            panel.spines[["top", "right"]].set_visible(False)
        if right.get_legend_handles_labels()[0]:
            band = any(len(group.finished) > 1 for group in groups)
            right.legend(
                title="last top-1 (%), mean ± sd; band: min to max" if band else "last top-1 (%)",
                loc="upper left",
                bbox_to_anchor=(1.02, 1),
                frameon=False,
                alignment="left",
            )
    image = io.BytesIO()
    figure.savefig(image, format="png")
    _save(Path(path), image.getvalue())


def main(argv: Sequence[str]) -> None:
    """Print the table of the runs in the given folders and write the files asked for.

    Raises:
        ValueError: wrong arguments, a folder without runs, or a file that cannot be understood.
        FileNotFoundError: a folder that is not there.
    """
    parser = _Parser(prog="python -m ffcv_imagenet.report", description="Compare runs in a table and a plot.")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="run folder, or a folder of run folders")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="save the table with full precision")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="save the table as Markdown")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="save top-1 over epochs and over minutes")
    arguments = parser.parse_args(argv)

    runs = load_runs(arguments.folders)
    frame = table(runs)
    print(format_table(frame))
    print("\nFigures: mean over finished runs; top-1 last: ± sample standard deviation (from 2 runs on).")
    for run in runs:
        if not run.finished:
            reason = f": {' '.join(run.error.split())}" if run.error else ""
            print(f"Not in the figures: {run.folder} ({run.progress}){reason}")
    if arguments.csv:
        _save(arguments.csv, frame.to_csv(index=False).encode())
    if arguments.markdown:
        _save(arguments.markdown, f"{format_table(frame, markdown=True)}\n".encode())
    if arguments.plot:
        plot(runs, arguments.plot)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see --help)")


def _load_run(folder: Path) -> Run:
    file = folder / "params.json"
    params = _read_object(file)
    config = _entry(params, "config", file)
    if not isinstance(config, dict):
        raise ValueError(f"{file}: 'config' is {config!r}, allowed is an object of options")
    status_file = folder / "status.json"
    status = _read_object(status_file) if status_file.exists() else {}
    named = {"model.arch", "loss.name"}
    options = {key: _option_text(key, value) for key, value in config.items() if key not in named}
    options |= {key: _option_text(key, _entry(params, key, file)) for key in COMPARED_PARAMS}
    return Run(
        folder=folder,
        name=str(_entry(params, "name", file)),
        architecture=str(_entry(config, "model.arch", file)),
        recipe=str(_entry(params, "recipe", file)),
        loss=str(_entry(config, "loss.name", file)),
        seed=_whole(_entry(config, "training.seed", file), f"{file}: training.seed"),
        epochs=_whole(_entry(config, "training.epochs", file), f"{file}: training.epochs"),
        options={key: text for key, text in options.items() if not _irrelevant(key)},
        hardware=json.dumps(params.get("hardware"), sort_keys=True),
        log=_read_log(folder / "log.jsonl"),
        state=status.get("state"),
        error=status.get("error"),
    )


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: allowed is a JSON object, got {content!r:.80}")
    return content


def _read_log(file: Path) -> tuple[Epoch, ...]:
    """The epochs of a log, none without a file; after a resume, the later line for an epoch counts."""
    epochs: list[Epoch] = []
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    for number, line in enumerate(lines, start=1):
        where = f"{file}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            if not line.endswith(b"\n"):  # only the last line can lack it: it is just being written
                break
            raise ValueError(f"{where} is not valid JSON: {error}") from None
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: allowed is a JSON object, got {entry!r:.80}")
        epoch = Epoch(
            epoch=_whole(_entry(entry, "epoch", where), f"{where}: epoch"),
            top_1=_number(entry, "top_1", where),
            top_5=_number(entry, "top_5", where),
            images_per_second=_number(entry, "images_per_second", where),
            total_seconds=_number(entry, "total_seconds", where) or 0.0,
        )
        while epochs and epochs[-1].epoch >= epoch.epoch:
            epochs.pop()
        epochs.append(epoch)
    return tuple(epochs)


def _entry(content: dict[str, Any], key: str, where: Path | str) -> Any:
    if key not in content:
        raise ValueError(f"{where}: {key!r} is missing")
    return content[key]


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{where}: got {value!r}, allowed is a whole number")
    return value


def _number(entry: dict[str, Any], key: str, where: str) -> float | None:
    value = _entry(entry, key, where)
    if value is not None and not isinstance(value, (int, float)):
        raise ValueError(f"{where}: {key}: got {value!r}, allowed is a number or null")
    return value


def _irrelevant(key: str) -> bool:
    return any(fnmatch(key, pattern) for pattern in IRRELEVANT_OPTIONS)


def _option_text(key: str, value: Any) -> str:
    if key in ("train_data", "val_data"):
        return str(value)[:8]  # enough of a checksum to tell two data sets apart
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _differing(runs: Sequence[Run], of_loss: bool) -> list[str]:
    """The options that are not the same in all runs: those of the loss, or all others."""
    keys = {key for run in runs for key in run.options if key.startswith("loss.") == of_loss}
    return sorted(key for key in keys if len({run.options.get(key) for run in runs}) > 1)


def _loss_rank(loss: str) -> tuple[int, str]:
    return (LOSS_ORDER.index(loss), "") if loss in LOSS_ORDER else (len(LOSS_ORDER), loss)


def _natural(text: str) -> list[str | int]:
    """A sort key by which "resnet18" comes before "resnet101"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def _row(group: Group) -> dict[str, Any]:
    runs = group.finished
    last = [run.log[-1] for run in runs]
    top_1 = _percent(epoch.top_1 for epoch in last)
    speeds = [[e.images_per_second for e in run.log if e.images_per_second is not None] for run in runs]
    return {
        "architecture": group.architecture,
        "recipe": group.recipe,
        "loss": group.loss,
        "differs_in": group.differs_in,
        "runs": len(runs),
        "seeds": len({run.seed for run in runs}),
        "top_1_percent": _mean(top_1),
        "top_1_sd_percent": statistics.stdev(top_1) if len(top_1) > 1 else np.nan,
        "best_top_1_percent": _mean([max(_percent(e.top_1 for e in run.log if e.top_1 is not None)) for run in runs]),
        "top_5_percent": _mean(_percent(epoch.top_5 for epoch in last)),
        "epochs": group.runs[0].epochs,
        "minutes": _mean([epoch.total_seconds / 60 for epoch in last]),
        # All epochs of a run have the same number of images: its images per second is their harmonic mean.
        "images_per_second": _mean([statistics.harmonic_mean(s) if s else np.nan for s in speeds]),
        "unfinished": len(group.unfinished),
        "notes": _notes(group),
    }


def _notes(group: Group) -> str:
    notes = [f"{n} {progress}" for progress, n in Counter(run.progress for run in group.unfinished).items()]
    if len({run.hardware for run in group.finished}) > 1:
        notes.append("timed on different machines")
    return ", ".join(notes)


def _percent(fractions: Iterable[float | None]) -> list[float]:
    return [np.nan if fraction is None else 100 * fraction for fraction in fractions]


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else np.nan


def _number_text(value: float, decimals: int) -> str:
    return MISSING if np.isnan(value) else f"{value:.{decimals}f}"


def _spread_text(mean: float, sd: float) -> str:
    return MISSING if np.isnan(mean) else f"{mean:.2f} ± {_number_text(sd, 2)}"


def _seeds_text(runs: int, seeds: int) -> str:
    return str(seeds) if runs == seeds else f"{runs} runs, {seeds} seed{'s' if seeds > 1 else ''}"


def _colours(losses: set[str]) -> dict[str, str]:
    """A colour per loss: always the same one for the losses in LOSS_ORDER."""
    others = sorted(losses - set(LOSS_ORDER))
    free = COLOURS[len(LOSS_ORDER) :]
    return dict(zip(LOSS_ORDER, COLOURS, strict=False)) | {
        loss: free[index % len(free)] for index, loss in enumerate(others)
    }


def _curve(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs [E], mean minutes [E] and top-1 (%) [runs, E], over the epochs that every run evaluated."""
    evaluated = [{e.epoch: e for e in run.log if e.top_1 is not None} for run in runs]
    epochs = sorted(set.intersection(*map(set, evaluated)))
    minutes = np.array([[run[e].total_seconds / 60 for e in epochs] for run in evaluated])
    top_1 = np.array([_percent(run[e].top_1 for e in epochs) for run in evaluated])
    return np.array(epochs), minutes.mean(axis=0), top_1


def _draw(group: Group, left: Axes, right: Axes, colour: str, style: str) -> None:
    """Draw a group over epochs into the left panel and over minutes, with labels, into the right one."""
    name = f"{group.loss} ({group.differs_in.replace(', ', chr(10))})" if group.differs_in else group.loss
    if group.finished:
        epochs, minutes, top_1 = _curve(group.finished)
        last = top_1[:, -1]
        spread = f" ± {last.std(ddof=1):.2f}, {len(last)} runs" if len(last) > 1 else ", 1 run"
        for panel, x in ((left, epochs), (right, minutes)):
            label = f"{name}: {last.mean():.2f}{spread}"
            panel.plot(x, top_1.mean(axis=0), style, color=colour, lw=1.6, marker="o", ms=2.5, label=label)
            if len(last) > 1:
                panel.fill_between(x, top_1.min(axis=0), top_1.max(axis=0), color=colour, alpha=0.2, lw=0)
    for run in group.unfinished:
        epochs, minutes, top_1 = _curve([run])
        if len(epochs):
            left.plot(epochs, top_1[0], style, color=colour, lw=0.7, marker=".", ms=2.5)
            label = f"{name}: {run.progress}"
            right.plot(minutes, top_1[0], style, color=colour, lw=0.7, marker=".", ms=2.5, label=label)


def _save(path: Path, content: bytes) -> None:
    """Write a file that the user named."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder not found: {path.parent}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, allowed is a file name")
    write_atomically(path, content)


if __name__ == "__main__":
    run_script(main)
