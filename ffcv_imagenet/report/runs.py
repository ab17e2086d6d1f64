"""Run folders, as this program's trainer writes them and as libffcv/ffcv-imagenet does."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.files import read_json_object
from ffcv_imagenet.options import complete
from ffcv_imagenet.run.log import LOSS_COLUMN, EpochLog, current

#: Entries of params.json outside "config" that are compared like options. The data are compared by checksum, not
#: by where they lie. Without synchronised batch normalisation the number of processes changes the result, and it
#: always changes the minutes.
COMPARED_PARAMS = ("train_data", "val_data", "world_size", "precision")
#: Options of libffcv/ffcv-imagenet, besides those that are ours too, in which runs may differ and be averaged.
_LIBFFCV_RUNNING = ("data.in_memory", "dist.address", "dist.port")
#: The recipe of all runs of libffcv/ffcv-imagenet, which does not record one. No recipe of this program can have
#: this name (it is a file's stem), so the two are never averaged.
LIBFFCV = "libffcv/ffcv-imagenet"


@dataclass(frozen=True)
class Run:
    """One run folder. In its log, top-1 and top-k are None after an epoch that was not evaluated.

    ``epochs`` is the planned number, ``seed`` is None where none was set, ``options`` are all options and
    :data:`COMPARED_PARAMS` as text but for the architecture and the loss's name, ``state`` and ``error`` are those of
    ``status.json`` (None: not there), ``hardware`` is a JSON text, ``params`` the whole content of ``params.json``.
    """

    folder: Path
    name: str
    architecture: str
    recipe: str
    loss: str
    seed: int | None
    epochs: int
    options: dict[str, str]
    hardware: str
    params: dict[str, Any]
    log: tuple[EpochLog, ...]
    state: str | None
    error: str | None

    @property
    def finished(self) -> bool:
        """Whether every planned epoch is logged, the last one was evaluated and the run did not fail."""
        return self.epochs_done == self.epochs and self.log[-1].top_1 is not None and self.state != "failed"

    @property
    def last_top_1(self) -> float:
        """Top-1 after the last epoch of a finished run, 0 to 1."""
        assert self.finished
        assert self.log[-1].top_1 is not None
        return self.log[-1].top_1

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
class LeftOut:
    """A run folder that cannot be understood, and why: the text names the file."""

    folder: Path
    reason: str


def load_runs(folders: Iterable[str | Path]) -> tuple[list[Run], list[LeftOut]]:
    """All runs at or below the given folders, each once, sorted by path; those that cannot be understood apart.

    A run with a damaged file, or with a figure in its log that is not finite, is left out as a whole. An incomplete
    last line of a log is no damage: the run is just writing it.

    Raises:
        FileNotFoundError: a folder that is not there.
        ValueError: a folder without runs, or no run at all that can be understood.
    """
    found = set()
    for folder in map(Path, folders):
        if not folder.exists():
            raise FileNotFoundError(f"folder not found: {folder}")
        below = {path.parent.resolve() for path in folder.rglob("params.json")}
        if not below:
            raise ValueError(f"{folder}: no run found (a run is a folder with a params.json)")
        found |= below
    runs, left_out = [], []
    for folder in sorted(found):
        try:
            runs.append(load_run(folder))
        except (ValueError, OSError) as error:
            left_out.append(LeftOut(folder, str(error)))
    if not runs:
        raise ValueError("; ".join(damaged.reason for damaged in left_out))
    return runs, left_out


def load_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        ValueError, OSError: see :class:`LeftOut`.
    """
    file = folder / "params.json"
    params = read_json_object(file)
    if "config" not in params and "model.arch" in params:
        return _load_libffcv_run(folder, file, params)
    config = _entry(params, "config", file)
    if not isinstance(config, dict):
        raise ValueError(f"{file}: 'config' is {config!r}, allowed is an object of options")
    status_file = folder / "status.json"
    status = read_json_object(status_file) if status_file.exists() else {}
    options = {key: _option_text(key, value) for key, value in complete(TrainConfig, config).items()}
    options |= {key: _option_text(key, _entry(params, key, file)) for key in COMPARED_PARAMS}
    return Run(
        folder=folder,
        name=str(_entry(params, "name", file)),
        architecture=str(_entry(config, "model.arch", file)),
        recipe=str(_entry(params, "recipe", file)) + _smoke_test(config),
        loss=str(_entry(config, "loss.name", file)),
        seed=_whole(_entry(config, "training.seed", file), f"{file}: training.seed"),
        epochs=_whole(params.get("planned_epochs", _entry(config, "training.epochs", file)), f"{file}: epochs"),
        options={key: text for key, text in options.items() if key not in ("model.arch", "loss.name")},
        hardware=json.dumps(params.get("hardware"), sort_keys=True),
        params=params,
        log=_epochs(folder / "log.jsonl", _read_epoch),
        state=_text_or_none(status, "state", status_file),
        error=_text_or_none(status, "error", status_file),
    )


