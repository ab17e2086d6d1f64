"""RandAugment as timm has it, which DeiT and "ResNet strikes back" use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.augment.policies.policy import GeometricPolicy, Layer, choose, sign
from ffcv_imagenet.options import Choice, Integer, Real, option

if TYPE_CHECKING:
    import numpy as np

#: Share of the operations that are left out.
_LEFT_OUT = 0.5
_DRAWS = 5  # per operation


def _factor(level: np.ndarray, signs: np.ndarray, side: int) -> np.ndarray:
    return (1 + signs * level * 0.9).clip(0.1)


def _none(level: np.ndarray, signs: np.ndarray, side: int) -> np.ndarray:
    return 0 * level


#: Strengths for a level in 0..1, a sign and the images' side in pixels: the "increasing" ones (inc1).
STRENGTHS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "auto_contrast": _none,
    "equalize": _none,
    "invert": _none,
    "rotate": lambda level, signs, side: signs * level * 30,
    "posterize": lambda level, signs, side: 4 - (level * 4).astype(int),
    "solarize": lambda level, signs, side: 256 - (level * 256).astype(int),
    "solarize_add": lambda level, signs, side: (level * 110).astype(int),
    "saturation": _factor,
    "contrast": _factor,
    "brightness": _factor,
    "sharpness": _factor,
    "shear_x": lambda level, signs, side: signs * level * 0.3,
    "shear_y": lambda level, signs, side: signs * level * 0.3,
    "translate_x": lambda level, signs, side: signs * level * 0.45 * side,
    "translate_y": lambda level, signs, side: signs * level * 0.45 * side,
}


@dataclass(frozen=True)
class TimmRandAugment(GeometricPolicy):
    """So many operations of 15, each left out half of the time, with a magnitude from a normal distribution.

    timm's ``rand-m9-mstd0.5-inc1`` with the defaults. Magnitudes are cut at 0 and 10.
    """

    num_ops: int = option(Integer(1, 10), "operations per image, of which half are left out", 2)
    magnitude: float = option(Real(0, 10), "mean of their magnitudes (timm's m)", 9.0)
    magnitude_std: float = option(Real(0), "standard deviation of their magnitudes (timm's mstd)", 0.5)
    interpolation: str = option(
        Choice("nearest", "bilinear", "bicubic"), "how operations that move pixels read them", "bicubic"
    )
    fill: str = option(Choice("black", "mean"), "colour of what comes from outside of the image", "mean")

    @property
    def num_draws(self) -> int:
        """See :class:`Policy`."""
        return _DRAWS * self.num_ops

    def layers(self, draws: np.ndarray, side: int) -> list[Layer]:
        """See :class:`Policy`."""
        return [self._layer(draws[:, _DRAWS * k : _DRAWS * (k + 1)], side) for k in range(self.num_ops)]

    def _layer(self, draws: np.ndarray, side: int) -> Layer:
        import numpy as np

        chosen = np.where(draws[:, 1] < _LEFT_OUT, -1, choose(draws[:, 0], len(STRENGTHS)))
        normal = np.sqrt(-2 * np.log1p(-draws[:, 2])) * np.cos(2 * math.pi * draws[:, 3])  # Box and Muller's
        level = (self.magnitude + self.magnitude_std * normal).clip(0, 10) / 10
        signs = sign(draws[:, 4])
        strengths = sum((chosen == k) * f(level, signs, side) for k, f in enumerate(STRENGTHS.values()))
        return Layer(tuple(STRENGTHS), chosen, strengths)
