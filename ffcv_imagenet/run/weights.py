"""Weights from a file into a model: of this program's runs, and of others'."""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy._core.multiarray as _multiarray
import torch
from torch import Tensor, nn

from ffcv_imagenet.run.checkpoint import newest_checkpoint, read_tensor_file
from ffcv_imagenet.run.safetensors import read_safetensors

#: What DistributedDataParallel, torch.compile and training programs put in front of the names.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
#: Under which keys the files of other programs keep the weights, the first that is there counts.
_CONTAINERS = ("model", "state_dict_best", "state_dict")
#: The average of the weights in timm's and DeiT's checkpoints.
_FOREIGN_AVERAGE = "model_ema"
#: What libffcv/ffcv-imagenet's blur pooling keeps next to its convolution; here it is no part of the weights.
_BLUR_FILTER = ".blur_filter"
#: What vision transformers call their position embeddings, in timm's and torchvision's words.
_POSITIONS = ("pos_embed", "pos_embedding")
#: Besides tensors and plain values: the options of a training program and numbers of numpy. Nothing of it runs.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"),
    *(
        (function, f"numpy.{core}.multiarray.{function.__name__}")  # before and since numpy 2
        for function in (_multiarray.scalar, _multiarray._reconstruct)
        for core in ("core", "_core")
    ),
]


@dataclass(frozen=True)
class Weights:
    """The tensors of a file under the names that a model has, and what was done to get there, as one line."""

    state: dict[str, Any]
    told: str


def load_weights(
    model: nn.Module,
    path: Path,
    arch: str | None = None,
    *,
    average: bool = False,
    head: Collection[str] = (),
    new_head: bool = False,
    rows: Sequence[int] | None = None,
    resize: bool = False,
) -> str:
    """Load weights into ``model``; see :func:`read_weights` for what is understood.

    Args:
        model: gets the weights.
        path: a file, or a run folder.
        arch: the model's architecture: a checkpoint of another is refused by name.
        average: see :func:`read_weights`.
        head: names of the output layer's parameters.
        new_head: leave those of ``model`` as they are.
        rows: of the file's output layer, for each class of ``model``; None: as they are.
        resize: fit position embeddings, see :func:`resize_positions`.

    Returns:
        What was loaded, renamed, changed and left out, as one line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of weights, or weights of another model.
    """
    weights = read_weights(path, arch, average=average)
    state, told = dict(weights.state), weights.told
    if rows is not None:
        for name in head:
            if isinstance(state.get(name), Tensor) and state[name].ndim:
                if len(state[name]) != len(rows):
                    raise ValueError(
                        f"{path}: {name} is of {len(state[name])} classes, allowed with model.class_order are "
                        f"{len(rows)}, those of its file"
                    )
                state[name] = state[name][rows]
        told += ", classes reordered"
    fitted, resized = resize_positions(model, state)
    if resized and not resize:
        raise ValueError(
            f"{path} does not fit the model: {_some(resized)} is for images of another size; --model.positions=resize "
            f"resizes it"
        )
    state, told = fitted, told + (f", {_some(resized)} resized" if resized else "")
    own = model.state_dict()
    if new_head:
        # The file's layer may have further parameters, such as the bias that ldam's lacks.
        layers = {name.rpartition(".")[0] for name in head} - {""}
        state = {name: v for name, v in state.items() if name in own or name.rpartition(".")[0] not in layers}
        state |= {name: own[name] for name in head}
        told += f", {_some([*head])} new"
    for name in head:
        if isinstance(state.get(name), Tensor) and state[name].shape[:1] != own[name].shape[:1]:
            raise ValueError(
                f"{path}: {name} is of {len(state[name])} classes, allowed are {len(own[name])}; "
                f"--model.head=new begins with a new output layer"
            )
    load_state(model, state, path)
    return told


