"""Operations that sharpen and blur."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ffcv_imagenet.augment.operations.operation import Operation
from ffcv_imagenet.augment.pixels import Sampling, blur, sharpen


class Sharpness(Operation):
    """Smoothed for 0, the image for 1, sharper above."""

    def __call__(self, pixels: Tensor, numbers: Tensor, parameters: Tensor, sampling: Sampling) -> None:
        """See :class:`Operation`."""
        sharpen(pixels, numbers, parameters[:, 0].float())


#: In units of this share of a pixel the weights of a blur are whole numbers.
_ONE = 1 << 24
#: Times that a blur averages along each axis.
_PASSES = 3


class GaussianBlur(Operation):
    """Blurred by a Gaussian of this standard deviation in pixels, below 2.44, as Pillow approximates it.

    That is by three averages over a box with fractional ends (Gwosdek et al., "Theoretical Foundations of Gaussian
    Convolution by Extended Box Filtering", 2011, equations 7, 11 and 14).
    """

    num_parameters = 3

    def parameters(self, strengths: np.ndarray, side: int) -> np.ndarray:
        """Weights by distance, see :func:`~ffcv_imagenet.augment.pixels.blur`."""
        variance = np.square(strengths.astype(np.float32)) / np.float32(_PASSES)
        whole = np.floor((np.sqrt(12 * variance + 1) - 1) / 2)
        rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
        inside = (_ONE / ((whole + rest).astype(np.float32) * 2 + 1)).astype(np.int64)
        edge = (_ONE - (2 * whole.astype(np.int64) + 1) * inside) // 2
        return np.stack([inside, np.where(whole < 1, edge, inside), np.where(whole < 1, 0, edge)], axis=1).astype(float)

    def __call__(self, pixels: Tensor, numbers: Tensor, parameters: Tensor, sampling: Sampling) -> None:
        """See :class:`Operation`."""
        blur(pixels, numbers, parameters.long())
