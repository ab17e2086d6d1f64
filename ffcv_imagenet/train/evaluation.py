"""Scores of a model on all validation images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ffcv_imagenet.data.read.loader import BatchLoader
from ffcv_imagenet.distributed import broadcast_buffers, sum_over_ranks
from ffcv_imagenet.train.metrics import Scores, ScoreSums
from ffcv_imagenet.train.step import EvaluationStep


@torch.no_grad()
def evaluate(
    step: EvaluationStep,
    loader: BatchLoader,
    *,
    resolution: int,
    flip_tta: bool,
    top_k: int,
    forward: Callable[[Tensor], Tensor] | None = None,
    after_batch: Callable[[], None] = lambda: None,
    calls: int = 0,
) -> Scores:
    """Evaluate a model, with the statistics of rank 0's normalisation layers; the same call on every rank.

    Args:
        step: from images to logits; left in evaluation mode.
        loader: this rank's part of the images; every image counts once over all ranks (or, where the loader leaves
            damaged ones out, not at all: :attr:`Scores.images` are the rest).
        resolution: side of the images in pixels.
        flip_tta: average the logits of an image and of its mirror image.
        top_k: the k of the score top-k, at most the number of classes.
        forward: ``step``, or a compiled form of it.
        after_batch: called after every batch, and then until it has been called ``calls`` times, which makes it equally
            often on ranks with fewer batches.
        calls: at least the number of batches of any rank.

    Raises:
        ValueError: no rank has any image.
    """
    broadcast_buffers(step.model)
    step.eval()
    sums, predict = ScoreSums(step.device, top_k), step if forward is None else forward
    # Another number of images would be compiled, or its convolutions searched for, in the middle of the evaluation.
    keeps_shape = predict is not step or step.device.type == "cuda"
    for batch in loader.epoch(0, resolution):
        images = _fill_up(batch.images, loader.batch_size) if keeps_shape else batch.images
        logits = predict(images)
        if flip_tta:
            # A copy, because a replayed CUDA graph writes its output to the same memory every time.
            logits = (logits.clone() + predict(images.flip(3))) / 2
        sums.add(logits[: len(batch.labels)], batch.labels)
        after_batch()
        calls -= 1
    for _ in range(calls):
        after_batch()
    sum_over_ranks(sums.sums)
    return sums.scores()


def _fill_up(images: Tensor, size: int) -> Tensor:
    """``images [B, 3, H, W]`` (channels_last) and so many empty ones after them that there are ``size``."""
    if len(images) >= size:
        return images
    pixels = images.permute(0, 2, 3, 1)
    return torch.cat([pixels, pixels.new_zeros(size - len(pixels), *pixels.shape[1:])]).permute(0, 3, 1, 2)