def read_weights(path: Path, arch: str | None = None, *, average: bool = False) -> Weights:
    """The weights in a file, without running code from it.

    Understood are one of our checkpoints or a run folder (its newest checkpoint), a state dict, a dictionary that has
    one under ``model``, ``state_dict_best`` or ``state_dict``, and safetensors. Prefixes such as ``module.`` are taken
    off. Where one is in front of the network's names alone, the rest (metrics, criteria) is left out; and so are the
    filters of libffcv/ffcv-imagenet's blur pooling, if they are those that ``model.blurpool`` has.

    Args:
        path: a file, or a run folder.
        arch: a checkpoint of another architecture is refused by name.
        average: of another program's checkpoint, take the average of the weights (``model_ema``).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of weights, or no average in it.
    """
    if path.is_dir():
        path = newest_checkpoint(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights not found: {path}")
    try:
        safe = path.suffix == ".safetensors"
        content = read_safetensors(path) if safe else read_tensor_file(path, also=_HARMLESS)
    except ValueError as error:
        raise ValueError(f"{path} is not a file of weights: {error}") from None
    was = checkpoint_arch(content)
    if arch is not None and was not in (None, arch):
        raise ValueError(f"{path} is a checkpoint of model.arch={was}, got model.arch={arch}")
    state = _state_dict(content, path, average)
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, allowed is a state dict or a checkpoint")
    if not all(isinstance(key, str) for key in state):
        raise ValueError(f"{path} does not fit the model: its keys are not names of tensors")
    taken_off, others = [], []
    while prefix := next((p for p in _PREFIXES if any(key.startswith(p) for key in state)), None):
        taken_off.append(prefix)
        others += [key for key in state if not key.startswith(prefix)]
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    renamed = len(state) if taken_off else 0
    filters = [key for key in state if key.endswith(_BLUR_FILTER)]
    for key in filters:
        _check_blur_filter(path, key, state.pop(key))
    told = f"{len(state)} tensors loaded from {path}"
    told += f", {renamed} of the file's renamed (without {''.join(taken_off)})" if renamed else ""
    told += f", {len(filters)} left out ({_BLUR_FILTER.lstrip('.')}, the same as here)" if filters else ""
    told += f", {len(others)} left out that are not the network's ({_some(others)})" if others else ""
    return Weights(state, told)


def load_state(model: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    """Load a state dict from ``path`` into ``model``; raises ValueError when it is of another model."""
    _check_blurpool(model, path, state)
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} does not fit the model: {' '.join(str(error).split())[:300]}") from None


def resize_positions(model: nn.Module, state: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Position embeddings [1, T + n^2, D] for an image of n x n patches, made those of the image size of ``model``.

    The T embeddings of tokens that are no patches come first and stay; the others are interpolated bicubically, as
    DeiT's fine-tuning does.

    Returns:
        The state dict, and the names of the tensors that are changed.
    """
    resized = {}
    for name, own in model.state_dict().items():
        value = state.get(name)
        if name.rpartition(".")[2] not in _POSITIONS or not isinstance(value, Tensor) or value.shape == own.shape:
            continue
        side, side_before = (math.isqrt(size - 1) for size in (own.shape[1], value.shape[1]))
        tokens = own.shape[1] - side**2
        if value.ndim != 3 or value.shape[1] - side_before**2 != tokens or value.shape[2] != own.shape[2]:
            continue  # load_state tells what does not fit
        patches = value[:, tokens:].float().transpose(1, 2).unflatten(2, (side_before, side_before))
        patches = nn.functional.interpolate(patches, (side, side), mode="bicubic", align_corners=False)
        resized[name] = torch.cat([value[:, :tokens], patches.flatten(2).transpose(1, 2).to(value.dtype)], dim=1)
    return {**state, **resized}, list(resized)


def _state_dict(content: Any, path: Path, average: bool) -> Any:
    """The state dict in what a file holds; None where there is none."""
    if not isinstance(content, dict):
        return None
    if average:
        if not isinstance(content.get(_FOREIGN_AVERAGE), dict):
            raise ValueError(f"{path} has no average of weights ({_FOREIGN_AVERAGE})")
        return content[_FOREIGN_AVERAGE]
    if "ema" in content and "model" in content:  # ours
        return checkpoint_weights(content)
    return next((content[key] for key in _CONTAINERS if isinstance(content.get(key), dict)), content)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _check_blur_filter(path: Path, key: str, value: Any) -> None:
    """Check that a filter of blur pooling is [1 2 1] x [1 2 1] / 16, [C, 1, 3, 3], that of BlurPoolConv2d."""
    row = torch.tensor([1.0, 2.0, 1.0])
    same = (
        isinstance(value, Tensor)
        and value.shape[1:] == (1, 3, 3)
        and torch.equal(value.float(), (torch.outer(row, row) / 16).expand(value.shape))
    )
    if not same:
        raise ValueError(f"{path}: {key} is another blur filter than [1 2 1] x [1 2 1] / 16, which model.blurpool has")


def _check_blurpool(model: nn.Module, path: Path, state: Mapping[str, Any]) -> None:
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
    """What is evaluated of one of our checkpoints: the average of the weights if it has one, else the weights."""
    return content["ema"] or content["model"]
