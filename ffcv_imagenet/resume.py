"""Where a run starts: anew, or at a checkpoint, which must be of the same options and data."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ffcv_imagenet.config import TrainConfig, effect_of
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.files import read_json_object
from ffcv_imagenet.options import complete, flatten
from ffcv_imagenet.run.checkpoint import CheckpointFolder, load_checkpoint
from ffcv_imagenet.run.folder import RunFolder
from ffcv_imagenet.run.lock import hold


def run_checkpoints(
    config: TrainConfig, path: Path, params: dict[str, Any] | None = None, data: Manifest | None = None
) -> CheckpointFolder:
    """The checkpoints of the run in folder ``path``; ``params`` and the classes of ``data`` go into each."""
    names = {} if data is None else {"classes": list(data.classes), "class_names": list(data.class_names)}
    return CheckpointFolder(path / "checkpoints", config.checkpoint.keep, params, names)


def resume_state(resume: str, checkpoints: CheckpointFolder) -> dict[str, Any] | None:
    """The checkpoint to continue from, or None."""
    match resume:
        case "none":
            return None
        case "auto":
            return checkpoints.newest()
        case place:
            return load_checkpoint(Path(place))


def compared_params(config: TrainConfig, train_data: Manifest, val_data: Manifest, world_size: int) -> dict[str, Any]:
    """What ``params.json`` says of a start before it is known on which device: :func:`differences` compares it."""
    return {
        "config": flatten(config),
        "train_data": train_data.checksum,
        "val_data": val_data.checksum,
        "micro_batch": config.per_rank_batch(world_size),
        "world_size": world_size,
    }


def differences(earlier: dict[str, Any], params: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """What may not change when a run continues, and does: each key with its ``earlier`` value and that of ``params``.

    Both are contents of ``params.json``.
    """
    was, now = _what_must_stay(earlier), _what_must_stay(params)
    return [(key, was[key], now[key]) for key in now if key in was and was[key] != now[key]]


def prepare_start(
    config: TrainConfig,
    path: Path,
    params: dict[str, Any],
    stack: contextlib.ExitStack,
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The state to continue from, if any, and what ``params.json`` will say. On rank 0.

    From here on until ``stack`` is closed no other process can write into the run's folder.

    Args:
        config: all options.
        path: the run's folder.
        params: what ``params.json`` says of a run that starts now.
        stack: holds the folder's lock.

    Raises:
        BlockingIOError: another process is writing this run.
        FileExistsError: the folder holds another run.
        ValueError: the run to continue has other options or data.
    """
    new = not path.is_dir()  # Then it is made last, when there is no mistake left to find.
    earlier = None if new else _lock_and_read(path, stack)
    state = _find_state(config, path, earlier, params)
    if state is not None:
        _check_same_run(state["params"], params)
        if earlier is not None:
            params = _with_another_start(earlier, params)
    if new and _lock_and_read(path, stack) is not None:
        raise FileExistsError(f"{path} holds a run already, which has just been started")
    return state, params


def look_for_start(config: TrainConfig, path: Path, params: dict[str, Any]) -> dict[str, Any] | None:
    """The state that :func:`prepare_start` would find, without a lock and without a trace; raises like it."""
    file = path / "params.json"
    state = _find_state(config, path, read_json_object(file) if file.is_file() else None, params)
    if state is not None:
        _check_same_run(state["params"], params)
    return state


def _lock_and_read(path: Path, stack: contextlib.ExitStack) -> dict[str, Any] | None:
    """Keep other processes out of a run's folder; what an earlier start wrote into ``params.json``."""
    stack.enter_context(hold(path))
    return RunFolder(path).read_params()


def _find_state(
    config: TrainConfig, path: Path, earlier: dict[str, Any] | None, params: dict[str, Any]
) -> dict[str, Any] | None:
    """The checkpoint to continue from; refuses a folder with a run that the user has not asked to continue."""
    resume, checkpoints = config.checkpoint.resume, run_checkpoints(config, path)
    if earlier is not None and _started_by_same_launcher(earlier, params):
        state = checkpoints.newest()  # torchrun --max-restarts
        if state is not None:
            return state
    elif earlier is not None and resume != "auto" and not _is_own(resume, path):
        raise FileExistsError(
            f"{path} holds a run already: give --checkpoint.resume=auto to continue it, or another --logging.name"
        )
    return resume_state(resume, checkpoints)


def _is_own(resume: str, path: Path) -> bool:
    """Whether ``checkpoint.resume`` names the run folder ``path``, its folder of checkpoints, or one of them."""
    place, checkpoints = Path(resume).resolve(), path.resolve() / "checkpoints"
    return resume != "none" and (place in (path.resolve(), checkpoints) or place.parent == checkpoints)


def _check_same_run(earlier: dict[str, Any], params: dict[str, Any]) -> None:
    if found := differences(earlier, params):
        told = "; ".join(f"{key}: got {now}, allowed is {was}" for key, was, now in found if key != "micro_batch")
        if not told:
            raise ValueError(other_micro_batch(earlier, params))
        raise ValueError(f"{told} to continue the run {earlier['name']}")


def _what_must_stay(params: dict[str, Any]) -> dict[str, Any]:
    options = complete(TrainConfig, params.get("config", {}))
    entries = ("train_data", "val_data", "precision", "micro_batch")
    return {key: value for key, value in options.items() if not effect_of(key).resumable} | {
        key: params[key] for key in entries if key in params
    }


def _with_another_start(earlier: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """``params.json`` of the run's first start, with what may be different this time in the list ``resumed``."""
    again = {key: params[key] for key in ("started", "launcher", "world_size", "hardware", "versions", "command")}
    return {**earlier, "resumed": [*earlier.get("resumed", []), again]}


def _started_by_same_launcher(earlier: dict[str, Any], params: dict[str, Any]) -> bool:
    last_start = earlier.get("resumed", [earlier])[-1]
    return params["launcher"] is not None and last_start.get("launcher") == params["launcher"]


def other_micro_batch(was: dict[str, Any], now: dict[str, Any]) -> str:
    """What to say where the ``params`` of a run and of its continuation differ in ``micro_batch``, which is no option.

    Both name ``micro_batch``; the latter, ``now``, its ``config`` and ``world_size`` too.
    """
    processes, batch = now["world_size"], now["config"]["training.batch_size"]
    parts = batch // was["micro_batch"]
    if parts % processes == 0:
        allowed = f"--training.accumulation={parts // processes}"
    else:
        allowed = f"a number of processes that divides {parts}, with --training.accumulation={parts} / this number"
    return (
        f"training.batch_size={batch} on {processes} process{'es' * (processes > 1)} with training.accumulation="
        f"{now['config']['training.accumulation']} are micro-batches of {now['micro_batch']} images; to continue a "
        f"run with micro-batches of {was['micro_batch']}, allowed is {allowed}"
    )
