"""Operations that move pixels."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from torch import Tensor

from ffcv_imagenet.augment.operations.operation import Operation
from ffcv_imagenet.augment.pixels import Sampling, transform

#: The image as it is, see :func:`~ffcv_imagenet.augment.pixels.transform`.
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class GeometricOperation(Operation):
    """An operation that is a matrix."""

    num_parameters = 6

    def parameters(self, strengths: np.ndarray, side: int) -> np.ndarray:
        """Matrices [n, 6]; see :class:`Operation`."""
        matrices = np.tile(_IDENTITY, (len(strengths), 1))
        self.set_matrices(matrices, strengths, side)
        return matrices

    @abstractmethod
    def set_matrices(self, matrices: np.ndarray, strengths: np.ndarray, side: int) -> None:
        """Change ``matrices [n, 6]``, which are the identity."""

    def __call__(self, pixels: Tensor, numbers: Tensor, parameters: Tensor, sampling: Sampling) -> None:
        """See :class:`Operation`."""
        transform(pixels, numbers, parameters, sampling)


class ShearX(GeometricOperation):
    """Moves each row to the left, by so many pixels per row below the upper edge."""

    def set_matrices(self, matrices: np.ndarray, strengths: np.ndarray, side: int) -> None:
        """See :class:`GeometricOperation`."""
        matrices[:, 1] = strengths


class ShearY(GeometricOperation):
    """Moves each column up, by so many pixels per column right of the left edge."""

    def set_matrices(self, matrices: np.ndarray, strengths: np.ndarray, side: int) -> None:
        """See :class:`GeometricOperation`."""
        matrices[:, 3] = strengths


class TranslateX(GeometricOperation):
    """Moves the image to the left by so many pixels."""

    def set_matrices(self, matrices: np.ndarray, strengths: np.ndarray, side: int) -> None:
        """See :class:`GeometricOperation`."""
        matrices[:, 2] = strengths


class TranslateY(GeometricOperation):
    """Moves the image up by so many pixels."""

    def set_matrices(self, matrices: np.ndarray, strengths: np.ndarray, side: int) -> None:
        """See :class:`GeometricOperation`."""
        matrices[:, 5] = strengths


class Rotate(GeometricOperation):
    """Turns the image around its centre, counter-clockwise by so many degrees."""

    def set_matrices(self, matrices: np.ndarray, strengths: np.ndarray, side: int) -> None:
        """See :class:`GeometricOperation`."""
        angle, centre = -np.deg2rad(strengths), side / 2
        cos, sin = np.cos(angle).round(15), np.sin(angle).round(15)
        matrices[:, 0], matrices[:, 1] = cos, sin
        matrices[:, 3], matrices[:, 4] = -sin, cos
        matrices[:, 2] = -centre * cos - centre * sin + centre
        matrices[:, 5] = centre * sin - centre * cos + centre
