"""Colour jitter, and single operations that some of the images get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.augment.policies.policy import Layer, Policy

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Sometimes(Policy):
    """``operation`` for a share ``prob`` of the images, of a strength between ``low`` and ``high``."""

    operation: str
    prob: float
    low: float = 0.0
    high: float = 0.0

    @property
    def num_draws(self) -> int:
        """See :class:`Policy`."""
        return 2

    def layers(self, draws: np.ndarray, side: int) -> list[Layer]:
        """See :class:`Policy`."""
        chosen = (draws[:, 0] < self.prob).astype(int) - 1
        return [Layer((self.operation,), chosen, self.low + (self.high - self.low) * draws[:, 1])]


@dataclass(frozen=True)
class ColorJitter(Policy):
    """Brightness, contrast, saturation and hue, in random order, as torchvision's ColorJitter.

    ``amounts`` are those of these four: factors from 1 - amount to 1 + amount, a hue turned by up to this share of the
    circle either way; 0 leaves one out. A share ``prob`` of the images is jittered.
    """

    amounts: tuple[float, float, float, float]
    prob: float = 1.0

    @property
    def operations(self) -> tuple[str, ...]:
        """Those that are not left out."""
        names = ("brightness", "contrast", "saturation", "hue")
        return tuple(name for name, amount in zip(names, self.amounts, strict=True) if amount)

    @property
    def num_draws(self) -> int:
        """See :class:`Policy`."""
        return 1 + 2 * len(self.operations)

    def layers(self, draws: np.ndarray, side: int) -> list[Layer]:
        """See :class:`Policy`."""
        import numpy as np

        operations = self.operations
        count = len(operations)
        order = np.where(draws[:, :1] < self.prob, draws[:, 1 : 1 + count].argsort(axis=1), -1)
        middle = np.array([name != "hue" for name in operations], float)
        amounts = np.array([amount for amount in self.amounts if amount])
        strengths = middle + amounts * (2 * draws[:, 1 + count :] - 1)
        each = np.arange(len(draws))
        return [Layer(operations, order[:, k], strengths[each, order[:, k]]) for k in range(count)]
