"""From a decoded image to the input of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ffcv_imagenet.imagenet import IMAGENET_MEAN, IMAGENET_STD


class Normalize(nn.Module):
    """``[B, 3, H, W] uint8 0..255`` to float32 ``(image / 255 - mean) / std``; keeps the layout.

    Floating-point images are normalised already (by the GPU's decoder), and come back as they are.

    Args:
        mean: of red, green and blue, in 0..1.
        std: their standard deviation, in 0..1.
    """

    mean: Tensor
    inverse_std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("inverse_std", 1 / (255 * torch.tensor(std).view(1, 3, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise a batch."""
        if images.is_floating_point():
            return images
        return (images.float() - self.mean) * self.inverse_std
