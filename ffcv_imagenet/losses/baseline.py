"""Cross entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.loss import Loss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Baseline(Loss):
    """Cross entropy of the softmax of the logits: ``log sum_k exp z_k - z_target``."""

    def forward(self, state: Mapping[str, Tensor], logits: Tensor, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, target)
