"""A checkpoint that is evaluated: as its run was validated, except for what the user gives."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ffcv_imagenet.config import TrainConfig, effect_of
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read.crop_kinds import CROPS
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.options import Given, build, flatten, options_of
from ffcv_imagenet.resume import resume_state, run_checkpoints
from ffcv_imagenet.run.checkpoint import load_checkpoint
from ffcv_imagenet.run.weights import checkpoint_weights

#: Options of the sections model, data and validation that an evaluation does not read.
_TRAINING_ONLY = {
    "model.weights",
    "data.order",
    "data.repeats",
    "data.flip",
    CROPS.key,
    *(f"data.{k}" for k in CROPS.options()),
}


@dataclass(frozen=True)
class EvaluatedCheckpoint:
    """A checkpoint, and ``place``: the file or the folder where it was found."""

    place: Path
    state: dict[str, Any]

    @property
    def source(self) -> str:
        """Where the weights come from, in words."""
        steps = f", step {self.state['step']}" if self.state["step"] else ""
        averaged = ", averaged weights" if self.state["ema"] else ""
        return f"{self.place}, epoch {self.state['epochs_done']}{steps}{averaged}"

    @property
    def options(self) -> dict[str, Any]:
        """The run's options that decide what its validation computes (and ``data.val``), as far as they still exist."""
        params = self.state["params"]
        known = options_of(TrainConfig)
        kept = {k: v for k, v in params["config"].items() if k in known and (k == "data.val" or _is_read(k))}
        return kept | _of_the_head(params["config"]) | {"training.precision": params["precision"]}

    def config(self, given: Given) -> TrainConfig:
        """The run's options, under those that a user gives.

        Raises:
            ValueError: options that don't go together, or another architecture than the checkpoint's.
        """
        options, found = self.options, {"checkpoint.resume": str(self.place), "model.weights": None}
        origins = dict.fromkeys(options, str(self.place)) | dict(given.origins)
        config = build(TrainConfig, options | dict(given.values) | found, origins)
        if config.model.arch != options["model.arch"]:
            was = options["model.arch"]
            raise ValueError(f"{self.place} is a checkpoint of model.arch={was}, got model.arch={config.model.arch}")
        return config

    def check_classes(self, config: TrainConfig, val_data: Manifest) -> None:
        """Raise ValueError where the validation images of ``config`` have another number of classes."""
        trained = self.state.get("classes") or val_data.classes
        if len(trained) != val_data.num_classes:
            raise ValueError(
                f"data.val: got {config.data.val} with {val_data.num_classes} classes, allowed are the {len(trained)} "
                f"of {self.place}"
            )

    def describe(self, config: TrainConfig, val_data: Manifest) -> list[str]:
        """What is evaluated, with which options, and what differs from the run's validation, a line each.

        Args:
            config: the options of the evaluation.
            val_data: of the validation images.
        """
        run, now, was = self.state["params"], flatten(config), self.options
        used = [key for key in now if key == "data.val" or _is_read(key)] + ["training.precision"]
        lines = [f"evaluates {self.source}: {' '.join(f'{key}={_text(now[key])}' for key in used)}"]
        for key in used:
            if key != "data.val" and key in was and was[key] != now[key]:
                lines.append(f"unlike the run {run['name']}: {key}={_text(now[key])}, which had {_text(was[key])}")
        if run["val_data"] != val_data.checksum:
            lines.append(f"unlike the run {run['name']}: {config.data.val} holds other images than it was validated on")
        if tuple(self.state.get("classes") or val_data.classes) != tuple(val_data.classes):
            lines.append(
                f"unlike the run {run['name']}: {config.data.val} has classes of other names, or in another order"
            )
        return lines

    def load_into(self, model: nn.Module) -> None:
        """Load what is evaluated into ``model``; raises ValueError when it has other layers or classes."""
        try:
            model.load_state_dict(checkpoint_weights(self.state))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{self.place} is a checkpoint of another model: {reason}") from None


def find_evaluated(config: TrainConfig, path: Path) -> EvaluatedCheckpoint | None:
    """The checkpoint that ``config`` names; None for other weights (``model.weights``).

    Args:
        config: all options.
        path: folder of the run that ``checkpoint.resume=auto`` means.

    Raises:
        ValueError, FileNotFoundError: a user's mistake.
    """
    resume, weights = config.checkpoint.resume, config.model.weights
    state = resume_state(resume, run_checkpoints(config, path))
    if state is not None:
        return EvaluatedCheckpoint(path if resume == "auto" else Path(resume), state)
    if weights is None:
        raise FileNotFoundError(f"no checkpoint in {path}: allowed is a run folder with one, or --model.weights=FILE")
    with contextlib.suppress(ValueError, FileNotFoundError):  # Then they are weights alone, or load_weights says why.
        return EvaluatedCheckpoint(Path(weights), load_checkpoint(Path(weights)))
    return None


def _of_the_head(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run's loss where that decides what the network's last layer is."""
    own = {key: value for key, value in options.items() if key.startswith("loss.") and value is not None}
    try:
        loss = LOSSES.choose(own["loss.name"], {k.partition(".")[2]: v for k, v in own.items() if k != "loss.name"})
    except (KeyError, ValueError):  # A loss from outside that is not here, or options that exist no more.
        return {}
    return own if loss.cosine_scale is not None else {}


def _is_read(key: str) -> bool:
    """Whether an option decides what an evaluation computes."""
    section = key.partition(".")[0]
    return section in ("model", "data", "validation") and not effect_of(key).resumable and key not in _TRAINING_ONLY


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(int(value)) if isinstance(value, bool) else str(value)
