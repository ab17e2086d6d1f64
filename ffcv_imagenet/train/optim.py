"""The optimizer and what is decayed."""

from __future__ import annotations

import torch
from torch import nn

_NORMALISATION = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: decayed parameters, and normalisation layers and biases, which are not.

    Normalisation layers are found by module type, not by name.
    """
    decayed: dict[int, nn.Parameter] = {}
    free: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            # Attention keeps its biases as in_proj_bias, bias_k and bias_v.
            undecayed = isinstance(module, _NORMALISATION) or "bias" in name.split("_")
            (free if undecayed else decayed)[id(parameter)] = parameter
    groups = [
        {"params": list(decayed.values()), "weight_decay": weight_decay},
        {"params": list(free.values()), "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_sgd(model: nn.Module, *, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """Fused SGD with momentum: one kernel for many parameters; the learning rate is set before every step.

    It takes no step while its attribute ``found_inf``, or the one of a GradScaler, is not zero, which is decided on the
    device.
    """
    optimizer = torch.optim.SGD(parameter_groups(model, weight_decay), lr=0.0, momentum=momentum, fused=True)
    if momentum > 0:
        # torch would leave them uninitialised when the first step is not taken.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups: a number that the kernels are given, so that the device is not asked."""
    for group in optimizer.param_groups:
        group["lr"] = lr
