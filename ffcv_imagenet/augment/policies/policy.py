"""What a policy is: a frozen dataclass of its options that turns random numbers into operations and strengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ffcv_imagenet.options import Choice, option

if TYPE_CHECKING:
    import numpy as np


class Layer(NamedTuple):
    """One operation for each image of a batch.

    Attributes:
        operations: names in :data:`~ffcv_imagenet.augment.operations.OPERATIONS`.
        chosen: [B] int, an index into ``operations`` for each image; negative: the image stays as it is.
        strengths: [B] float64, in the units of the image's operation.
    """

    operations: tuple[str, ...]
    chosen: np.ndarray
    strengths: np.ndarray


@dataclass(frozen=True)
class Policy:
    """Chooses operations. Its fields are its options, made by :func:`ffcv_imagenet.options.option`."""

    @property
    def num_draws(self) -> int:
        """Random numbers per image."""
        raise NotImplementedError

    @property
    def sampling(self) -> tuple[str, str]:
        """Interpolation and fill colour, see :class:`GeometricPolicy`, of operations that move pixels."""
        return "nearest", "black"

    def layers(self, draws: np.ndarray, side: int) -> list[Layer]:
        """Operations, one layer after the other.

        Args:
            draws: [B, num_draws] float64, uniform in [0, 1).
            side: of the images, in pixels.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class NoPolicy(Policy):
    """No operation."""

    @property
    def num_draws(self) -> int:
        """See :class:`Policy`."""
        return 0

    def layers(self, draws: np.ndarray, side: int) -> list[Layer]:
        """See :class:`Policy`."""
        return []


@dataclass(frozen=True)
class GeometricPolicy(Policy):
    """A policy with operations that move pixels."""

    interpolation: str = option(
        Choice("nearest", "bilinear", "bicubic"), "how operations that move pixels read them", "bilinear"
    )
    fill: str = option(Choice("black", "mean"), "colour of what comes from outside of the image", "black")

    @property
    def sampling(self) -> tuple[str, str]:
        """See :class:`Policy`."""
        return self.interpolation, self.fill


def sign(draws: np.ndarray) -> np.ndarray:
    """-1 or 1."""
    return 1.0 - 2.0 * (draws < 0.5)


def choose(draws: np.ndarray, count: int) -> np.ndarray:
    """One of ``count``: 0..count-1."""
    return (draws * count).astype(int)
