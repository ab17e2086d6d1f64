"""The losses that are compared: baseline cross entropy, label smoothing and MaxSup.

All take ``logits [B, K]`` (any float dtype) and ``target [B] int64`` in ``0..K-1`` and return a scalar, the mean
over the batch. Half-precision logits are raised to float32 first, also under autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffcv_imagenet.schedules import linear

#: The options that each loss takes, with their defaults. Anything else given to a loss is refused.
LOSS_OPTIONS: dict[str, dict[str, float]] = {
    "baseline": {},
    "label_smoothing": {"smoothing": 0.1},
    "maxsup": {"alpha_start": 0.1, "alpha_end": 0.2},
}


class Loss(nn.Module):
    """A loss that may change over training; the trainer calls :meth:`set_progress` before every step."""

    def set_progress(self, progress: float) -> None:
        """Tell how much of the training is done, 0..1."""


class CrossEntropy(Loss):
    """Cross entropy, with label smoothing if ``smoothing`` in ``0..1`` is not zero.

    Label smoothing spreads ``smoothing`` of the target's probability over all K classes (Szegedy et al., "Rethinking
    the Inception Architecture", arXiv 1512.00567, section 7). At logit level it equals cross entropy
    ``+ smoothing * (z_target - mean_k z_k)``.
    """

    def __init__(self, smoothing: float = 0.0):
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar."""
        return F.cross_entropy(_full_precision(logits), target, label_smoothing=self.smoothing)


class MaxSup(Loss):
    """Max suppression: cross entropy ``+ alpha * (z_max - mean_k z_k)``.

    Penalises the largest logit whether or not it is the right class, so that wrong and confident predictions are
    penalised too ("MaxSup: Overcoming Representation Collapse in Label Smoothing", arXiv 2502.15798, definition of
    max suppression). ``alpha`` goes linearly from ``alpha_start`` to ``alpha_end`` over the training.
    """

    alpha: Tensor

    def __init__(self, alpha_start: float, alpha_end: float):
        super().__init__()
        self.alpha_start, self.alpha_end = alpha_start, alpha_end
        # On the device, so that a new value is neither a recompilation nor a wait for the device.
        self.register_buffer("alpha", torch.tensor(float(alpha_start)))

    def set_progress(self, progress: float) -> None:
        """Set alpha for a share ``progress`` in 0..1 of the training done."""
        self.alpha.fill_(linear(progress, self.alpha_start, self.alpha_end))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar."""
        logits = _full_precision(logits)
        # In this order: with the maximum first, torch 2.11's compiler gives it a wrong gradient on a CPU.
        cross_entropy = F.cross_entropy(logits, target)
        excess = logits.max(dim=1).values - logits.mean(dim=1)
        return cross_entropy + self.alpha * excess.mean()


_LOSSES: dict[str, type[Loss]] = {"baseline": CrossEntropy, "label_smoothing": CrossEntropy, "maxsup": MaxSup}


def make_loss(name: str, **given: float | None) -> Loss:
    """Build a loss by name from the options of :data:`LOSS_OPTIONS`; an option that is None counts as not given.

    Raises:
        ValueError: an unknown name, or an option that the loss does not have.
    """
    if name not in LOSS_OPTIONS:
        raise ValueError(f"loss.name: got {name!r}, allowed is {' | '.join(LOSS_OPTIONS)}")
    options = dict(LOSS_OPTIONS[name])
    for key, value in given.items():
        if value is None:
            continue
        if key not in options:
            allowed = ", ".join(f"loss.{k}" for k in options) or "no option"
            raise ValueError(f"loss.{key}: got {value} for loss.name={name}, which takes {allowed}")
        options[key] = value
    return _LOSSES[name](**options)


def _full_precision(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
