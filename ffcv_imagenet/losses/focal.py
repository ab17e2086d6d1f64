"""Focal loss: right and confident predictions count less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.cross_entropy import CrossEntropyLoss
from ffcv_imagenet.losses.loss import Outputs
from ffcv_imagenet.options import Real, Switch, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Focal(CrossEntropyLoss):
    """``-(1 - p_y)^gamma log p_y``, p the softmax (Lin et al., "Focal Loss", arXiv 1708.02002, here over K classes).

    With ``detach_weight`` the factor (1 - p_y)^gamma has no gradient, as in the long-tailed part of the MaxSup paper's
    code. For a soft target q: ``-sum_k q_k (1 - p_k)^gamma log p_k``.
    """

    gamma: float = option(Real(0), "exponent of 1 - p_y", 2.0)
    detach_weight: bool = option(Switch(), "no gradient through the factor (1 - p_y)^gamma", False)

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        import torch

        log_p = outputs.log_p.gather(1, target[:, None])[:, 0]
        # 1 - p without cancellation where p is near 1; not 0, where a root has no gradient.
        other = -torch.expm1(log_p)
        factor = other.clamp(min=torch.finfo(log_p.dtype).tiny) ** self.gamma
        if self.detach_weight:
            factor = factor.detach()
        return self.mean(state, -factor * log_p, target)
