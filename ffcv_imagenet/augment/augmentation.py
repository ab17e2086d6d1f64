"""All that is done to a training batch: from random numbers on the host to pixels on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ffcv_imagenet.augment.draws import Purpose, to_device, uniforms
from ffcv_imagenet.augment.erasing import Erasing
from ffcv_imagenet.augment.mixing import Mixing
from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.augment.operations import OPERATIONS
from ffcv_imagenet.augment.operations.operation import MOST_PARAMETERS
from ffcv_imagenet.augment.pixels import Sampling
from ffcv_imagenet.augment.policies import Policy
from ffcv_imagenet.augment.policies.policy import Layer


class Augmentation:
    """Augments training batches on ``device``; never waits for it.

    Args:
        policies: choose operations for each image, in their order, each with draws for its own purpose.
        erasing: erases boxes of the normalised images; None: none.
        mixing: draws how images are mixed; None: not at all.
        normalize: from uint8 images to the model's input; on ``device``.
        seed: of the policies' draws.
        mean: the mean colour of the images, in 0..1.
        device: where the batches are.
    """

    def __init__(
        self,
        *,
        policies: Mapping[Purpose, Policy],
        erasing: Erasing | None = None,
        mixing: Mixing | None = None,
        normalize: Normalize,
        seed: int,
        mean: Sequence[float],
        device: torch.device,
    ):
        self.policies, self.erasing, self.mixing, self.normalize = policies, erasing, mixing, normalize
        self.seed, self.device = seed, device
        self._mean = tuple(round(255 * level) for level in mean)

    def __call__(self, images: Tensor, *, epoch: int, step: int, first: int) -> tuple[Tensor, Tensor | None]:
        """Images for the model, and how it is to mix them: a :class:`~.mixing.Mixture` [6] float32, or None.

        Erased images are normalised, float32; others are uint8.

        Args:
            images: [B, 3, H, H] uint8, channels_last; overwritten.
            epoch: number of the epoch.
            step: of the optimizer, in the epoch.
            first: position of the batch's first image in the epoch, over all ranks.
        """
        side = images.shape[-1]
        for purpose, policy in self.policies.items():
            draws = uniforms(self.seed, epoch, purpose, first, len(images), policy.num_draws)
            images = apply_layers(images, policy.layers(draws, side), self._sampling(policy))
        if self.erasing is not None:
            images = self.normalize(images)
            self.erasing(images, epoch, first)
        mixture = None
        if self.mixing is not None:
            mixture = to_device(np.array(self.mixing.draw(epoch, step, side), np.float32), self.device)
        return images, mixture

    def _sampling(self, policy: Policy) -> Sampling:
        interpolation, fill = policy.sampling
        return Sampling(interpolation, (0, 0, 0) if fill == "black" else self._mean)  # type: ignore[arg-type]


class _Group(NamedTuple):
    """Images with the same operation: ``first <= i < last`` in the order of a layer."""

    layer: int
    operation: str
    first: int
    last: int


def apply_layers(images: Tensor, layers: Sequence[Layer], sampling: Sampling) -> Tensor:
    """``images [B, 3, H, H] uint8``, channels_last, after all ``layers``; overwritten.

    The images with the same operation are worked on together.
    """
    if not layers:
        return images
    pixels = images.permute(0, 2, 3, 1).contiguous()
    # The host knows the groups, so that no shape depends on what is on the device.
    numbers = np.zeros((len(layers), len(images), 1 + MOST_PARAMETERS))
    groups = [*_groups(layers, pixels.shape[1], numbers)]
    on_device = to_device(numbers, images.device)
    for group in groups:
        rows, operation = on_device[group.layer, group.first : group.last], OPERATIONS[group.operation]
        parameters = rows[:, 1 : 1 + operation.num_parameters].contiguous()
        operation(pixels, rows[:, 0].long(), parameters, sampling)
    return pixels.permute(0, 3, 1, 2)


def _groups(layers: Sequence[Layer], side: int, numbers: np.ndarray) -> Iterator[_Group]:
    """The groups of all layers; fills ``numbers [layers, B, 1 + MOST_PARAMETERS]``: image, and its parameters."""
    for number, layer in enumerate(layers):
        order = np.argsort(layer.chosen, kind="stable")
        numbers[number, :, 0] = order
        bounds = np.searchsorted(layer.chosen[order], np.arange(len(layer.operations) + 1)).tolist()
        for name, first, last in zip(layer.operations, bounds[:-1], bounds[1:], strict=True):
            if first < last:
                operation = OPERATIONS[name]
                parameters = operation.parameters(layer.strengths[order[first:last]], side)
                numbers[number, first:last, 1 : 1 + operation.num_parameters] = parameters
                yield _Group(number, name, first, last)
