"""Parts of a network that are not trained."""

from __future__ import annotations

import difflib

from torch import nn


def freeze(model: nn.Module, name: str) -> None:
    """Leave the module ``name`` of ``model`` as it is in training.

    Raises:
        ValueError: there is no such module, or it has no parameters.
    """
    modules = {key: module for key, module in model.named_modules() if key and any(True for _ in module.parameters())}
    if name not in modules:
        similar = difflib.get_close_matches(name, modules, n=3) or [key for key in modules if "." not in key]
        raise ValueError(
            f"model.frozen: got {name!r}, allowed are modules of the network, such as {', '.join(similar)}"
        )
    modules[name].requires_grad_(False)


def is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters and none is trained: then its normalisation keeps its statistics, too."""
    flags = [parameter.requires_grad for parameter in module.parameters()]
    return bool(flags) and not any(flags)
