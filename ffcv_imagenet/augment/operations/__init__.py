"""The operations that change one image, each with one strength, on as many images at once as have been drawn for it."""

from ffcv_imagenet.augment.operations.colour import Hue, Saturation
from ffcv_imagenet.augment.operations.geometry import Rotate, ShearX, ShearY, TranslateX, TranslateY
from ffcv_imagenet.augment.operations.operation import Operation
from ffcv_imagenet.augment.operations.sharpness import GaussianBlur, Sharpness
from ffcv_imagenet.augment.operations.tones import (
    AutoContrast,
    Brightness,
    Contrast,
    Equalize,
    Invert,
    Posterize,
    Solarize,
    SolarizeAdd,
)

#: All operations by the name by which policies choose them.
OPERATIONS: dict[str, Operation] = {
    "shear_x": ShearX(),
    "shear_y": ShearY(),
    "translate_x": TranslateX(),
    "translate_y": TranslateY(),
    "rotate": Rotate(),
    "brightness": Brightness(),
    "contrast": Contrast(),
    "saturation": Saturation(),
    "hue": Hue(),
    "sharpness": Sharpness(),
    "gaussian_blur": GaussianBlur(),
    "posterize": Posterize(),
    "solarize": Solarize(),
    "solarize_add": SolarizeAdd(),
    "auto_contrast": AutoContrast(),
    "equalize": Equalize(),
    "invert": Invert(),
}

__all__ = ["OPERATIONS", "Operation"]
