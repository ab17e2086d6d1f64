"""Networks by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from ffcv_imagenet.models.blurpool import apply_blurpool
from ffcv_imagenet.models.cifar import CIFAR_MODELS
from ffcv_imagenet.models.feature_map import WITH_FEATURE_MAP
from ffcv_imagenet.models.heads import head_name, make_cosine_head
from ffcv_imagenet.variants import import_named

#: Networks of our own: CIFAR's, and one residual block per stage, for demonstrations on a CPU.
OWN_MODELS = {
    "resnet10": lambda num_classes: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=num_classes),
    **CIFAR_MODELS,
}

# Their auxiliary heads make a tuple of the training output.
_WITHOUT_AUXILIARY_HEADS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False},
}

#: What stands in front of timm's names.
TIMM = "timm/"


def list_archs() -> list[str]:
    """Names that :func:`build_model` takes, besides ``timm/NAME`` and ``package.module:name``."""
    return sorted([*OWN_MODELS, *torchvision.models.list_models(module=torchvision.models)])


def build_model(
    arch: str,
    num_classes: int,
    *,
    blurpool: bool = False,
    cosine_scale: float | None = None,
    drop_path: float = 0.0,
    image_size: int | None = None,
) -> nn.Module:
    """A freshly initialised classification model (torch's global generator decides the weights).

    Args:
        arch: a torchvision classification model, one of :data:`OWN_MODELS`, ``timm/NAME`` for timm's, or
            ``package.module:name`` of what takes ``num_classes=K`` and returns a module from ``[B, 3, H, W]`` to logits
            ``[B, K]``.
        num_classes: K, the length of its output.
        blurpool: put :class:`BlurPoolConv2d` around every convolution with stride > 1 and at least 16 input channels.
        cosine_scale: exchange the last layer for a :class:`CosineHead` of this scale; None leaves it as it is.
        drop_path: probability with which the last residual branch is left out of a training step, growing linearly over
            the depth ("stochastic depth", arXiv 1603.09382); 0: what the network has by itself.
        image_size: side of the images for a network that is made for one, such as a vision transformer; None: its own.

    Raises:
        ValueError: an unknown ``arch``, one that makes no such module, that lacks timm, that does not take
            ``drop_path`` or ``image_size``, or one without a linear last layer where ``cosine_scale`` needs it.
    """
    if arch.startswith(TIMM):
        options = {"model.drop_path": ("drop_path_rate", drop_path), "model.image_size": ("img_size", image_size)}
    else:
        options = {
            "model.drop_path": ("stochastic_depth_prob", drop_path),
            "model.image_size": ("image_size", image_size),
        }
    given = {key: option for key, option in options.items() if option[1]}
    extra = dict(given.values())
    try:
        model = _build(arch, num_classes, extra)
    except (TypeError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        if not given:
            raise
        keys = " and ".join(f"{key}={value}" for key, (_, value) in given.items())
        # A TypeError is about an argument that is not there; others are about its value.
        reason = "" if isinstance(error, TypeError) else f": {_first_line(error)}"
        raise ValueError(f"{keys}: model.arch={arch} does not take that{reason}") from None
    if blurpool:
        apply_blurpool(model)
    if cosine_scale is not None:
        _check_linear_head(model, arch, num_classes)
        make_cosine_head(model, num_classes, cosine_scale)
    return model


def _build(arch: str, num_classes: int, extra: dict[str, Any]) -> nn.Module:
    if ":" in arch:
        return _build_from_outside(arch, num_classes, extra)
    if arch.startswith(TIMM):
        return _build_from_timm(arch, num_classes, extra)
    if arch in OWN_MODELS:
        return OWN_MODELS[arch](num_classes, **extra)
    if arch in torchvision.models.list_models(module=torchvision.models):
        extra = {**_WITHOUT_AUXILIARY_HEADS.get(arch, {}), **extra}
        return torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **extra)
    similar = [name for name in list_archs() if name[:4] == arch[:4]] or list_archs()
    raise ValueError(
        f"model.arch: got {arch!r}, allowed is package.module:name, timm/NAME, or a torchvision model, such as "
        f"{', '.join(similar)}"
    )


def _build_from_timm(arch: str, num_classes: int, extra: dict[str, Any]) -> nn.Module:
    try:
        import timm  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ValueError(f"model.arch: got {arch!r}, which needs timm: pip install timm ({error})") from None
    name = arch.removeprefix(TIMM)
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name, timm.list_models(), n=5) or ["resnet50", "deit_small_patch16_224"]
        known = ", ".join(f"{TIMM}{other}" for other in similar)
        raise ValueError(f"model.arch: got {arch!r}, allowed is one of timm's models, such as {known}")
    return timm.create_model(name, pretrained=False, num_classes=num_classes, **extra)


def _check_linear_head(model: nn.Module, arch: str, num_classes: int) -> None:
    try:
        head_name(model, num_classes)
    except ValueError:
        raise ValueError(
            f"model.arch: got {arch}, allowed with this loss.name is a model whose last layer is linear"
        ) from None


def output_parameters(arch: str, **options: Any) -> list[str]:
    """Names of the output layer's parameters, which have a row per class; ``options`` as of :func:`build_model`."""
    with torch.device("meta"):
        small, large = (dict(build_model(arch, n, **options).named_parameters()) for n in (7, 11))
    return [name for name, value in small.items() if value.shape != large[name].shape]


def check_model(
    arch: str,
    num_classes: int,
    resolutions: Collection[int],
    *,
    feature_map: bool = False,
    linear_head: bool = False,
    **options: Any,
) -> None:
    """Check that a model takes images of these sides and has what a loss needs, without computing anything.

    Args:
        arch: see :func:`build_model`.
        num_classes: K.
        resolutions: sides of the images in pixels.
        feature_map: :func:`classify_locally` has to take it.
        linear_head: :func:`build_model` has to take it with a ``cosine_scale``.
        options: further ones of :func:`build_model`.

    Raises:
        ValueError: it does not.
    """
    with torch.device("meta"):
        model = build_model(arch, num_classes, **options).eval()
        if feature_map and not isinstance(model, WITH_FEATURE_MAP):
            raise ValueError(
                f"model.arch: got {arch}, allowed with loss.ranking=dense is a ResNet or mobilenet_v2, whose feature "
                "map it reads; for others give --loss.ranking=logits"
            )
        if linear_head:
            _check_linear_head(model, arch, num_classes)
        for side in sorted(resolutions):
            try:
                logits = model(torch.empty(2, 3, side, side))
            except (RuntimeError, AssertionError, ValueError) as error:
                helps = len(set(resolutions)) == 1 and _is_built_for(arch, num_classes, side, options)
                raise ValueError(
                    f"model.arch={arch} cannot take images of {side} x {side} pixels: {_first_line(error)}"
                    + (f"; --model.image_size={side} does" if helps else "")
                ) from None
            if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
                shape = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
                raise ValueError(
                    f"model.arch={arch} makes {shape} of 2 images, allowed are logits of shape {(2, num_classes)}"
                )


def _is_built_for(arch: str, num_classes: int, side: int, options: dict[str, Any]) -> bool:
    """Whether ``image_size`` makes it a model of images of this side."""
    try:
        build_model(arch, num_classes, **{**options, "image_size": side}).eval()(torch.empty(2, 3, side, side))
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def _first_line(error: Exception) -> str:
    """What an exception says, without a full stop, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].removesuffix(".")


def check_normalised_batch(arch: str, num_classes: int, resolution: int, images: int, **options: Any) -> None:
    """Check that a model's batch normalisation can be trained on so many images of this side.

    A single image does not do where a channel has one value: its variance is not defined. ``options`` are further ones
    of :func:`build_model`.

    Raises:
        ValueError: it cannot.
    """
    if images > 1:
        return
    with torch.device("meta"):
        try:
            build_model(arch, num_classes, **options).train()(torch.empty(images, 3, resolution, resolution))
        except ValueError:
            raise ValueError(
                f"a micro-batch has one image (training.batch_size / training.accumulation / processes), too few for "
                f"the batch normalisation of model.arch={arch} at {resolution} x {resolution} pixels: allowed is a "
                f"larger training.batch_size, a smaller training.accumulation, or fewer processes"
            ) from None


def _build_from_outside(name: str, num_classes: int, extra: dict[str, Any]) -> nn.Module:
    make = import_named("model.arch", name)
    try:
        inspect.signature(make).bind(num_classes=num_classes)
    except (TypeError, ValueError):
        raise ValueError(f"model.arch: got {name!r}, allowed is a function or class that takes num_classes=K") from None
    model = make(num_classes=num_classes, **extra)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model.arch: got {name!r}, which makes {model!r:.80}, allowed is a torch.nn.Module")
    return model
