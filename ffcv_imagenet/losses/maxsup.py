"""MaxSup: a penalty on the largest logit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.loss import Loss
from ffcv_imagenet.options import Real, option
from ffcv_imagenet.schedules import linear

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MaxSup(Loss):
    """Max suppression: cross entropy ``+ alpha * (z_max - mean_k z_k)``.

    Penalises the largest logit whether or not it is the right class, so that wrong and confident predictions are
    penalised too ("MaxSup: Overcoming Representation Collapse in Label Smoothing", arXiv 2502.15798, definition of
    max suppression). ``alpha`` goes linearly from ``alpha_start`` to ``alpha_end`` over the training. The column
    ``penalty`` is ``z_max - mean_k z_k``.
    """

    columns = ("penalty",)

    alpha_start: float = option(Real(0), "weight of the penalty at the start", 0.1)
    alpha_end: float = option(Real(0), "weight of the penalty at the end", 0.2)

    def scheduled(self, progress: float) -> dict[str, float]:
        """See :meth:`Loss.scheduled`."""
        return {"alpha": linear(progress, self.alpha_start, self.alpha_end)}

    def forward(self, state: Mapping[str, Tensor], logits: Tensor, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        from torch.nn.functional import cross_entropy

        # In this order: with the maximum first, torch 2.11's compiler gives it a wrong gradient on a CPU.
        loss = cross_entropy(logits, target)
        penalty = logits.max(dim=1).values - logits.mean(dim=1)
        state["penalty"].add_(penalty.detach().sum())
        return loss + state["alpha"] * penalty.mean()
