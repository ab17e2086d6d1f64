"""Weights from a file into a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ffcv_imagenet.run.checkpoint import newest_checkpoint, read_tensor_file

#: What DistributedDataParallel puts in front of the names.
_PREFIX = "module."
#: What libffcv/ffcv-imagenet's blur pooling keeps next to its convolution; here it is no part of the weights.
_BLUR_FILTER = ".blur_filter"


def load_weights(model: nn.Module, path: Path, arch: str | None = None) -> str:
    """Load weights into ``model`` from a state dict or one of our checkpoints, without running code from the file.

    Of a run folder, from its newest checkpoint. Of libffcv/ffcv-imagenet's files, the prefix ``module.`` is taken off,
    and the filters of blur pooling are left out if they are those that ``model.blurpool`` has.

    Args:
        model: gets the weights.
        path: a file, or a run folder.
        arch: the model's architecture: a checkpoint of another is refused by name.

    Returns:
        What was loaded, renamed and left out, as one line.

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
    if not all(isinstance(key, str) for key in state):
        raise ValueError(f"{path} does not fit the model: its keys are not names of tensors")
    renamed = sum(key.startswith(_PREFIX) for key in state)
    state = {key.removeprefix(_PREFIX): value for key, value in state.items()}
    filters = [key for key in state if key.endswith(_BLUR_FILTER)]
    for key in filters:
        _check_blur_filter(path, key, state.pop(key))
    _check_blurpool(model, path, state)
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} does not fit the model: {' '.join(str(error).split())[:300]}") from None
    text = f"{len(state)} tensors loaded from {path}"
    text += f", {renamed} of the file's renamed (without {_PREFIX})" if renamed else ""
    text += f", {len(filters)} left out ({_BLUR_FILTER.lstrip('.')}, the same as here)" if filters else ""
    return text


def _check_blur_filter(path: Path, key: str, value: Any) -> None:
    """Check that a filter of blur pooling is [1 2 1] x [1 2 1] / 16, [C, 1, 3, 3], that of BlurPoolConv2d."""
    row = torch.tensor([1.0, 2.0, 1.0])
    same = (
        isinstance(value, torch.Tensor)
        and value.shape[1:] == (1, 3, 3)
        and torch.equal(value.float(), (torch.outer(row, row) / 16).expand(value.shape))
    )
    if not same:
        raise ValueError(f"{path}: {key} is another blur filter than [1 2 1] x [1 2 1] / 16, which model.blurpool has")


def _check_blurpool(model: nn.Module, path: Path, state: dict[str, Any]) -> None:
    """Check that file and model put blur pooling around the same convolutions, whose weights are named ``conv``."""
    for key in model.state_dict().keys() - state.keys():
        stem = key.removesuffix(".weight")
        for other, needed in ((f"{stem}.conv.weight", 1), (f"{stem.removesuffix('.conv')}.weight", 0)):
            if other in state:
                raise ValueError(f"{path} has {other}, the model {key}: it needs --model.blurpool={needed}")


def checkpoint_arch(content: Any) -> str | None:
    """The architecture whose checkpoint this is; None for anything else."""
    params = content.get("params") if isinstance(content, dict) else None
    return params["config"].get("model.arch") if isinstance(params, dict) and "config" in params else None


def checkpoint_weights(content: dict[str, Any]) -> Any:
    """What is evaluated of a checkpoint: the average of the weights if it has one, else the weights.

    Of a dictionary that is not a checkpoint: itself.
    """
    return content.get("ema") or content.get("model", content)
