"""A loss's state on the device: kept with the model, restored with it, summed over the ranks where it has to be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ffcv_imagenet.distributed import sum_over_ranks
from ffcv_imagenet.losses import Loss

#: The buffer that counts images, by which the sums of a loss's columns are divided.
_COUNT = "num_images"


class LossModule(nn.Module):
    """``loss`` with its tensors as buffers; see :class:`~ffcv_imagenet.losses.Loss` for their kinds.

    Args:
        loss: computes; it is not changed.
        num_classes: K.

    Raises:
        ValueError: the loss uses a name twice.
    """

    def __init__(self, loss: Loss, num_classes: int):
        super().__init__()
        self.loss = loss
        # Scheduled numbers lie on the device, so that a new value is neither a recompilation nor a wait for it.
        scheduled = {name: torch.tensor(float(value)) for name, value in loss.scheduled(0.0).items()}
        columns = {name: torch.zeros((), dtype=torch.float64) for name in (*loss.columns, _COUNT) if loss.columns}
        sums = loss.sums(num_classes)
        self._sums = (*sums, *columns)
        groups = (scheduled, loss.state(num_classes), sums, columns)
        self._names = tuple(name for group in groups for name in group)
        if len(set(self._names)) < len(self._names):
            raise ValueError(f"{type(loss).__name__} uses a name twice: {', '.join(self._names)}")
        for group in groups:
            for name, value in group.items():
                self.register_buffer(name, value)

    @property
    def state(self) -> dict[str, Tensor]:
        """The buffers by name."""
        return {name: getattr(self, name) for name in self._names}

    def set_progress(self, progress: float) -> None:
        """Set the scheduled numbers for a share ``progress`` in 0..1 of the training done."""
        for name, value in self.loss.scheduled(progress).items():
            getattr(self, name).fill_(value)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar; half-precision ``logits [B, K]`` are raised to float32 first."""
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        state = self.state
        if self.loss.columns:
            state[_COUNT].add_(len(logits))
        return self.loss.forward(state, logits, target)

    @torch.no_grad()
    def end_epoch(self) -> dict[str, float]:
        """Let the loss learn from the epoch; returns the epoch's columns for the log. Called on every rank."""
        state, loss = self.state, self.loss
        for name in self._sums:
            sum_over_ranks(state[name])
        loss.end_epoch(state)
        last = {name: state[name].double() for name in loss.scheduled(0.0)}
        means = {name: state[name] / state[_COUNT] for name in loss.columns}
        columns = last | means
        for name in self._sums:
            state[name].zero_()
        return dict(zip(columns, torch.stack([*columns.values()]).tolist(), strict=True)) if columns else {}

    def state_over_ranks(self) -> dict[str, Tensor]:
        """The state of all ranks together: what is summed over an epoch as the sum. Called on every rank."""
        return {name: sum_over_ranks(v.clone()) if name in self._sums else v for name, v in self.state.items()}

    def load_state_over_ranks(self, state: dict[str, Tensor], *, is_main: bool) -> None:
        """Go back to a state of any number of ranks: rank 0 has its sums, and the others add to zero."""
        zeros: dict[str, Any] = {name: torch.zeros_like(self.state[name]) for name in self._sums}
        # Checkpoints from before the loss had these columns lack their sums.
        self.load_state_dict(zeros | state if is_main else zeros | {n: v for n, v in state.items() if n not in zeros})
