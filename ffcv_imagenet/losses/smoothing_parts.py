"""The two parts of label smoothing, each on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        loss = self.cross_entropy(state, outputs.log_p, target)
        penalty = self.penalty(outputs.logits, outputs.logits.gather(1, target[:, None]))
        state["penalty"].add_(penalty.detach() / outputs.logits.shape[1])
        return loss + state["smoothing"] * (penalty / outputs.logits.numel())

    def penalty(self, logits: Tensor, own: Tensor) -> Tensor:
        """The sum over images and classes, for ``logits [B, K]`` and the target's ``[B, 1]``."""
        return (own - logits).relu().sum()


@dataclass(frozen=True)
class ErrorAmplificationOnly(RegularizationOnly):
    """Cross entropy ``+ smoothing / K * sum_{k: z_k > z_y} (z_y - z_k)``: smoothing's part that amplifies errors.

    It is <= 0: where a prediction is wrong, the wrong classes' lead is rewarded. See :class:`RegularizationOnly`. The
    column ``penalty`` is ``sum_{k: z_k > z_y} (z_y - z_k) / K``.
    """

    def penalty(self, logits: Tensor, own: Tensor) -> Tensor:
        """See :meth:`RegularizationOnly.penalty`."""
        return -(logits - own).relu().sum()
