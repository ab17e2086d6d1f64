"""Top-1, top-k and cross entropy of a data set, summed where the logits are and read once at the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Scores:
    """Results of an evaluation: shares in 0..1 (``top_k``: the target is one of the ``k`` largest logits), mean cross
    entropy in nats, number of images.

    ``nonfinite`` images have logits whose cross entropy is not finite. If there are any, there are no scores (None):
    such logits have no order, and top-1 would be the share of whichever class is the first.
    """

    top_1: float | None
    top_k: float | None
    loss: float | None
    images: int
    k: int
    nonfinite: int = 0


class ScoreSums:
    """Running sums over batches: right at rank 1, right at rank k, cross entropy, images, images without a finite one.

    All are float64, on ``device``.

    Args:
        device: of the logits.
        k: at most the number of classes.
    """

    def __init__(self, device: torch.device, k: int):
        self.k = k
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch: ``logits [B, K]`` float, ``target [B]`` int64. Never waits for the device."""
        logits = logits.float()
        best = logits.topk(self.k, dim=1).indices
        right = best == target[:, None]
        losses = F.cross_entropy(logits, target, reduction="none").double()
        self.sums[0] += right[:, 0].sum()
        self.sums[1] += right.sum()
        self.sums[2] += losses.sum()
        self.sums[3] += len(target)
        self.sums[4] += (~losses.isfinite()).sum()

    def scores(self) -> Scores:
        """The scores of everything added; raises ValueError when nothing was."""
        top_1, top_k, loss, images, nonfinite = self.sums.tolist()
        if not images:
            raise ValueError("no images to evaluate: the validation set is empty")
        if nonfinite:
            return Scores(None, None, None, int(images), self.k, int(nonfinite))
        return Scores(top_1 / images, top_k / images, loss / images, int(images), self.k)
