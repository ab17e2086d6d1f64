"""RandAugment as torchvision has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.augment.policies.magnitudes import OPERATIONS, Ranges, strength
from ffcv_imagenet.augment.policies.policy import GeometricPolicy, Layer, choose, sign
from ffcv_imagenet.options import Integer, option

if TYPE_CHECKING:
    import numpy as np

#: Magnitudes are multiples of the ranges' 30th part.
MOST_MAGNITUDE = 30


@dataclass(frozen=True)
class RandAugment(GeometricPolicy):
    """So many operations of the same magnitude, each one of 14, with the identity among them.

    Cubuk et al., "RandAugment", arXiv 1909.13719; distributed as torchvision's RandAugment with 31 magnitudes.
    """

    num_ops: int = option(Integer(1, 10), "operations per image", 2)
    magnitude: int = option(Integer(0, MOST_MAGNITUDE), "their magnitude", 9)

    @property
    def num_draws(self) -> int:
        """See :class:`Policy`."""
        return 2 * self.num_ops

    def layers(self, draws: np.ndarray, side: int) -> list[Layer]:
        """See :class:`Policy`."""
        return [self._layer(draws[:, 2 * k : 2 * k + 2], side) for k in range(self.num_ops)]

    def _layer(self, draws: np.ndarray, side: int) -> Layer:
        chosen, signs = choose(draws[:, 0], len(OPERATIONS) + 1) - 1, sign(draws[:, 1])
        share = 0 * signs + self.magnitude / MOST_MAGNITUDE
        strengths = sum((chosen == k) * strength(o, Ranges(), share, signs, side) for k, o in enumerate(OPERATIONS))
        return Layer(OPERATIONS, chosen, strengths)
