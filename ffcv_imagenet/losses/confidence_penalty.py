"""Cross entropy with a reward for the entropy of the prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.cross_entropy import CrossEntropyLoss
from ffcv_imagenet.losses.loss import Outputs
from ffcv_imagenet.options import Real, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ConfidencePenalty(CrossEntropyLoss):
    """Cross entropy ``- beta * H(p)``, H the entropy of the softmax p in nats.

    Pereyra et al., "Regularizing Neural Networks by Penalizing Confident Output Distributions", arXiv 1701.06548. The
    column ``penalty`` is ``-H(p)``.
    """

    columns = ("penalty",)

    beta: float = option(Real(0), "weight of the entropy", 0.1)

    def scheduled(self, epoch: float, epochs: int) -> dict[str, float]:
        """See :meth:`Loss.scheduled`."""
        return {"beta": self.beta} | super().scheduled(epoch, epochs)

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        log_p = outputs.log_p
        loss = self.cross_entropy(state, log_p, target)
        penalty = (log_p.exp() * log_p).sum()
        state["penalty"].add_(penalty.detach())
        return loss + state["beta"] * (penalty / len(target))
