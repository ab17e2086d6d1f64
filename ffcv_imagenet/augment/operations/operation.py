"""What an operation is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor

from ffcv_imagenet.augment.pixels import Sampling


class Operation(ABC):
    """Changes images of uint8; an image's own strength says how much, in units that each operation names."""

    #: Numbers that an image's strength becomes, at most :data:`MOST_PARAMETERS`.
    num_parameters = 1

    def parameters(self, strengths: np.ndarray, side: int) -> np.ndarray:
        """What the device is told of ``strengths [n] float64``, ``[n, num_parameters]``; on the host.

        ``side`` is that of the images, in pixels.
        """
        return strengths[:, None]

    @abstractmethod
    def __call__(self, pixels: Tensor, numbers: Tensor, parameters: Tensor, sampling: Sampling) -> None:
        """Change images where they are; never waits for the device.

        Args:
            pixels: [B, H, W, 3] uint8, contiguous.
            numbers: [n] int64, of the images that are changed, in ascending order.
            parameters: [n, num_parameters] float64.
            sampling: how geometric operations read pixels.
        """


#: See :attr:`Operation.num_parameters`.
MOST_PARAMETERS = 6
