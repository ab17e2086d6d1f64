"""MaxSup: a penalty on the largest logit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.cross_entropy import CrossEntropyLoss
from ffcv_imagenet.losses.loss import Outputs
from ffcv_imagenet.options import Real, option
from ffcv_imagenet.schedules import linear

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MaxSup(CrossEntropyLoss):
    """Max suppression: cross entropy ``+ alpha * (z_max - mean_k z_k)``.

    Penalises the largest logit whether or not it is the right class, so that wrong and confident predictions are
    penalised too ("MaxSup: Overcoming Representation Collapse in Label Smoothing", arXiv 2502.15798, definition of
    max suppression). ``alpha`` goes linearly from ``alpha_start`` to ``alpha_end`` over the training. The column
    ``penalty`` is ``z_max - mean_k z_k``.
    """

    columns = ("penalty",)

    alpha_start: float = option(Real(0), "weight of the penalty at the start", 0.1)
    alpha_end: float = option(Real(0), "weight of the penalty at the end", 0.2)

    def scheduled(self, epoch: float, epochs: int) -> dict[str, float]:
        """See :meth:`Loss.scheduled`."""
        return {"alpha": linear(epoch / epochs, self.alpha_start, self.alpha_end)} | super().scheduled(epoch, epochs)

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        from ffcv_imagenet.losses.gradient import top_excess

        # In this order: with the maximum first, torch 2.11's compiler gives it a wrong gradient on a CPU.
        loss = self.cross_entropy(state, outputs.log_p, target)
        penalty = top_excess(outputs.logits)
        state["penalty"].add_(penalty.detach().sum())
        return loss + state["alpha"] * penalty.mean()
