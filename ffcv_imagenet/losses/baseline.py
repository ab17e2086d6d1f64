"""Cross entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.cross_entropy import CrossEntropyLoss
from ffcv_imagenet.losses.loss import Outputs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Baseline(CrossEntropyLoss):
    """Cross entropy of the softmax of the logits: ``log sum_k exp z_k - z_target``."""

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        return self.cross_entropy(state, outputs.log_p, target)
