"""Mixup and CutMix: each image is mixed with its neighbour in the batch, and so are their labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ffcv_imagenet.augment.draws import Purpose, generator


class Mixture(NamedTuple):
    """How the images of a step are mixed: ``share`` of the loss is that of an image's own label.

    Inside the box ``top <= row < bottom``, ``left <= column < right`` a pixel is ``weight`` times the image's own, plus
    ``1 - weight`` times its partner's; outside of it the image stays as it is.
    """

    share: float
    weight: float
    top: float
    left: float
    bottom: float
    right: float


#: Nothing is mixed.
UNMIXED = Mixture(1, 1, 0, 0, 0, 0)


@dataclass(frozen=True)
class Mixing:
    """Draws a :class:`Mixture` for each step: the same one for all its images, on all ranks.

    Mixup (Zhang et al., arXiv 1710.09412): the whole image, with a weight drawn from Beta(mixup, mixup). CutMix (Yun et
    al., arXiv 1905.04899): a box from the partner, of the image's shape and, before it is cut at the border, of the
    share 1 - s of its area, s drawn from Beta(cutmix, cutmix); its centre is any pixel. With both, as for DeiT (arXiv
    2012.12877), each step takes one of them.

    Attributes:
        mixup: the alpha of Mixup's Beta distribution, 0: no Mixup.
        cutmix: likewise CutMix's.
        prob: share of the steps that are mixed.
        switch: of those, the share with CutMix, where there are both.
        first_unmixed: epoch from which nothing is mixed.
        seed: of the draws.
    """

    mixup: float
    cutmix: float
    prob: float
    switch: float
    first_unmixed: int
    seed: int

    def draw(self, epoch: int, step: int, side: int) -> Mixture:
        """The mixture of a step with images of ``side`` x ``side`` pixels."""
        if epoch >= self.first_unmixed:
            return UNMIXED
        random = generator(self.seed, epoch, Purpose.MIXING, step)
        if random.random() >= self.prob:
            return UNMIXED
        cutmix = self.cutmix > 0 and (self.mixup == 0 or random.random() < self.switch)
        if not cutmix:
            weight = float(random.beta(self.mixup, self.mixup))
            return Mixture(weight, weight, 0, 0, side, side)
        half = int(side * math.sqrt(1 - random.beta(self.cutmix, self.cutmix))) // 2
        row, column = random.integers(side, size=2).tolist()
        top, left, bottom, right = (
            min(max(v, 0), side) for v in (row - half, column - half, row + half, column + half)
        )
        return Mixture(1 - (bottom - top) * (right - left) / side**2, 0, top, left, bottom, right)


def swap_neighbours(values: Tensor) -> Tensor:
    """Rows 1, 0, 3, 2, ... of ``values [B, ...]``, B even: every image's partner.

    So a partner is always in the same micro-batch, and the same image for any number of ranks and micro-batches.
    """
    return values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def mix_images(images: Tensor, mixture: Tensor) -> Tensor:
    """``images [B, 3, H, W]`` (floating-point, channels_last), B even, mixed by a :class:`Mixture` [6]."""
    _, weight, top, left, bottom, right = mixture.unbind()
    rows, columns = (torch.arange(size, device=images.device) for size in images.shape[2:])
    inside = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
    own = torch.where(inside, weight, 1.0).to(images.dtype)
    partners = swap_neighbours(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # stays channels_last
    return images * own + partners * (1 - own)
