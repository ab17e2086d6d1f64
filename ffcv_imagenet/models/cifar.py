"""Networks for images of 32 pixels."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


class CifarNet(nn.Module):
    """A network of ``features`` [B, F, h, w], whose means over the locations a linear layer ``fc`` classifies."""

    def __init__(self, features: nn.Module, width: int, num_classes: int):
        super().__init__()
        self.features, self.fc = features, nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def classify(self, features: Tensor) -> Tensor:
        """``[B, F, h, w]`` to logits ``[B, K]``."""
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(features, 1), 1))

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` to logits ``[B, K]``."""
        return self.classify(self.features(images))


class PlainShortcutBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters.

    Where it halves the side, the shortcut takes every second pixel and fills up the channels with zeros, half of them
    on either side (He et al., arXiv 1512.03385, section 4.2: option A).
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` to ``[B, outputs, H / stride, W / stride]``."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.added:
            x = F.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return F.relu(x + y)


class ResidualPair(nn.Sequential):
    """``x + layers(x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        return x + super().forward(x)


def cifar_resnet(depth: int, num_classes: int) -> CifarNet:
    """ResNet of 6 n + 2 layers and 16, 32 and 64 channels, for 32 pixels (arXiv 1512.03385, section 4.2)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    inputs = 16
    for outputs in (16, 32, 64):
        for block in range((depth - 2) // 6):
            layers.append(PlainShortcutBlock(inputs, outputs, 2 if block == 0 and outputs > 16 else 1))
            inputs = outputs
    return CifarNet(nn.Sequential(*layers), inputs, num_classes)


def cifar_resnet9(num_classes: int) -> CifarNet:
    """Eight convolutions and a linear layer, two residual pairs: for quick trials, on a CPU too.

    The shape is that of the network with which D. Page trained CIFAR-10 fast in 2018, with a quarter of its channels.
    """

    def convolution(inputs: int, outputs: int, *, pool: bool = False) -> list[nn.Module]:
        layers = [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        return [*layers, nn.MaxPool2d(2)] if pool else layers

    features = nn.Sequential(
        *convolution(3, 16),
        *convolution(16, 32, pool=True),
        ResidualPair(*convolution(32, 32), *convolution(32, 32)),
        *convolution(32, 64, pool=True),
        *convolution(64, 128, pool=True),
        ResidualPair(*convolution(128, 128), *convolution(128, 128)),
    )
    return CifarNet(features, 128, num_classes)


def without_early_strides(model: ResNet) -> ResNet:
    """``model`` with a 3x3 stem of stride 1 and no max pooling, as ResNet-18 and -50 are used for 32 pixels."""
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


#: By name: what makes a network for a number of classes.
CIFAR_MODELS: dict[str, Callable[[int], nn.Module]] = {
    "cifar_resnet9": cifar_resnet9,
    **{f"cifar_resnet{depth}": functools.partial(cifar_resnet, depth) for depth in (20, 32, 44, 56, 110)},
    "cifar_resnet18": lambda k: without_early_strides(ResNet(BasicBlock, [2, 2, 2, 2], num_classes=k)),
    "cifar_resnet50": lambda k: without_early_strides(ResNet(Bottleneck, [3, 4, 6, 3], num_classes=k)),
}
