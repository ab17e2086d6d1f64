"""Online label smoothing: soft targets that the model's own right predictions make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.losses.cross_entropy import CrossEntropyLoss
from ffcv_imagenet.losses.loss import Outputs
from ffcv_imagenet.options import OrNone, Real, option

if TYPE_CHECKING:
    from torch import Tensor

#: Two tables of K x K float32 are kept on each rank: 512 MiB here.
MAX_CLASSES = 8192


@dataclass(frozen=True)
class OnlineLabelSmoothing(CrossEntropyLoss):
    """``w CE(z, y) + (1 - w) CE(z, S[y])`` (Zhang et al., "Delving Deep into Label Smoothing", arXiv 2011.12562).

    w is ``hard_weight``. Row y of S [K, K] is the soft target of class y: the mean softmax of the images of y that were
    predicted right in the epoch before, as they were seen in training; uniform where there was none. A prediction is
    right when no other class has a larger probability. In the first epoch S gives ``initial_smoothing`` to all classes
    alike and the rest to y: all of it (uniform) in the authors' code. ``freeze_above`` is that code's for fine-grained
    sets: a class whose soft target has an entry of at least this size (0.88 there) keeps it. The column ``penalty`` is
    ``CE(z, S[y]) - CE(z, y)``, with the class weights of the loss, and its weight ``soft_weight`` is 1 - w.

    Summed in float32; on a GPU the order in a batch, and so the rounding, may differ from run to run.
    """

    columns = ("penalty",)

    hard_weight: float = option(Real(0, 1), "weight of the label; the rest is that of the soft targets", 0.5)
    initial_smoothing: float = option(
        Real(0, 1), "share that the first epoch's soft targets spread over all classes", 1.0
    )
    freeze_above: float | None = option(
        OrNone(Real(0, 1)), "a class whose soft target has an entry of this size keeps it (none: never)", None
    )

    def __post_init__(self) -> None:
        """Check what involves several options; raises ValueError."""
        super().__post_init__()
        if self.freeze_above is not None and 1 - self.initial_smoothing >= self.freeze_above:
            raise ValueError(
                f"loss.initial_smoothing: got {self.initial_smoothing}, allowed with loss.freeze_above="
                f"{self.freeze_above} is more than {1 - self.freeze_above:g}, or the first epoch's targets would stay"
            )

    @property
    def linear_in_target(self) -> bool:
        """No: a soft target belongs to one class, and so does a prediction that it is made of."""
        return False

    def scheduled(self, epoch: float, epochs: int) -> dict[str, float]:
        """See :meth:`Loss.scheduled`."""
        return {"soft_weight": 1 - self.hard_weight} | super().scheduled(epoch, epochs)

    def state(self, images_per_class: Sequence[int]) -> dict[str, Tensor]:
        """See :meth:`Loss.state`."""
        import torch

        size = len(images_per_class)
        if size > MAX_CLASSES:
            raise ValueError(f"loss.name=online_label_smoothing: got {size} classes, allowed are at most {MAX_CLASSES}")
        soft = torch.full((size, size), self.initial_smoothing / size)
        soft.diagonal().add_(1 - self.initial_smoothing)
        return {"soft_targets": soft} | super().state(images_per_class)

    def sums(self, num_classes: int) -> dict[str, Tensor]:
        """See :meth:`Loss.sums`."""
        import torch

        return {"predictions": torch.zeros(num_classes, num_classes), "right": torch.zeros(num_classes)}

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """See :meth:`Loss.forward`."""
        import torch

        from ffcv_imagenet.losses.gradient import with_gradient

        log_p, soft_weight = outputs.log_p.detach(), 1 - self.hard_weight
        soft_targets = state["soft_targets"].index_select(0, target).to(log_p.dtype)
        hard = self.cross_entropy(state, log_p, target)
        products = soft_targets * log_p
        soft = self.mean(state, -products.sum(dim=1), target)
        state["penalty"].add_((soft - hard) * len(target))
        p = torch.exp(log_p, out=products)
        gradient = torch.sub(p, soft_targets, alpha=soft_weight, out=soft_targets)
        gradient.scatter_add_(1, target[:, None], p.new_full((len(p), 1), -self.hard_weight))
        self._learn(state, p, target)
        loss = self.hard_weight * hard + soft_weight * soft
        return with_gradient(outputs.logits, loss, self.weighted_(state, gradient, target))

    def _learn(self, state: Mapping[str, Tensor], p: Tensor, target: Tensor) -> None:
        """Add the right ones of the predictions ``p``, which are overwritten, to the sums of their classes."""
        total = state["predictions"]
        right = p.gather(1, target[:, None]) >= p.amax(dim=1, keepdim=True)
        total.index_add_(0, target, p.mul_(right).to(total.dtype))
        state["right"].index_add_(0, target, right[:, 0].to(total.dtype))

    def end_epoch(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Loss.end_epoch`."""
        import torch

        soft, learned, right = state["soft_targets"], state["predictions"], state["right"][:, None]
        learned.div_(right.clamp(min=1)).masked_fill_(right == 0, 1 / len(soft))
        if self.freeze_above is not None:
            torch.where(soft.amax(dim=1, keepdim=True) >= self.freeze_above, soft, learned, out=learned)
        soft.copy_(learned)
