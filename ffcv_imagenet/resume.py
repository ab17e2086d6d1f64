"""Where a run starts: anew, or at a checkpoint, which must be of the same options and data."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ffcv_imagenet.config import RESUMABLE_CHANGES, TrainConfig
from ffcv_imagenet.run.checkpoint import CheckpointFolder, load_checkpoint
from ffcv_imagenet.run.folder import RunFolder
from ffcv_imagenet.run.lock import hold


def run_checkpoints(config: TrainConfig, path: Path, params: dict[str, Any] | None = None) -> CheckpointFolder:
    """The checkpoints of the run in folder ``path``; ``params`` goes into each that is written."""
    return CheckpointFolder(path / "checkpoints", config.checkpoint.keep, params)


def resume_state(resume: str, checkpoints: CheckpointFolder) -> dict[str, Any] | None:
    """The checkpoint to go on from, or None."""
    match resume:
        case "none":
            return None
        case "auto":
            return checkpoints.newest()
        case file:
            return load_checkpoint(Path(file))


def prepare_start(
    config: TrainConfig, path: Path, params: dict[str, Any], stack: contextlib.ExitStack
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The state to go on from, if any, and what ``params.json`` shall say. On rank 0.

    From here on until ``stack`` is closed no other process can write into the run's folder.

    Raises:
        BlockingIOError: another process is writing this run.
        FileExistsError: the folder holds another run.
        ValueError: the run to go on with has other options or data.
    """
    resume, checkpoints = config.checkpoint.resume, run_checkpoints(config, path)
    new, earlier, state = not path.is_dir(), None, None
    if not new:  # A new folder is made when there is no mistake left to find.
        stack.enter_context(hold(path))
        earlier = RunFolder(path).read_params()
    if earlier is not None and _started_by_same_launcher(earlier, params):
        state = checkpoints.newest()  # torchrun --max-restarts
    elif earlier is not None and resume != "auto" and Path(resume).resolve().parent != checkpoints.path.resolve():
        raise FileExistsError(
            f"{path} holds a run already: give checkpoint.resume=auto to go on with it, or another logging.name"
        )
    if state is None:
        state = resume_state(resume, checkpoints)
    if state is not None:
        first = state["params"]
        was, now = _what_is_computed(first), _what_is_computed(params)
        for key, value in now.items():
            if key in was and was[key] != value:
                raise ValueError(f"{key}: got {value}, allowed is {was[key]} to go on with the run {first['name']}")
        if earlier is not None:
            again = {
                key: params[key] for key in ("started", "launcher", "world_size", "hardware", "versions", "command")
            }
            params = {**earlier, "resumed": [*earlier.get("resumed", []), again]}
    if new:
        stack.enter_context(hold(path))
        if RunFolder(path).read_params() is not None:
            raise FileExistsError(f"{path} holds a run already, which has just been started")
    return state, params


def _started_by_same_launcher(earlier: dict[str, Any], params: dict[str, Any]) -> bool:
    last_start = earlier.get("resumed", [earlier])[-1]
    return params["launcher"] is not None and last_start.get("launcher") == params["launcher"]


def _what_is_computed(params: dict[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in params["config"].items() if not key.startswith(RESUMABLE_CHANGES)}
    options.setdefault("data.resize", "triangle")  # so it was before there was the option
    return options | {key: params[key] for key in ("train_data", "val_data", "precision", "micro_batch")}
