"""3-Augment, which DeiT III uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.augment.policies.policy import Layer, Policy, choose

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ThreeAugment(Policy):
    """Grey, solarized from 128 on, or blurred with a radius of 0.1 to 2 pixels, equally often.

    Touvron et al., "DeiT III", arXiv 2204.07118, which adds ``--augment.color_jitter=0.3,0.3,0.3,0``.
    """

    @property
    def num_draws(self) -> int:
        """See :class:`Policy`."""
        return 2

    def layers(self, draws: np.ndarray, side: int) -> list[Layer]:
        """See :class:`Policy`."""
        chosen = choose(draws[:, 0], 3)
        strengths = 128.0 * (chosen == 1) + (0.1 + 1.9 * draws[:, 1]) * (chosen == 2)
        return [Layer(("saturation", "solarize", "gaussian_blur"), chosen, strengths)]
