"""Gradients written out, for terms over all logits: autograd would read and write these many more times.

Losses import this when they are computed, since it imports torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """``loss``, as a function of ``logits``."""
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        """``gradient`` times what comes from above, over the number of images."""
        (gradient,) = ctx.saved_tensors
        return gradient * (upstream / len(gradient)), None, None


class _TopExcess(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        """``max_k z_k - mean_k z_k`` of each row."""
        top = logits.max(dim=1)
        ctx.save_for_backward(top.indices)
        ctx.num_classes = logits.shape[1]
        return top.values - logits.mean(dim=1)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        """``-1/K`` everywhere, and 1 at the top, times what comes from above."""
        (top,) = ctx.saved_tensors
        gradient = (-upstream / ctx.num_classes)[:, None].repeat(1, ctx.num_classes)
        return gradient.scatter_add_(1, top[:, None], upstream[:, None])


def top_excess(logits: Tensor) -> Tensor:
    """``max_k z_k - mean_k z_k`` [B] of ``logits [B, K]``; of equal maxima, one has the gradient."""
    return _TopExcess.apply(logits)


def with_gradient(logits: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
    """``loss``, a scalar without a gradient, as the mean over the images of a function of ``logits``.

    Args:
        logits: [B, K].
        loss: the mean over the images.
        gradient: [B, K], row i that of image i's own loss.
    """
    return _WithGradient.apply(logits, loss, gradient)
