"""The optimizer and what is decayed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

_NORMALISATION = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


def _decays_weights(module: nn.Module, name: str) -> bool:
    # Attention keeps its biases as in_proj_bias, bias_k and bias_v.
    return not isinstance(module, _NORMALISATION) and "bias" not in name.rpartition(".")[2].split("_")


#: Values of ``training.decay``: whether a module's parameter, whose name in the whole model is given, is decayed.
DECAY_RULES: dict[str, Callable[[nn.Module, str], bool]] = {
    # Neither normalisation layers, which are found by module type, nor biases.
    "weights": _decays_weights,
    # As torchvision's reference training does by default.
    "all": lambda module, name: True,
    # As libffcv/ffcv-imagenet, which goes by names: in ResNets, fc.bias and the batch normalisation of the shortcuts
    # (downsample.1) are decayed too.
    "libffcv": lambda module, name: "bn" not in name,
}


def parameter_groups(model: nn.Module, weight_decay: float, decay: str = "weights") -> list[dict]:
    """Up to two groups: the parameters that are decayed by a rule of :data:`DECAY_RULES`, and those that are not."""
    decayed: dict[int, nn.Parameter] = {}
    free: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            (decayed if DECAY_RULES[decay](module, name) else free)[id(parameter)] = parameter
    groups = [
        {"params": list(decayed.values()), "weight_decay": weight_decay},
        {"params": list(free.values()), "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_sgd(model: nn.Module, *, momentum: float, weight_decay: float, decay: str = "weights") -> torch.optim.SGD:
    """Fused SGD with momentum: one kernel for many parameters; the learning rate is set before every step.

    ``decay``, one of :data:`DECAY_RULES`, says what ``weight_decay`` applies to.

    It takes no step while its attribute ``found_inf``, or the one of a GradScaler, is not zero, which is decided on the
    device.
    """
    optimizer = torch.optim.SGD(parameter_groups(model, weight_decay, decay), lr=0.0, momentum=momentum, fused=True)
    if momentum > 0:
        # torch would leave them uninitialised if the first step were skipped.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups: a number passed to the kernels, so that nothing waits for the device."""
    for group in optimizer.param_groups:
        group["lr"] = lr
