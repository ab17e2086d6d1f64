"""What happens to a batch on the training device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Mean and standard deviation of ImageNet's training images per channel (RGB), in 0..1; torchvision's figures.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """``[B, 3, H, W] uint8 0..255`` to float32 with ImageNet's mean 0 and standard deviation 1; keeps the layout.

    Floating-point images are normalised already (by the GPU's decoder), and come back as they are.
    """

    mean: Tensor
    inverse_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("inverse_std", 1 / (255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise a batch."""
        if images.is_floating_point():
            return images
        return (images.float() - self.mean) * self.inverse_std
