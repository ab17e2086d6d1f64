"""LDAM: rare classes get a larger margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.cross_entropy import CrossEntropyLoss
from ffcv_imagenet.losses.loss import Outputs
from ffcv_imagenet.options import Real, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LDAM(CrossEntropyLoss):
    """Label-distribution-aware margin: cross entropy of the logits with ``z_y - scale * m_y`` in place of ``z_y``.

    Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", arXiv 1906.07413. The logits
    are ``scale`` times the cosine of features and class vector, for which the model's last layer is replaced. ``m_c``
    is proportional to n_c^(-1/4) (n_c: training images of class c), ``max_margin`` for the rarest class. Their deferred
    re-weighting: ``class_weights=effective`` with a ``reweight_epoch``.
    """

    max_margin: float = option(Real(0), "margin of the rarest class, in terms of the cosine", 0.5)
    scale: float = option(Real(1), "factor of the cosines", 30.0)

    @property
    def linear_in_target(self) -> bool:
        """No: the margin is that of one class."""
        return False

    @property
    def cosine_scale(self) -> float | None:
        """See :attr:`Loss.cosine_scale`."""
        return self.scale

    def state(self, images_per_class: Sequence[int]) -> dict[str, Tensor]:
        """See :meth:`Loss.state`."""
        import torch

        margins = torch.tensor(images_per_class, dtype=torch.float64).clamp(min=1) ** -0.25
        return {"margins": (margins * (self.max_margin / margins.max())).float()} | super().state(images_per_class)

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        from ffcv_imagenet.losses.gradient import with_gradient

        own = target[:, None]
        less = -self.scale * state["margins"][own].to(outputs.logits.dtype)
        log_p = outputs.logits.detach().scatter_add(1, own, less).log_softmax(dim=1)
        loss = self.cross_entropy(state, log_p, target)
        return with_gradient(outputs.logits, loss, self.gradient_(state, log_p.exp_(), target))
