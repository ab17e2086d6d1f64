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
        import torch

        from ffcv_imagenet.losses.gradient import with_gradient

        log_p = outputs.log_p.detach()
        p = log_p.exp()
        products = p * log_p
        penalty = products.sum(dim=1, keepdim=True)
        state["penalty"].add_(penalty.sum())
        loss = self.cross_entropy(state, log_p, target) + self.beta * penalty.mean()
        # d/dz_k sum_j p_j log p_j = p_k (log p_k - sum_j p_j log p_j)
        of_penalty = torch.sub(log_p, penalty, out=products).mul_(p)
        gradient = self.gradient_(state, p, target).add_(of_penalty, alpha=self.beta)
        return with_gradient(outputs.logits, loss, gradient)
