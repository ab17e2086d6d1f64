"""Groups of parameters: what is decayed, and at which learning rate each part of a network is trained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

_NORMALISATION = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)
#: What transformers add to their input, in torchvision's and timm's words.
_TOKENS_AND_POSITIONS = (
    "class_token", "cls_token", "dist_token", "reg_token", "pos_embed", "pos_embedding",
)  # fmt: skip


def _decays_weights(module: nn.Module, name: str) -> bool:
    # Attention keeps its biases as in_proj_bias, bias_k and bias_v.
    last = name.rpartition(".")[2]
    return (
        not isinstance(module, _NORMALISATION) and "bias" not in last.split("_") and last not in _TOKENS_AND_POSITIONS
    )


#: Values of ``training.decay``: whether a module's parameter, whose name in the whole model is given, is decayed.
DECAY_RULES: dict[str, Callable[[nn.Module, str], bool]] = {
    # Neither normalisation layers, which are found by module type, nor biases, nor what is added to the input.
    "weights": _decays_weights,
    # As torchvision's reference training does by default.
    "all": lambda module, name: True,
    # As libffcv/ffcv-imagenet, which goes by names: in ResNets, fc.bias and the batch normalisation of the shortcuts
    # (downsample.1) are decayed too.
    "libffcv": lambda module, name: "bn" not in name,
}


def parameter_groups(
    model: nn.Module, weight_decay: float, decay: str = "weights", lr_factors: Mapping[str, float] | None = None
) -> list[dict]:
    """Groups of the parameters that are trained, alike in what is decayed and in the learning rate.

    Args:
        model: what it names in ``no_weight_decay()``, as timm's models do, is not decayed by the rule ``weights``.
        weight_decay: of the parameters that the rule ``decay`` (one of :data:`DECAY_RULES`) applies to; 0 of others.
        decay: see ``weight_decay``.
        lr_factors: of the parameters by name; others have 1. A group's is its ``lr_factor``, left out where it is 1.

    Raises:
        ValueError: no parameter is trained.
    """
    lr_factors = lr_factors or {}
    named = getattr(model, "no_weight_decay", None)
    exempt = set(named()) if callable(named) and decay == "weights" else set()
    found: dict[tuple[bool, float], dict[int, nn.Parameter]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            if parameter.requires_grad:
                decayed = name not in exempt and DECAY_RULES[decay](module, name)
                found.setdefault((decayed, lr_factors.get(name, 1.0)), {})[id(parameter)] = parameter
    if not found:
        raise ValueError("model.frozen: got the whole network, allowed are parts of it")
    return [
        {"params": list(parameters.values()), "weight_decay": weight_decay if decayed else 0.0}
        | ({} if factor == 1 else {"lr_factor": factor})
        for (decayed, factor), parameters in sorted(found.items(), key=lambda item: (not item[0][0], -item[0][1]))
    ]


def lr_factors(
    model: nn.Module, head: Collection[str], *, head_lr: float = 1.0, layer_decay: float = 1.0
) -> dict[str, float]:
    """Factors of the learning rate for fine-tuning, by the parameters' names.

    From each block to the one before it, the rate is multiplied by ``layer_decay`` (Clark et al., arXiv 2003.10555,
    appendix). Blocks are the members of a network's lists of layers, in their order (a residual block of a ResNet, a
    layer of a transformer); what comes before the first one counts as a block, and so does all after the last.

    Args:
        model: the network.
        head: names of the parameters of its output layer, whose rate is multiplied by ``head_lr``.
        head_lr: see ``head``.
        layer_decay: see above; 1: all blocks alike.
    """
    blocks = _blocks(model)
    depths = {}
    for name, _ in model.named_parameters():
        inside = [number for number, block in enumerate(blocks, start=1) if name.startswith(f"{block}.")]
        if name in head:
            depths[name] = len(blocks) + 1
        elif inside:
            depths[name] = inside[0]
        else:
            depths[name] = 0 if not any(depths.values()) else len(blocks) + 1
    return {
        name: layer_decay ** (len(blocks) + 1 - depth) * (head_lr if name in head else 1)
        for name, depth in depths.items()
    }


def _blocks(module: nn.Module, path: str = "") -> list[str]:
    """Names of the members of the lists of layers in ``module``, not of those inside of these members."""
    found = []
    for name, child in module.named_children():
        members = [
            f"{path}{name}.{member}" for member, m in child.named_children() if any(True for _ in m.parameters())
        ]
        found += members if isinstance(child, (nn.Sequential, nn.ModuleList)) else _blocks(child, f"{path}{name}.")
    return found


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups: a number passed to the kernels, so that nothing waits for the device."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1)


def get_lr(optimizer: torch.optim.Optimizer) -> float:
    """The rate that :func:`set_lr` has set, without the groups' factors."""
    group = optimizer.param_groups[0]
    return group["lr"] / group["lr_factor"] if "lr_factor" in group else group["lr"]
