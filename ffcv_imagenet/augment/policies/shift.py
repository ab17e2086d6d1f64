"""The whole image, moved by a few pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffcv_imagenet.augment.policies.policy import Layer, Policy, choose

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class RandomShift(Policy):
    """Moved by up to ``most`` pixels along each side, black next to it: padded by these, then cropped at random."""

    most: int

    @property
    def num_draws(self) -> int:
        """See :class:`Policy`."""
        return 2

    def layers(self, draws: np.ndarray, side: int) -> list[Layer]:
        """See :class:`Policy`."""
        shifts = choose(draws, 2 * self.most + 1) - self.most
        return [
            Layer((name,), (shifts[:, k] != 0).astype(int) - 1, shifts[:, k].astype(float))
            for k, name in enumerate(("translate_x", "translate_y"))
        ]
