"""From the command line of a sweep to its runs, every one of them checked before any is started."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ffcv_imagenet.config import SweepConfig, SweepOptions, TrainConfig
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read.orders import ShuffledOrder
from ffcv_imagenet.files import read_json_object
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.manifests import read_manifests
from ffcv_imagenet.models import check_model, check_normalised_batch
from ffcv_imagenet.options import build, config_files, flatten, parse, read_yaml, recipe_name
from ffcv_imagenet.resume import compared_params, differences, other_micro_batch
from ffcv_imagenet.sweep.command_line import split_words
from ffcv_imagenet.sweep.devices import Slot, make_slots, visible_gpus
from ffcv_imagenet.sweep.jobs import Run

#: Short names of what is swept most.
_SHORT = {"loss": "loss.name", "seeds": "training.seed"}
#: The sweep sets these itself.
_FIXED = ("logging.folder", "logging.name", "checkpoint.resume", "training.eval_only", "dist.device")
#: Longer names of runs are cut.
_MAX_NAME = 200


@dataclass(frozen=True)
class Plan:
    """What a sweep is going to do: its runs, the slots in which they run, and how."""

    runs: tuple[Run, ...]
    slots: tuple[Slot, ...]
    options: SweepOptions
    dry_run: bool


def make_plan(argv: Sequence[str]) -> Plan:
    """Read a sweep's command line and check every run's full configuration.

    Raises:
        ValueError, FileNotFoundError: what the training would refuse, or a run folder of that name that was made
            with other options or data.
    """
    values, rest = split_words(argv)
    dry_run, runs_folder = values.pop("dry_run", False), values.pop("runs", None)
    axes = _axes(values, rest)
    options = build(SweepConfig, values).sweep
    if runs_folder is not None:
        rest = [*rest, f"--logging.folder={runs_folder}"]

    recipe = recipe_name(rest)
    gpus: list[str] | None = None
    runs: list[Run] = []
    for chosen in _combinations(axes, rest):
        words = [*rest, *(f"--{key}={value}" for key, value in chosen.items()), "--checkpoint.resume=auto"]
        config = parse(TrainConfig, words, "")
        if gpus is None:
            gpus = _gpus(config)
        processes = (options.gpus_per_run or 1) if gpus else 1
        name = _run_name(config, recipe, [key for key in chosen if key in axes])
        folder = Path(config.logging.folder) / name
        num_samples = _check_data_and_folder(config, folder, processes)
        command = _command([*words, f"--logging.name={name}"], processes)
        runs.append(Run(len(runs) + 1, name, folder, config.planned_epochs(num_samples), command))

    names = [run.name for run in runs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the sweep has the run {twice} twice: allowed are different values")
    if options.only is not None:
        if options.only > len(runs):
            raise ValueError(f"sweep.only: got {options.only}, allowed is a run's number from 1 to {len(runs)}")
        runs = [runs[options.only - 1]]
    slots = make_slots(
        gpus or [],
        sorted(os.sched_getaffinity(0)),
        gpus_per_run=options.gpus_per_run,
        cores_per_run=options.cores_per_run,
        runs=len(runs),
    )
    return Plan(tuple(runs), tuple(slots), options, dry_run)


def _axes(values: dict[str, Any], rest: Sequence[str]) -> dict[str, list[str]]:
    """Take what is swept out of ``values``: the texts of each swept option."""
    axes = {}
    own = {f"sweep.{field.name}" for field in dataclasses.fields(SweepOptions)}
    for name in [name for name in values if name not in own]:
        short = name.removeprefix("sweep.")
        key = _SHORT.get(short, short)
        if key in _FIXED:
            raise ValueError(f"{name}: allowed are options other than {', '.join(_FIXED)}")
        if key in axes:
            raise ValueError(f"{name}: {key} is swept twice")
        if key in _words_keys(rest):
            raise ValueError(f"{name}: {key} is given for all runs as well, allowed is one of the two")
        given = values.pop(name)
        texts = given.split(",")
        if key == "training.seed":
            texts = [seed for text in texts for seed in _seed_range(text)]
            if not texts:
                raise ValueError(f"{name}: got {given}, allowed are seeds such as 0,1,2 or, from the lowest on, 0-2")
        if not texts or len(set(texts)) < len(texts):
            raise ValueError(f"{name}: got {given}, allowed are different values")
        axes[key] = texts
    for key in ("logging.name", "checkpoint.resume", "training.eval_only"):
        if key in _words_keys(rest):
            raise ValueError(f"{key}: a sweep sets it itself")
    return axes


def _words_keys(words: Sequence[str]) -> set[str]:
    return {word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")}


def _seed_range(text: str) -> list[str]:
    """``0-4`` is 0, 1, 2, 3, 4; anything else is left to the strict check of a seed."""
    match = re.fullmatch(r"(\d{1,9})-(\d{1,9})", text)
    return [str(seed) for seed in range(int(match[1]), int(match[2]) + 1)] if match else [text]


def _combinations(axes: dict[str, list[str]], rest: Sequence[str]) -> list[dict[str, str]]:
    """The options of each run; all other options change faster than the seed.

    Where several losses are swept, an option that only some of them take goes to those: for the others it is
    ``none``, and they are not repeated for its values.
    """
    keys = sorted(axes, key=lambda key: (key != "training.seed", key != "loss.name", key))
    given = {*axes, *_words_keys(rest), *(key for file in config_files(rest) for key in read_yaml(file))}
    taken_by = LOSSES.options()
    losses = axes.get("loss.name", [])
    combinations: list[dict[str, str]] = []
    for values in itertools.product(*(axes[key] for key in keys)):
        chosen = dict(zip(keys, values, strict=True))
        for key in given:
            takers = taken_by.get(key.removeprefix("loss."), {}) if key.startswith("loss.") else {}
            if takers and chosen.get("loss.name") not in takers and any(loss in takers for loss in losses):
                chosen[key] = "none"
        if chosen not in combinations:
            combinations.append(chosen)
    return combinations


def _gpus(config: TrainConfig) -> list[str]:
    if config.dist.device == "cpu":
        return []
    gpus = visible_gpus(torch.cuda.device_count())
    if not gpus and config.dist.device == "cuda":
        raise ValueError("dist.device: got cuda, allowed without GPUs is cpu or auto")
    return gpus


def _run_name(config: TrainConfig, recipe: str, swept: Sequence[str]) -> str:
    """The name that the training would give, and the swept options that are not in it.

    It depends on this run's options alone, so that another sweep finds it, and it is one folder's name: other
    characters than letters, digits and ``._+=-`` are replaced, and where that happens or the name is cut, a hash of
    the whole is added.
    """
    options = {key: value for key, value in flatten(config).items() if value is not None}
    named = {"model.arch", "loss.name", "training.seed"}
    extra = [f"_{key}={_text(options[key])}" for key in sorted(swept) if key not in named and key in options]
    whole = config.default_name(recipe) + "".join(extra)
    name = re.sub(r"[^A-Za-z0-9._+=-]", "-", whole)
    if name == whole and len(name) <= _MAX_NAME and not name.startswith("."):
        return name
    return f"{name.lstrip('.')[:_MAX_NAME]}-{hashlib.sha256(whole.encode(errors='surrogateescape')).hexdigest()[:8]}"


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


@functools.cache
def _manifest(path: Path) -> Manifest:
    return Manifest.read(path)


_check_model = functools.cache(check_model)
_check_normalised_batch = functools.cache(check_normalised_batch)


def _check_data_and_folder(config: TrainConfig, folder: Path, processes: int) -> int:
    """Refuse what the run would refuse (see :func:`make_plan`); the number of its training images."""
    train_data, val_data = read_manifests(config, read=_manifest, show_warnings=False)
    if train_data is None:
        raise ValueError("training.eval_only: got 1, allowed in a sweep is 0")
    if (weights := config.model.weights) is not None and not Path(weights).exists():
        raise FileNotFoundError(f"weights not found: {weights}")
    params = compared_params(config, train_data, val_data, processes)
    arch, num_classes, loss = config.model.arch, val_data.num_classes, config.make_loss()
    _check_model(
        arch,
        num_classes,
        config.extreme_sides(),
        feature_map=loss.reads_local_classes,
        linear_head=loss.cosine_scale is not None,
        **config.model.network(),
    )
    _check_normalised_batch(
        arch,
        num_classes,
        config.resolution.min_res,
        config.normalised_batch(processes),
        **config.model.network(),
    )
    ShuffledOrder(train_data.num_samples, 0, config.training.batch_size)  # at least one batch
    file = folder / "params.json"
    earlier = read_json_object(file) if file.is_file() else {}
    if found := differences(earlier, params):
        told = "; ".join(f"{key}={was}, got {now}" for key, was, now in found if key != "micro_batch")
        if not told:
            raise ValueError(f"{folder}: {other_micro_batch(earlier, params)}, or another --runs folder")
        raise ValueError(f"{folder} holds a run with {told}: give another --runs folder")
    return train_data.num_samples


def _command(words: Sequence[str], processes: int) -> tuple[str, ...]:
    # --standalone finds a free port, so that several torchruns on a machine don't meet.
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}") if processes > 1 else ()
    return (sys.executable, *torchrun, "-m", "ffcv_imagenet.train", *words)
