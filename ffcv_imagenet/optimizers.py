"""Optimizers by name: each is a frozen dataclass of its options that makes one of torch's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ffcv_imagenet.options import Real, Switch, option
from ffcv_imagenet.variants import Variants

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Optimizer:
    """How weights follow from gradients. The learning rate is set before every step.

    Attributes:
        skips_on_device: whether a step can be skipped without a wait for the device.
    """

    skips_on_device: ClassVar[bool] = True

    def make(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """An optimizer of these groups of parameters, each with its ``weight_decay``.

        Raises:
            ValueError: a package is missing.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent."""

    momentum: float = option(Real(0, 1), "momentum of SGD", 0.9)
    nesterov: bool = option(Switch(), "Nesterov's momentum", False)

    def __post_init__(self) -> None:
        """Raise ValueError for Nesterov's momentum of zero."""
        if self.nesterov and not self.momentum:
            raise ValueError("training.nesterov: got 1, allowed with training.momentum=0 is 0")

    def make(self, groups: Sequence[dict[str, Any]]) -> torch.optim.SGD:
        """See :meth:`Optimizer.make`."""
        import torch

        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=self.momentum, nesterov=self.nesterov, fused=True)
        if self.momentum > 0:
            # torch would leave them uninitialised if the first step were skipped.
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101)."""

    beta1: float = option(Real(0, 0.999999), "decay of the mean of the gradients", 0.9)
    beta2: float = option(Real(0, 0.999999), "decay of the mean of their squares", 0.999)
    eps: float = option(Real(0), "added to the root of the mean of the squares", 1e-8)

    def make(self, groups: Sequence[dict[str, Any]]) -> torch.optim.AdamW:
        """See :meth:`Optimizer.make`."""
        import torch

        return torch.optim.AdamW(groups, lr=0.0, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)


@dataclass(frozen=True)
class Lamb(Optimizer):
    """LAMB (You et al., arXiv 1904.00962), timm's, which also shortens gradients to a norm of 1 over all parameters."""

    skips_on_device: ClassVar[bool] = False

    beta1: float = option(Real(0, 0.999999), "decay of the mean of the gradients", 0.9)
    beta2: float = option(Real(0, 0.999999), "decay of the mean of their squares", 0.999)
    eps: float = option(Real(0), "added to the root of the mean of the squares", 1e-6)

    def make(self, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
        """See :meth:`Optimizer.make`."""
        try:
            from timm.optim import Lamb as TimmLamb  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError as error:
            raise ValueError(f"training.optimizer: got lamb, which needs timm: pip install timm ({error})") from None
        return TimmLamb(groups, lr=0.0, betas=(self.beta1, self.beta2), eps=self.eps)


#: Optimizers by ``training.optimizer``.
OPTIMIZERS: Variants[Optimizer] = Variants("training.optimizer", {"sgd": SGD, "adamw": AdamW, "lamb": Lamb})
