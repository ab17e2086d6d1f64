"""The cross entropy that most losses have in them, with weights of the classes for long-tailed sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.loss import Loss
from ffcv_imagenet.options import Choice, Integer, Real, option

if TYPE_CHECKING:
    from torch import Tensor

_BETA = 0.9999


@dataclass(frozen=True)
class CrossEntropyLoss(Loss):
    """A loss with a cross entropy, in which an image of class c may count w_c times.

    ``class_weights`` are proportional to 1/n_c (``inverse``; n_c: training images of class c) or to
    ``(1 - beta) / (1 - beta^n_c)`` (``effective``; Cui et al., "Class-Balanced Loss Based on Effective Number of
    Samples", arXiv 1901.05555). They are scaled so that their mean over the training images is 1, and the loss of a
    batch is ``sum_i w_{y_i} loss_i / B``. So the loss keeps its size, and is the same on any number of ranks. (Torch's
    ``cross_entropy(weight=w)`` divides by the batch's own sum of weights, which is B on average.) With
    ``reweight_epoch`` they begin there (deferred re-weighting, Cao et al., arXiv 1906.07413).
    """

    class_weights: str = option(
        Choice("none", "inverse", "effective"),
        "weights of the classes in the cross entropy: by 1/n of their n images, or by their effective number",
        "none",
    )
    effective_beta: float = option(
        Real(0, 1 - 1e-9), "beta of class_weights=effective: weights (1 - beta) / (1 - beta^n)", _BETA
    )
    reweight_epoch: int = option(Integer(0), "epoch from which class_weights hold (0: all epochs)", 0)

    def __post_init__(self) -> None:
        """Check what involves several options; raises ValueError."""
        if self.class_weights == "none" and self.reweight_epoch:
            raise ValueError(
                f"loss.reweight_epoch: got {self.reweight_epoch}, allowed is 0, or give --loss.class_weights=effective"
            )
        if self.class_weights != "effective" and self.effective_beta != _BETA:
            raise ValueError(
                f"loss.effective_beta: got {self.effective_beta}, allowed only with --loss.class_weights=effective"
            )

    def scheduled(self, epoch: float, epochs: int) -> dict[str, float]:
        """See :meth:`Loss.scheduled`."""
        if self.class_weights == "none":
            return {}
        if self.reweight_epoch >= epochs:
            raise ValueError(
                f"loss.reweight_epoch: got {self.reweight_epoch}, allowed is less than training.epochs={epochs}"
            )
        return {"reweighted": float(epoch >= self.reweight_epoch)}

    def state(self, images_per_class: Sequence[int]) -> dict[str, Tensor]:
        """See :meth:`Loss.state`."""
        if self.class_weights == "none":
            return {}
        return {"class_weights": class_weights(self.class_weights, images_per_class, self.effective_beta)}

    def cross_entropy(self, state: Mapping[str, Tensor], log_p: Tensor, target: Tensor) -> Tensor:
        """Mean of ``-log_p[i, target_i]`` over the images, each times its class's weight."""
        from torch.nn.functional import nll_loss

        if self.class_weights == "none":
            return nll_loss(log_p, target)
        return nll_loss(log_p, target, self._weights(state).to(log_p.dtype), reduction="sum") / len(target)

    def gradient_(self, state: Mapping[str, Tensor], p: Tensor, target: Tensor) -> Tensor:
        """Turn ``p = softmax(z) [B, K]`` in place into the gradient of each image's weighted cross entropy."""
        return self.weighted_(state, p.scatter_add_(1, target[:, None], p.new_full((len(p), 1), -1.0)), target)

    def weighted_(self, state: Mapping[str, Tensor], gradient: Tensor, target: Tensor) -> Tensor:
        """``gradient [B, K]`` of the images' losses, each in place times its class's weight."""
        return gradient if self.class_weights == "none" else gradient.mul_(self._weights(state)[target][:, None])

    def mean(self, state: Mapping[str, Tensor], losses: Tensor, target: Tensor) -> Tensor:
        """Mean of ``losses [B]`` over the images, each times its class's weight."""
        if self.class_weights == "none":
            return losses.mean()
        return (self._weights(state)[target] * losses).mean()

    def _weights(self, state: Mapping[str, Tensor]) -> Tensor:
        weights = state["class_weights"]
        return weights.where(state["reweighted"] > 0, weights.new_ones(()))


def class_weights(kind: str, images_per_class: Sequence[int], beta: float) -> Tensor:
    """Weights [K] float32 of the classes, see :class:`CrossEntropyLoss`; 0 for a class without images."""
    import torch

    count = torch.tensor(images_per_class, dtype=torch.float64)
    if kind == "inverse":
        weight = 1 / count
    else:
        log_beta = math.log(beta) if beta else -math.inf
        weight = (1 - beta) / -torch.expm1(log_beta * count)
    weight[count == 0] = 0
    return (weight * count.sum() / (weight * count).sum()).float()
