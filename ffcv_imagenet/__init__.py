"""Train ResNets on ImageNet from FFCV files, once per loss, and compare the losses."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffcv_imagenet.library import Network, Normalize, Transform, load, manifest, train_loader, val_loader

__all__ = ["Network", "Normalize", "Transform", "load", "manifest", "train_loader", "val_loader"]

__version__ = "0.1.0"

# For torch's OpenMP library, which reads it when it is loaded: threads sleep while they wait for each other. By default
# they spin, and where other processes use the cores too, a training then takes several times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    """What ``__all__`` lists, when it is first used: it imports torch and FFCV, seconds that commands need not wait."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ffcv_imagenet import library

    return getattr(library, name)
