"""What a loss is: a frozen dataclass of its options that computes a batch's loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A training loss. Its fields are its options, made by :func:`ffcv_imagenet.options.option`.

    The object itself never changes. What changes over the training lies in ``state``: tensors by name, on the device,
    which :class:`~ffcv_imagenet.train.loss_module.LossModule` keeps as buffers. They are in every checkpoint, are
    restored after a warm-up and when a step is skipped, and are of four kinds:

    ========================  ==========================================================================
    :meth:`scheduled`         numbers that follow from how much of the training is done
    :meth:`state`             whatever else ``forward`` reads; the same on all ranks
    :meth:`sums`              what ``forward`` adds up over an epoch; each rank has its part
    :attr:`columns`           float64 sums over images, of which the log shows the mean
    ========================  ==========================================================================

    ``forward`` changes tensors in place (``state["sum"].add_(x.detach())``), and never waits for the device.
    """

    #: Whether the loss of a mixed target is the mix of the losses: ``loss(z, w q + (1 - w) r) = w loss(z, q) +
    #: (1 - w) loss(z, r)`` for targets q and r. Only then can images be mixed.
    linear_in_target: ClassVar[bool] = True
    #: Columns of the log: ``forward`` adds to ``state`` under these names the sum over its images of some quantity, and
    #: the log has its mean over the images of the epoch.
    columns: ClassVar[tuple[str, ...]] = ()

    def scheduled(self, progress: float) -> dict[str, float]:
        """Numbers for a share ``progress`` in 0..1 of the training done: 0-d float32 tensors in ``state``.

        They are set before every step; the log has those of an epoch's last step.
        """
        return {}

    def state(self, num_classes: int) -> dict[str, Tensor]:
        """Tensors that are the same on all ranks, with their first values; only :meth:`end_epoch` changes them."""
        return {}

    def sums(self, num_classes: int) -> dict[str, Tensor]:
        """Tensors of zeros to which ``forward`` adds, each rank what it sees; they are zero again in every epoch."""
        return {}

    def forward(self, state: Mapping[str, Tensor], logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar.

        Args:
            state: see the class.
            logits: [B, K] float32 or float64, also under autocast.
            target: [B] int64 in 0..K-1.
        """
        raise NotImplementedError

    def end_epoch(self, state: Mapping[str, Tensor]) -> None:
        """Called after every epoch, on every rank, with :meth:`sums` summed over the ranks: update ``state`` in place.

        It must come to the same result on all ranks. Collective operations of torch.distributed are allowed.
        """