def _smoke_test(config: dict[str, Any]) -> str:
    """What is added to the recipe of a run that was cut short on purpose: it is compared with none that was not."""
    steps = config.get("training.max_steps")
    return "" if steps is None else f" ({steps} steps)"


def _load_libffcv_run(folder: Path, file: Path, params: dict[str, Any]) -> Run:
    """A run of libffcv/ffcv-imagenet's train_imagenet.py: params.json is flat and the log is called ``log``.

    Its loss is cross entropy, smoothed by ``training.label_smoothing``; it has no option for a seed. It prints a
    validation loss, the smoothed one of summed logits, and logs none: ours, plain cross entropy of averaged logits, is
    another quantity, and the report shows no column of validation losses that would hold both.
    """
    smoothing = _entry(params, "training.label_smoothing", file)
    options = {key: _option_text(key, value) for key, value in params.items()}
    options["loss.smoothing"] = options.pop("training.label_smoothing")
    return Run(
        folder=folder,
        name=folder.name,
        architecture=str(params["model.arch"]),
        recipe=LIBFFCV,
        loss="label_smoothing" if smoothing else "baseline",
        seed=None,
        epochs=_whole(_entry(params, "training.epochs", file), f"{file}: training.epochs"),
        options={key: text for key, text in options.items() if key not in ("model.arch", *_LIBFFCV_RUNNING)},
        hardware="null",
        params=params,
        log=_epochs(folder / "log", _read_libffcv_epoch),
        state=None,
        error=None,
    )


def _epochs(file: Path, read: Any) -> tuple[EpochLog, ...]:
    """The epochs of a log, none without a file; the later line for an epoch counts (after a resume)."""
    epochs: list[EpochLog] = []
    for where, entry in _read_lines(file):
        epoch = read(entry, where)
        while epoch and epochs and epochs[-1].epoch >= epoch.epoch:
            epochs.pop()
        epochs += [epoch] if epoch else []
    return tuple(epochs)


def _read_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line stands, and its JSON object."""
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    for number, line in enumerate(lines, start=1):
        where = f"{file}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            if not line.endswith(b"\n"):  # only the last line can lack it: it is just being written
                return
            raise ValueError(f"{where} is not valid JSON: {error}") from None
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: allowed is a JSON object, got {entry!r:.80}")
        for key, value in entry.items():  # JSON as Python reads it has NaN and Infinity
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{where}: {key}: got {value!r}, allowed is a finite number or null")
        yield where, entry


def _read_epoch(entry: dict[str, Any], where: str) -> EpochLog:
    entry = current(entry)
    for key in ("top_1", "top_k", "images_per_second", "total_seconds"):
        _entry(entry, key, where)
    for key in entry:
        if key in ("top_1", "top_k", "wait_share"):
            _share(entry, key, where)
        elif key in EpochLog.__dataclass_fields__ or key.startswith(LOSS_COLUMN):
            _number(entry, key, where)
    whole = {key: _whole(_entry(entry, key, where), f"{where}: {key}") for key in ("epoch", "k")}
    return EpochLog.from_line(entry | whole | {"total_seconds": entry["total_seconds"] or 0.0})


def _read_libffcv_epoch(entry: dict[str, Any], where: str) -> EpochLog | None:
    """Epochs count from 0 there. A run that only evaluates logs no epoch: None."""
    if "epoch" not in entry:
        return None
    return EpochLog(
        epoch=_whole(entry["epoch"], f"{where}: epoch") + 1,
        top_1=_share(entry, "top_1", where),
        top_k=_share(entry, "top_5", where),
        k=5,
        total_seconds=_number(entry, "relative_time", where) or 0.0,
    )


def _entry(content: dict[str, Any], key: str, where: Path | str) -> Any:
    if key not in content:
        raise ValueError(f"{where}: {key!r} is missing")
    return content[key]


def _whole(value: Any, where: str) -> int:
    """An integer, also one written as a float."""
    if not _is_number(value) or value != math.floor(value):
        raise ValueError(f"{where}: got {value!r}, allowed is a whole number")
    return int(value)


def _number(entry: dict[str, Any], key: str, where: str) -> float | None:
    value = _entry(entry, key, where)
    if value is not None and not _is_number(value):
        raise ValueError(f"{where}: {key}: got {value!r}, allowed is a finite number or null")
    return value


def _share(entry: dict[str, Any], key: str, where: str) -> float | None:
    value = _number(entry, key, where)
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"{where}: {key}: got {value!r}, allowed is a number from 0 to 1 or null")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text_or_none(content: dict[str, Any], key: str, where: Path) -> str | None:
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{where}: {key}: got {value!r}, allowed is a text or null")
    return value


def _option_text(key: str, value: Any) -> str:
    if key in ("train_data", "val_data"):
        return str(value)[:8]  # enough of a checksum to tell two data sets apart
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
