"""Blur pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Blur pooling leaves convolutions with fewer input channels alone (the first one, that sees the image).
BLURPOOL_MIN_CHANNELS = 16


class BlurPoolConv2d(nn.Module):
    """A convolution after a fixed [1 2 1] x [1 2 1] / 16 low-pass filter.

    For convolutions with stride > 1, against aliasing (Zhang, "Making Convolutional Networks Shift-Invariant Again",
    arXiv 1904.11486; used by libffcv/ffcv-imagenet).
    """

    blur: Tensor

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = (torch.outer(row, row) / 16).expand(conv.in_channels, 1, 3, 3).contiguous()
        self.conv = conv
        self.register_buffer("blur", kernel, persistent=False)
        # A 1x1 convolution reads only every stride-th blurred pixel, so no others need to be computed.
        self.reads_all = conv.kernel_size != (1, 1) or any(conv.padding)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to what the convolution makes of the blurred input."""
        conv = self.conv
        kernel = self.blur.to(x.dtype)
        if self.reads_all:
            return conv(F.conv2d(x, kernel, padding=1, groups=conv.in_channels))
        blurred = F.conv2d(x, kernel, stride=conv.stride, padding=1, groups=conv.in_channels)
        return F.conv2d(blurred, conv.weight, conv.bias, groups=conv.groups)


def apply_blurpool(module: nn.Module) -> None:
    """Put :class:`BlurPoolConv2d` around every convolution in ``module`` with stride > 1 and enough input channels."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            if max(child.stride) > 1 and child.in_channels >= BLURPOOL_MIN_CHANNELS:
                setattr(module, name, BlurPoolConv2d(child))
        else:
            apply_blurpool(child)
