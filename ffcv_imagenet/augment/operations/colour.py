"""Operations on colours."""

from __future__ import annotations

from torch import Tensor

from ffcv_imagenet.augment.operations.operation import Operation
from ffcv_imagenet.augment.pixels import Sampling, saturate


class Saturation(Operation):
    """Grey for 0, the image for 1, stronger colours above."""

    def __call__(self, pixels: Tensor, parameters: Tensor, sampling: Sampling) -> Tensor:
        """See :class:`Operation`."""
        return saturate(pixels, parameters[:, 0].float())
