"""What a network's head says of every location of its last feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import ResNet

from ffcv_imagenet.models.cifar import CifarNet

#: Models that :func:`classify_locally` takes.
WITH_FEATURE_MAP = (ResNet, MobileNetV2, CifarNet)


def classify_locally(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What ``model(images)`` gives, and the class that its head gives to every location of the last feature map.

    Args:
        model: one of :data:`WITH_FEATURE_MAP`.
        images: [B, 3, H, W].

    Returns:
        Logits [B, K], the same as the model's, and classes [B, L] int64 of the L locations row by row, without dropout
        and without a gradient.
    """
    if isinstance(model, ResNet):
        x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
        features = model.layer4(model.layer3(model.layer2(model.layer1(x))))
        logits, head = model.fc(torch.flatten(model.avgpool(features), 1)), model.fc
    elif isinstance(model, CifarNet):
        features = model.features(images)
        logits, head = model.classify(features), model.fc
    else:
        assert isinstance(model, MobileNetV2)
        features = model.features(images)
        logits = model.classifier(torch.flatten(F.adaptive_avg_pool2d(features, (1, 1)), 1))
        head = model.classifier[-1]
    with torch.no_grad():
        return logits, head(features.permute(0, 2, 3, 1).flatten(1, 2)).argmax(dim=2)
