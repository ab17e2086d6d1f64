"""Weights from a file into a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ffcv_imagenet.run.checkpoint import newest_checkpoint, read_tensor_file


def load_weights(model: nn.Module, path: Path, arch: str | None = None) -> None:
    """Load weights into ``model`` from a state dict or one of our checkpoints, without running code from the file.

    Of a run folder, from its newest checkpoint. ``arch`` is the model's architecture: a checkpoint of another is
    refused by name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of weights, or weights of another model.
    """
    if path.is_dir():
        path = newest_checkpoint(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights not found: {path}")
    try:
        content = read_tensor_file(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a file of weights: {error}") from None
    was = checkpoint_arch(content)
    if arch is not None and was not in (None, arch):
        raise ValueError(f"{path} is a checkpoint of model.arch={was}, got model.arch={arch}")
    state = checkpoint_weights(content) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, allowed is a state dict or a checkpoint")
    try:
        model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} does not fit the model: {' '.join(str(error).split())[:300]}") from None


def checkpoint_arch(content: Any) -> str | None:
    """The architecture whose checkpoint this is; None for anything else."""
    params = content.get("params") if isinstance(content, dict) else None
    return params["config"].get("model.arch") if isinstance(params, dict) and "config" in params else None


def checkpoint_weights(content: dict[str, Any]) -> Any:
    """What is evaluated of a checkpoint: the average of the weights if it has one, else the weights.

    Of a dictionary that is not a checkpoint: itself.
    """
    return content.get("ema") or content.get("model", content)
