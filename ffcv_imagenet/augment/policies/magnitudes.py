"""Magnitudes as torchvision's policies have them: a share of an operation's range, up or down at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

#: The operations of RandAugment and TrivialAugment; None: the image stays as it is.
OPERATIONS = (
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
)


class Ranges(NamedTuple):
    """The ends of the ranges: ``shear`` in pixels per pixel, ``translate_share`` of the side or ``translate_pixels``,
    ``rotate`` in degrees, ``factor`` by which factors differ from 1, ``bits`` that are lost of eight."""

    shear: float = 0.3
    translate_share: float = 150 / 331
    translate_pixels: float = 0.0
    rotate: float = 30.0
    factor: float = 0.9
    bits: int = 4


def strength(operation: str, ranges: Ranges, share: np.ndarray, signs: np.ndarray, side: int) -> np.ndarray:
    """Strengths of an operation.

    Args:
        operation: its name.
        ranges: see :class:`Ranges`.
        share: of the range, in 0..1.
        signs: -1 or 1; operations that know no direction leave it out.
        side: of the images, in pixels.
    """
    match operation:
        case "shear_x" | "shear_y":
            return signs * share * ranges.shear
        case "translate_x" | "translate_y":
            return signs * (share * (ranges.translate_share * side + ranges.translate_pixels)).astype(int)
        case "rotate":
            return signs * share * ranges.rotate
        case "brightness" | "saturation" | "contrast" | "sharpness":
            return 1 + signs * share * ranges.factor
        case "posterize":
            return (8 - share * ranges.bits).round()
        case "solarize":
            return 255 * (1 - share)
        case _:
            return 0 * share
