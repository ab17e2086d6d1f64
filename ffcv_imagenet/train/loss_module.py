"""A loss's state on the device: kept with the model, restored with it, summed over the ranks where it has to be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ffcv_imagenet.distributed import sum_over_ranks
from ffcv_imagenet.losses import Loss, Outputs

#: Columns of every loss: means over the training images of the largest logit, of the target's, and of whether a
#: prediction is confident and wrong: another class than the target has more than :data:`CONFIDENT` of the softmax.
COLUMNS = ("top_logit", "target_logit", "confident_wrong")
#: More than all other classes together.
CONFIDENT = 0.5
#: The buffer that counts images, by which the sums of the columns are divided.
_COUNT = "num_images"


class LossModule(nn.Module):
    """``loss`` with its tensors as buffers; see :class:`~ffcv_imagenet.losses.Loss` for their kinds.

    Args:
        loss: computes; it is not changed.
        images_per_class: numbers of training images of the K classes.
        epochs: of the training.

    Raises:
        ValueError: the loss uses a name twice or a float64 without dimensions, or does not fit the classes or the
            epochs.
    """

    def __init__(self, loss: Loss, images_per_class: Sequence[int], epochs: int):
        super().__init__()
        self.loss, self.epochs = loss, epochs
        # Scheduled numbers lie on the device, so that a new value is neither a recompilation nor a wait for it.
        scheduled = {name: torch.tensor(float(value)) for name, value in loss.scheduled(0.0, epochs).items()}
        sums = loss.sums(len(images_per_class))
        # Of one element, [1]: torch 2.11's compiler loses what is added to a float64 without dimensions on a CPU.
        columns = {name: torch.zeros(1, dtype=torch.float64) for name in (*loss.columns, *COLUMNS, _COUNT)}
        self._scheduled, self._sums = (*scheduled,), (*sums, *columns)
        self._columns = (*loss.columns, *COLUMNS)
        groups = (scheduled, loss.state(images_per_class), sums, columns)
        self._names = tuple(name for group in groups for name in group)
        if len(set(self._names)) < len(self._names):
            raise ValueError(f"{type(loss).__name__} uses a name twice: {', '.join(self._names)}")
        for group in groups:
            for name, value in group.items():
                if value.ndim == 0 and value.dtype == torch.float64:
                    raise ValueError(f"{type(loss).__name__}: {name} is a float64 without dimensions, allowed is [1]")
                self.register_buffer(name, value)

    @property
    def state(self) -> dict[str, Tensor]:
        """The buffers by name."""
        return {name: getattr(self, name) for name in self._names}

    def changed_by_steps(self) -> list[Tensor]:
        """The buffers that a training step changes."""
        return [getattr(self, name) for name in self._sums]

    def set_epoch(self, epoch: float) -> None:
        """Set the scheduled numbers for a fractional ``epoch``."""
        for name, value in self.loss.scheduled(epoch, self.epochs).items():
            getattr(self, name).fill_(value)

    def forward(self, logits: Tensor, target: Tensor, local_classes: Tensor | None = None) -> Tensor:
        """Mean loss of a batch, a scalar; half-precision ``logits [B, K]`` are raised to float32 first.

        Args:
            logits: the model's output.
            target: [B] int64; for some losses also [B, K], shares of the classes.
            local_classes: see :class:`~ffcv_imagenet.losses.Outputs`.
        """
        outputs = _outputs(logits, local_classes)
        loss = self.loss.forward(self.state, outputs, target)
        if target.ndim == 1:
            self._observe(outputs, *_of_class(outputs, target))
        else:
            log_p, logits = outputs.log_p.detach(), outputs.logits.detach()
            self._observe(outputs, log_p.where(target > 0, -torch.inf).amax(dim=1), (target * logits).sum(dim=1))
        return loss

    def of_mixture(self, logits: Tensor, own: Tensor, partner: Tensor, share: Tensor) -> Tensor:
        """Mean loss of mixed images, a scalar, exactly that of a target with ``share`` of the class ``own``.

        It is the mix of the losses of both labels where the loss is linear in its target. What the loss adds to its
        columns is mixed likewise.

        Args:
            logits: [B, K], the model's output.
            own: [B] int64, the images' own labels.
            partner: [B] int64, those of the images that they are mixed with, which have the rest of the target.
            share: a scalar in 0..1.
        """
        outputs = _outputs(logits)
        labels = (own, share), (partner, 1 - share)
        if self.loss.takes_soft_targets:
            target = torch.zeros_like(outputs.logits)
            for classes, part in labels:
                target = target.scatter_add(1, classes[:, None], part.to(target.dtype).expand(len(classes), 1))
            loss = self.loss.forward(self.state, outputs, target)
        else:
            loss = outputs.logits.new_zeros(())
            for classes, part in labels:
                sums = {name: torch.zeros_like(self.state[name]) for name in self._sums}
                loss = loss + part * self.loss.forward(self.state | sums, outputs, classes)
                for name, value in sums.items():
                    self.state[name].add_(part * value)
        (own_log_p, own_logit), (partner_log_p, partner_logit) = (_of_class(outputs, classes) for classes, _ in labels)
        likeliest = torch.maximum(own_log_p.where(share > 0, -torch.inf), partner_log_p.where(share < 1, -torch.inf))
        self._observe(outputs, likeliest, share * own_logit + (1 - share) * partner_logit)
        return loss

    def _observe(self, outputs: Outputs, own: Tensor, own_logit: Tensor) -> None:
        """Add to the columns of every loss; no exponential of all logits is needed, and no wait for the device.

        ``own [B]`` is the log-probability of the target, the largest where it has several classes, ``own_logit [B]``
        its logit, the mean over the target.
        """
        logits, log_p = outputs.logits.detach(), outputs.log_p.detach()
        top = log_p.amax(dim=1)
        wrong = (top > math.log(CONFIDENT)) & (own < top)
        state = self.state
        state["top_logit"].add_((top + (logits[:, 0] - log_p[:, 0])).sum())  # The difference is that of all classes.
        state["target_logit"].add_(own_logit.sum())
        state["confident_wrong"].add_(wrong.sum())
        state[_COUNT].add_(len(logits))

    @torch.no_grad()
    def end_epoch(self) -> dict[str, float]:
        """Let the loss learn from the epoch; returns the epoch's columns for the log. Called on every rank."""
        state, loss = self.state, self.loss
        for name in self._sums:
            sum_over_ranks(state[name])
        loss.end_epoch(state)
        last = {name: state[name].double() for name in self._scheduled}
        columns = last | {name: (state[name] / state[_COUNT])[0] for name in self._columns}
        for name in self._sums:
            state[name].zero_()
        return dict(zip(columns, torch.stack([*columns.values()]).tolist(), strict=True))

    def state_over_ranks(self) -> dict[str, Tensor]:
        """The state of all ranks together: what is summed over an epoch as the sum. Called on every rank."""
        return {name: sum_over_ranks(v.clone()) if name in self._sums else v for name, v in self.state.items()}

    def load_state_over_ranks(self, state: dict[str, Tensor], *, is_main: bool) -> None:
        """Go back to a state of any number of ranks: rank 0 has its sums, and the others add to zero.

        What the state lacks, because it is of a version before the loss had it, is as at the start.
        """
        summed = {name: torch.zeros_like(self.state[name]) for name in self._sums}
        self.load_state_dict(self.state | summed | state | ({} if is_main else summed))


def _outputs(logits: Tensor, local_classes: Tensor | None = None) -> Outputs:
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return Outputs(logits, logits.log_softmax(dim=1), local_classes)


def _of_class(outputs: Outputs, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability and logit [B] of ``classes [B]``."""
    values = (outputs.log_p.detach(), outputs.logits.detach())
    log_p, logit = (value.gather(1, classes[:, None])[:, 0] for value in values)
    return log_p, logit
