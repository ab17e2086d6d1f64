"""The last layer of a network: where it is, and what takes its place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CosineHead(nn.Module):
    """``scale`` times the cosine between features ``[B, F]`` and each class's vector; in place of a linear layer.

    It begins with the directions of that layer's rows, and computes in float32 under autocast.
    """

    def __init__(self, linear: nn.Linear, scale: float):
        super().__init__()
        self.weight = nn.Parameter(F.normalize(linear.weight.detach(), dim=1))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """``[B, F]`` to logits ``[B, K]``."""
        with torch.autocast(x.device.type, enabled=False):
            return self.scale * F.linear(F.normalize(x.to(self.weight.dtype), dim=1), F.normalize(self.weight, dim=1))


def head_name(model: nn.Module, num_classes: int) -> str:
    """The name of the last linear layer (or the head of cosines in its place), whose input are the features.

    Raises:
        ValueError: the network does not end in one with ``num_classes`` rows.
    """
    heads = [(name, module) for name, module in model.named_modules() if isinstance(module, (nn.Linear, CosineHead))]
    if not heads or len(heads[-1][1].weight) != num_classes:
        raise ValueError(f"{type(model).__name__} does not end in a linear layer, whose input would be the features")
    return heads[-1][0]


def find_head(model: nn.Module, num_classes: int) -> nn.Linear | CosineHead:
    """The layer that :func:`head_name` names; raises likewise."""
    return model.get_submodule(head_name(model, num_classes))  # type: ignore[return-value]


def make_cosine_head(model: nn.Module, num_classes: int, scale: float) -> None:
    """Exchange the last layer of ``model`` for a :class:`CosineHead`; raises as :func:`head_name`."""
    name = head_name(model, num_classes)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, CosineHead(model.get_submodule(name), scale))  # type: ignore[arg-type]
