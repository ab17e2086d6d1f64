"""Cross entropy with label smoothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.loss import Outputs
from ffcv_imagenet.losses.smoothing import SmoothingSchedule

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LabelSmoothing(SmoothingSchedule):
    """Cross entropy whose targets give ``smoothing`` of their probability to all K classes alike.

    At logit level it equals cross entropy ``+ smoothing * (z_target - mean_k z_k)`` (Szegedy et al., "Rethinking the
    Inception Architecture", arXiv 1512.00567, section 7). The column ``penalty`` is ``z_target - mean_k z_k``, with the
    class weights of the loss. The smoothing is constant, or goes linearly from start to end as in arXiv 2502.15798.
    """

    columns = ("penalty",)

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        log_p, smoothing = outputs.log_p, state["smoothing"]
        num_classes = log_p.shape[1]
        hard = self.cross_entropy(state, log_p, target)
        to_all = self.mean(state, -log_p.sum(dim=1), target)
        state["penalty"].add_((to_all / num_classes - hard).detach() * len(target))
        return hard * (1 - smoothing) + to_all * (smoothing / num_classes)
