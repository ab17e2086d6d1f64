"""Cross entropy with label smoothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.loss import Loss
from ffcv_imagenet.options import Real, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LabelSmoothing(Loss):
    """Cross entropy whose targets give ``smoothing`` of their probability to all K classes alike.

    At logit level it equals cross entropy ``+ smoothing * (z_target - mean_k z_k)`` (Szegedy et al., "Rethinking the
    Inception Architecture", arXiv 1512.00567, section 7).
    """

    smoothing: float = option(Real(0, 1), "share of the target spread over all classes", 0.1)

    def forward(self, state: Mapping[str, Tensor], logits: Tensor, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, target, label_smoothing=self.smoothing)
