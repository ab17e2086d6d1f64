"""Models by name, blur pooling, and weights from a file."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock, ResNet

from ffcv_imagenet.variants import import_named

#: Models of our own besides torchvision's: one residual block per stage, for demonstrations on a CPU.
SMALL_MODELS = {"resnet10": lambda num_classes: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)}

# Their auxiliary heads make a tuple of the training output.
_WITHOUT_AUXILIARY_HEADS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False},
}

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


class CosineHead(nn.Module):
    """``scale`` times the cosine between features ``[B, F]`` and each class's vector; in place of a linear layer.

    It begins with the directions of that layer's rows, and computes in float32 under autocast.
    """

    def __init__(self, linear: nn.Linear, scale: float):
        super().__init__()
        self.weight = nn.Parameter(F.normalize(linear.weight.detach(), dim=1))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """``[B, F]`` to logits ``[B, K]``."""
        with torch.autocast(x.device.type, enabled=False):
            return self.scale * F.linear(F.normalize(x.to(self.weight.dtype), dim=1), F.normalize(self.weight, dim=1))


def list_archs() -> list[str]:
    """Names that :func:`build_model` takes, besides ``package.module:name``."""
    return sorted([*SMALL_MODELS, *torchvision.models.list_models(module=torchvision.models)])


def build_model(arch: str, num_classes: int, *, blurpool: bool = False, cosine_scale: float | None = None) -> nn.Module:
    """A freshly initialised classification model (torch's global generator decides the weights).

    Args:
        arch: a torchvision classification model, one of :data:`SMALL_MODELS`, or ``package.module:name`` of what takes
            ``num_classes=K`` and returns a module from ``[B, 3, H, W]`` to logits ``[B, K]``.
        num_classes: K, the length of its output.
        blurpool: put :class:`BlurPoolConv2d` around every convolution with stride > 1 and at least 16 input channels.
        cosine_scale: exchange the last layer for a :class:`CosineHead` of this scale; None leaves it as it is.

    Raises:
        ValueError: an unknown ``arch``, one that makes no such module, or one without a linear last layer where
            ``cosine_scale`` needs it.
    """
    if ":" in arch:
        model = _build_from_outside(arch, num_classes)
    elif arch in SMALL_MODELS:
        model = SMALL_MODELS[arch](num_classes)
    elif arch in torchvision.models.list_models(module=torchvision.models):
        extra: dict[str, Any] = _WITHOUT_AUXILIARY_HEADS.get(arch, {})
        model = torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **extra)
    else:
        similar = [name for name in list_archs() if name[:4] == arch[:4]] or list_archs()
        raise ValueError(
            f"model.arch: got {arch!r}, allowed is package.module:name or a torchvision model, such as "
            f"{', '.join(similar)}"
        )
    if blurpool:
        _apply_blurpool(model)
    if cosine_scale is not None:
        name = _last_linear(model, arch, num_classes)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, CosineHead(model.get_submodule(name), cosine_scale))  # type: ignore[arg-type]
    return model


def _last_linear(model: nn.Module, arch: str, num_classes: int) -> str:
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == num_classes]
    if not linear:
        raise ValueError(f"model.arch: got {arch}, allowed with this loss.name is a model whose last layer is linear")
    return linear[-1]


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
    else:
        assert isinstance(model, MobileNetV2)
        features = model.features(images)
        logits = model.classifier(torch.flatten(F.adaptive_avg_pool2d(features, (1, 1)), 1))
        head = model.classifier[-1]
    with torch.no_grad():
        return logits, head(features.permute(0, 2, 3, 1).flatten(1, 2)).argmax(dim=2)


#: Models that :func:`classify_locally` takes.
WITH_FEATURE_MAP = (ResNet, MobileNetV2)


def check_model(
    arch: str,
    num_classes: int,
    resolutions: Collection[int],
    *,
    feature_map: bool = False,
    linear_head: bool = False,
) -> None:
    """Check that a model takes images of these sides and has what a loss needs, without computing anything.

    Args:
        arch: see :func:`build_model`.
        num_classes: K.
        resolutions: sides of the images in pixels.
        feature_map: :func:`classify_locally` has to take it.
        linear_head: :func:`build_model` has to take it with a ``cosine_scale``.

    Raises:
        ValueError: it does not.
    """
    with torch.device("meta"):
        model = build_model(arch, num_classes).eval()
        if feature_map and not isinstance(model, WITH_FEATURE_MAP):
            raise ValueError(
                f"model.arch: got {arch}, allowed with loss.ranking=dense is a ResNet or mobilenet_v2, whose feature "
                "map it reads; for others give --loss.ranking=logits"
            )
        if linear_head:
            _last_linear(model, arch, num_classes)
        for side in sorted(resolutions):
            try:
                logits = model(torch.empty(2, 3, side, side))
            except (RuntimeError, AssertionError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(f"model.arch={arch} cannot take images of {side} x {side} pixels: {reason}") from None
            if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
                shape = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
                raise ValueError(
                    f"model.arch={arch} makes {shape} of 2 images, allowed are logits of shape {(2, num_classes)}"
                )


def check_normalised_batch(arch: str, num_classes: int, resolution: int, images: int) -> None:
    """Check that a model's batch normalisation can be trained on so many images of this side.

    A single image does not do where a channel has one value: its variance is not defined.

    Raises:
        ValueError: it cannot.
    """
    if images > 1:
        return
    with torch.device("meta"):
        try:
            build_model(arch, num_classes).train()(torch.empty(images, 3, resolution, resolution))
        except ValueError:
            raise ValueError(
                f"a micro-batch has one image (training.batch_size / training.accumulation / processes), too few for "
                f"the batch normalisation of model.arch={arch} at {resolution} x {resolution} pixels: allowed is a "
                f"larger training.batch_size, a smaller training.accumulation, or fewer processes"
            ) from None


def _build_from_outside(name: str, num_classes: int) -> nn.Module:
    make = import_named("model.arch", name)
    try:
        inspect.signature(make).bind(num_classes=num_classes)
    except (TypeError, ValueError):
        raise ValueError(f"model.arch: got {name!r}, allowed is a function or class that takes num_classes=K") from None
    model = make(num_classes=num_classes)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model.arch: got {name!r}, which makes {model!r:.80}, allowed is a torch.nn.Module")
    return model


def _apply_blurpool(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            if max(child.stride) > 1 and child.in_channels >= BLURPOOL_MIN_CHANNELS:
                setattr(module, name, BlurPoolConv2d(child))
        else:
            _apply_blurpool(child)
