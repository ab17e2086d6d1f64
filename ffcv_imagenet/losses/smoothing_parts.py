"""The two parts of label smoothing, each on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ffcv_imagenet.losses.loss import Outputs
from ffcv_imagenet.losses.smoothing import SmoothingSchedule

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RegularizationOnly(SmoothingSchedule):
    """Cross entropy ``+ smoothing / K * sum_{k: z_k < z_y} (z_y - z_k)``: smoothing's part that regularises (>= 0).

    The MaxSup paper's decomposition of label smoothing (arXiv 2502.15798, Table 1): with
    :class:`ErrorAmplificationOnly`'s it adds up to ``smoothing * (z_y - mean_k z_k)``. The column ``penalty`` is
    ``sum_{k: z_k < z_y} (z_y - z_k) / K``.
    """

    columns = ("penalty",)
    #: 1 for the classes below the target's logit, -1 for those above.
    side: ClassVar[int] = 1

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        from ffcv_imagenet.losses.gradient import with_gradient

        logits, log_p, own = outputs.logits.detach(), outputs.log_p.detach(), target[:, None]
        share = state["smoothing"] / logits.shape[1]
        lead = (logits.gather(1, own) - logits).mul_(self.side).clamp_(min=0)
        penalty = self.side * lead.sum()
        state["penalty"].add_(penalty / logits.shape[1])
        loss = self.cross_entropy(state, log_p, target) + share * (penalty / len(target))
        gradient = self.gradient_(state, log_p.exp(), target)
        chosen = lead.sign_()  # 1 for the classes in the sum, in which the target's logit stands once for each
        gradient.addcmul_(chosen, share.to(chosen.dtype), value=-1)
        gradient.scatter_add_(1, own, (share * chosen.sum(dim=1, keepdim=True)).to(chosen.dtype))
        return with_gradient(outputs.logits, loss, gradient)


@dataclass(frozen=True)
class ErrorAmplificationOnly(RegularizationOnly):
    """Cross entropy ``+ smoothing / K * sum_{k: z_k > z_y} (z_y - z_k)``: smoothing's part that amplifies errors.

    It is <= 0: where a prediction is wrong, the wrong classes' lead is rewarded. See :class:`RegularizationOnly`. The
    column ``penalty`` is ``sum_{k: z_k > z_y} (z_y - z_k) / K``.
    """

    side = -1
