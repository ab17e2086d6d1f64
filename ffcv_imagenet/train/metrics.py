"""Top-1, top-5 and cross entropy of a data set, summed where the logits are and read once at the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Scores:
    """Results of an evaluation: shares in 0..1, mean cross entropy in nats, number of images."""

    top_1: float
    top_5: float
    loss: float
    images: int


class ScoreSums:
    """Running sums over batches: right at rank 1, right at rank 5, cross entropy, images (float64, on ``device``).

    With fewer than five classes "top-5" is top-K.
    """

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch: ``logits [B, K]`` float, ``target [B]`` int64. Never waits for the device."""
        logits = logits.float()
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        right = best == target[:, None]
        self.sums[0] += right[:, 0].sum()
        self.sums[1] += right.sum()
        self.sums[2] += F.cross_entropy(logits, target, reduction="none").double().sum()
        self.sums[3] += len(target)

    def scores(self) -> Scores:
        """The scores of everything added; raises ValueError when nothing was."""
        top_1, top_5, loss, images = self.sums.tolist()
        if not images:
            raise ValueError("no images to evaluate: the validation set is empty")
        return Scores(top_1 / images, top_5 / images, loss / images, int(images))
