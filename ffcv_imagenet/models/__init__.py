"""Networks: torchvision's and timm's by name, CIFAR's, blur pooling, and what is done to their last layer."""

from ffcv_imagenet.models.blurpool import BLURPOOL_MIN_CHANNELS, BlurPoolConv2d
from ffcv_imagenet.models.build import (
    build_model,
    check_model,
    check_normalised_batch,
    list_archs,
    output_parameters,
)
from ffcv_imagenet.models.feature_map import WITH_FEATURE_MAP, classify_locally
from ffcv_imagenet.models.freezing import freeze, is_frozen
from ffcv_imagenet.models.heads import CosineHead, find_head

__all__ = [
    "BLURPOOL_MIN_CHANNELS",
    "WITH_FEATURE_MAP",
    "BlurPoolConv2d",
    "CosineHead",
    "build_model",
    "check_model",
    "check_normalised_batch",
    "classify_locally",
    "find_head",
    "freeze",
    "is_frozen",
    "list_archs",
    "output_parameters",
]
