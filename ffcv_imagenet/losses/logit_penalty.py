"""Cross entropy with a penalty on the size of the logits."""

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
class LogitPenalty(CrossEntropyLoss):
    """Cross entropy ``+ beta / 2 * sum_k z_k^2``.

    The default ``beta`` is that of the code of the MaxSup paper (arXiv 2502.15798, Table 4), 2e-3; its authors'
    rebuttal has 6e-4. Kornblith et al. ("Why Do Better Loss Functions Lead to Less Transferable Features?",
    arXiv 2010.16402) write ``beta * sum_k z_k^2``, without the half, with 6e-4: here 1.2e-3. The column ``penalty`` is
    ``sum_k z_k^2 / 2``.
    """

    columns = ("penalty",)

    beta: float = option(Real(0), "weight of half the sum of the squared logits", 2e-3)

    def scheduled(self, epoch: float, epochs: int) -> dict[str, float]:
        """See :meth:`Loss.scheduled`."""
        return {"beta": self.beta} | super().scheduled(epoch, epochs)

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        from ffcv_imagenet.losses.gradient import with_gradient

        log_p, logits = outputs.log_p.detach(), outputs.logits.detach()
        penalty = logits.square().sum() / 2
        state["penalty"].add_(penalty)
        loss = self.cross_entropy(state, log_p, target) + self.beta * (penalty / len(target))
        gradient = self.gradient_(state, log_p.exp(), target).add_(logits, alpha=self.beta)
        return with_gradient(outputs.logits, loss, gradient)
