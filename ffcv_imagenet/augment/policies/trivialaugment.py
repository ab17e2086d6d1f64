"""TrivialAugment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.augment.policies.magnitudes import OPERATIONS, Ranges, strength
from ffcv_imagenet.augment.policies.policy import GeometricPolicy, Layer, choose, sign

if TYPE_CHECKING:
    import numpy as np

_RANGES = Ranges(shear=0.99, translate_share=0.0, translate_pixels=32.0, rotate=135.0, factor=0.99, bits=6)
#: How many magnitudes there are, from none to the ends of the ranges.
_MAGNITUDES = 31


@dataclass(frozen=True)
class TrivialAugment(GeometricPolicy):
    """One operation of 14, with the identity among them, of any magnitude.

    Müller and Hutter, "TrivialAugment", arXiv 2103.10158, with the wide ranges; distributed as torchvision's
    TrivialAugmentWide.
    """

    @property
    def num_draws(self) -> int:
        """See :class:`Policy`."""
        return 3

    def layers(self, draws: np.ndarray, side: int) -> list[Layer]:
        """See :class:`Policy`."""
        chosen, signs = choose(draws[:, 0], len(OPERATIONS) + 1) - 1, sign(draws[:, 1])
        share = choose(draws[:, 2], _MAGNITUDES) / (_MAGNITUDES - 1)
        strengths = sum((chosen == k) * strength(o, _RANGES, share, signs, side) for k, o in enumerate(OPERATIONS))
        return [Layer(OPERATIONS, chosen, strengths)]
