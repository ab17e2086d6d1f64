"""All that is done to a training batch: from random numbers on the host to pixels on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ffcv_imagenet.augment.mixing import Mixing


class Augmentation:
    """Augments training batches on ``device``; never waits for it.

    Args:
        mixing: draws how images are mixed; None: not at all.
        device: where the batches are.
    """

    def __init__(self, *, mixing: Mixing | None, device: torch.device):
        self.mixing, self.device = mixing, device

    def __call__(self, images: Tensor, *, epoch: int, step: int) -> tuple[Tensor, Tensor | None]:
        """Images for the model, and how it is to mix them: a :class:`~.mixing.Mixture` [6] float32, or None.

        Args:
            images: [B, 3, H, W] uint8, channels_last.
            epoch: number of the epoch.
            step: of the optimizer, in the epoch.
        """
        mixture = None
        if self.mixing is not None:
            mixture = self._on_device(self.mixing.draw(epoch, step, images.shape[-1]))
        return images, mixture

    def _on_device(self, numbers: Sequence[float]) -> Tensor:
        host = torch.from_numpy(np.array(numbers, np.float32))
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host
