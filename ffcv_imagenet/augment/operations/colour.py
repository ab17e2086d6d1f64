"""Operations on colours."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ffcv_imagenet.augment.operations.operation import Operation
from ffcv_imagenet.augment.pixels import Sampling, saturate, turn_hue


class Saturation(Operation):
    """Grey for 0, the image for 1, stronger colours above."""

    def __call__(self, pixels: Tensor, numbers: Tensor, parameters: Tensor, sampling: Sampling) -> None:
        """See :class:`Operation`."""
        saturate(pixels, numbers, parameters[:, 0].float())


class Hue(Operation):
    """Turns the hue by this share of the circle."""

    def parameters(self, strengths: np.ndarray, side: int) -> np.ndarray:
        """Steps of 255, in which Pillow has hues; see :class:`Operation`."""
        return np.trunc(strengths * 255)[:, None]

    def __call__(self, pixels: Tensor, numbers: Tensor, parameters: Tensor, sampling: Sampling) -> None:
        """See :class:`Operation`."""
        turn_hue(pixels, numbers, parameters[:, 0].long())
