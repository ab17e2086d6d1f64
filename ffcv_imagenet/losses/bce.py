"""A yes or no for every class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.loss import Loss, Outputs
from ffcv_imagenet.options import OrNone, Real, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """``sum_k (log(1 + exp z_k) - q_k z_k)``: each class is a question of its own, q the target.

    Wightman et al., "ResNet strikes back", arXiv 2110.00476. ``target_threshold`` (0.2 there) is for the soft targets
    of mixed images: a class with a larger share of the target is a yes, any other a no. With it the loss is not linear
    in the target. The sum over the classes makes the gradient of a logit ``sigmoid(z_k) - q_k``, of the size of the
    cross entropy's; code for optimizers that do not depend on the size takes the mean, 1/K of it.
    """

    target_threshold: float | None = option(
        OrNone(Real(0, 1)), "of mixed targets, classes with a larger share are a yes (none: the share itself)", None
    )

    @property
    def linear_in_target(self) -> bool:
        """Without a threshold."""
        return self.target_threshold is None

    @property
    def takes_soft_targets(self) -> bool:
        """See :attr:`Loss.takes_soft_targets`."""
        return True

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        import torch
        from torch.nn.functional import softplus

        from ffcv_imagenet.losses.gradient import with_gradient

        logits = outputs.logits.detach()
        parts = softplus(logits)
        total = parts.sum()
        gradient = torch.sub(logits, parts, out=parts).exp_()  # the sigmoid
        if target.ndim == 1:
            yes = logits.gather(1, target[:, None])
            gradient.scatter_add_(1, target[:, None], -yes.new_ones(()).expand_as(yes))
        else:
            share = target if self.target_threshold is None else (target > self.target_threshold).to(logits.dtype)
            yes = share * logits
            gradient -= share
        loss = (total - yes.sum()) / len(logits)
        return with_gradient(outputs.logits, loss, gradient)
