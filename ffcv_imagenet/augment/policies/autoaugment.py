"""AutoAugment's policy for ImageNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.augment.policies.magnitudes import OPERATIONS, Ranges, strength
from ffcv_imagenet.augment.policies.policy import GeometricPolicy, Layer, choose, sign

if TYPE_CHECKING:
    import numpy as np

#: Two operations each, with probability and magnitude of ten (0 where there is none): table 9 of the paper.
SUB_POLICIES = (
    ("posterize 0.4 8", "rotate 0.6 9"),
    ("solarize 0.6 5", "auto_contrast 0.6 0"),
    ("equalize 0.8 0", "equalize 0.6 0"),
    ("posterize 0.6 7", "posterize 0.6 6"),
    ("equalize 0.4 0", "solarize 0.2 4"),
    ("equalize 0.4 0", "rotate 0.8 8"),
    ("solarize 0.6 3", "equalize 0.6 0"),
    ("posterize 0.8 5", "equalize 1.0 0"),
    ("rotate 0.2 3", "solarize 0.6 8"),
    ("equalize 0.6 0", "posterize 0.4 6"),
    ("rotate 0.8 8", "saturation 0.4 0"),
    ("rotate 0.4 9", "equalize 0.6 0"),
    ("equalize 0.0 0", "equalize 0.8 0"),
    ("invert 0.6 0", "equalize 1.0 0"),
    ("saturation 0.6 4", "contrast 1.0 8"),
    ("rotate 0.8 8", "saturation 1.0 2"),
    ("saturation 0.8 8", "solarize 0.8 7"),
    ("sharpness 0.4 7", "invert 0.6 0"),
    ("shear_x 0.6 5", "equalize 1.0 0"),
    ("saturation 0.4 0", "equalize 0.6 0"),
    ("equalize 0.4 0", "solarize 0.2 4"),
    ("solarize 0.6 5", "auto_contrast 0.6 0"),
    ("invert 0.6 0", "equalize 1.0 0"),
    ("saturation 0.6 4", "contrast 1.0 8"),
    ("equalize 0.8 0", "equalize 0.6 0"),
)
_MOST_MAGNITUDE = 9
_OPERATIONS = (*OPERATIONS, "invert")


@dataclass(frozen=True)
class AutoAugment(GeometricPolicy):
    """One of 25 pairs of operations, each taken with a probability of its own.

    Cubuk et al., "AutoAugment", arXiv 1805.09501, the policy found on ImageNet; distributed as torchvision's.
    """

    @property
    def num_draws(self) -> int:
        """See :class:`Policy`."""
        return 5

    def layers(self, draws: np.ndarray, side: int) -> list[Layer]:
        """See :class:`Policy`."""
        pair = choose(draws[:, 0], len(SUB_POLICIES))
        return [self._layer(k, pair, draws[:, 1 + 2 * k : 3 + 2 * k], side) for k in range(2)]

    def _layer(self, number: int, pair: np.ndarray, draws: np.ndarray, side: int) -> Layer:
        import numpy as np

        rows = [pair[number].split() for pair in SUB_POLICIES]
        operation = np.array([_OPERATIONS.index(name) for name, _, _ in rows])[pair]
        probability = np.array([float(probability) for _, probability, _ in rows])[pair]
        share = np.array([float(magnitude) for _, _, magnitude in rows])[pair] / _MOST_MAGNITUDE
        chosen, signs = np.where(draws[:, 0] < probability, operation, -1), sign(draws[:, 1])
        strengths = sum((chosen == k) * strength(o, Ranges(), share, signs, side) for k, o in enumerate(_OPERATIONS))
        return Layer(_OPERATIONS, chosen, strengths)
