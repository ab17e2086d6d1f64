"""What a loss is: a frozen dataclass of its options that computes a batch's loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Outputs(NamedTuple):
    """What a model says about a batch of images.

    Attributes:
        logits: [B, K] float32 or float64, also under autocast.
        log_p: [B, K], their ``log_softmax``, computed once for all that need it.
        local_classes: [B, L] int64, the class that the model's head gives to each location of the last feature map,
            row by row; None unless the loss ``reads_local_classes``.
    """

    logits: Tensor
    log_p: Tensor
    local_classes: Tensor | None = None


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

    #: Columns of the log: ``forward`` adds to ``state`` under these names the sum over its images of some quantity, and
    #: the log has its mean over the images of the epoch. A loss with a penalty has it as ``penalty``, and its weight
    #: among the scheduled numbers.
    columns: ClassVar[tuple[str, ...]] = ()

    @property
    def linear_in_target(self) -> bool:
        """Whether the loss of a mixed target is the mix of the losses.

        ``loss(z, w q + (1 - w) r) = w loss(z, q) + (1 - w) loss(z, r)`` for targets q and r. Then images can be mixed:
        their loss is that of both labels.
        """
        return True

    @property
    def takes_soft_targets(self) -> bool:
        """Whether ``forward`` also takes targets [B, K], shares of the classes. Then images can be mixed, too."""
        return False

    @property
    def reads_local_classes(self) -> bool:
        """Whether ``forward`` needs :attr:`Outputs.local_classes`."""
        return False

    @property
    def cosine_scale(self) -> float | None:
        """Replace the model's last layer by this many times the cosine of features and class vector (None: don't)."""
        return None

    def scheduled(self, epoch: float, epochs: int) -> dict[str, float]:
        """Numbers for a fractional ``epoch`` in 0..``epochs``: 0-d float32 tensors in ``state``.

        They are set before every step; the log has those of an epoch's last step.

        Raises:
            ValueError: an option that does not fit ``epochs``.
        """
        return {}

    def state(self, images_per_class: Sequence[int]) -> dict[str, Tensor]:
        """Tensors that are the same on all ranks, with their first values; only :meth:`end_epoch` changes them.

        ``images_per_class`` counts the training images of the K classes.

        Raises:
            ValueError: the loss cannot be computed for these classes.
        """
        return {}

    def sums(self, num_classes: int) -> dict[str, Tensor]:
        """Tensors of zeros to which ``forward`` adds, each rank what it sees; they are zero again in every epoch."""
        return {}

    def forward(self, state: Mapping[str, Tensor], outputs: Outputs, target: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar.

        Args:
            state: see the class.
            outputs: see :class:`Outputs`.
            target: [B] int64 in 0..K-1; where the loss :attr:`takes_soft_targets`, also [B, K].
        """
        raise NotImplementedError

    def end_epoch(self, state: Mapping[str, Tensor]) -> None:
        """Called after every epoch, on every rank, with :meth:`sums` summed over the ranks: update ``state`` in place.

        It must come to the same result on all ranks. Collective operations of torch.distributed are allowed.
        """
