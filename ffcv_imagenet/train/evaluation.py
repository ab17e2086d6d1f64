"""Scores of a model on all validation images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ffcv_imagenet.augment import Normalize
from ffcv_imagenet.data.read.loader import BatchLoader
from ffcv_imagenet.distributed import broadcast_buffers, sum_over_ranks
from ffcv_imagenet.train.metrics import Scores, ScoreSums
from ffcv_imagenet.train.precision import autocast


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: BatchLoader,
    normalize: Normalize,
    *,
    device: torch.device,
    resolution: int,
    precision: str,
    flip_tta: bool,
    top_k: int,
    forward: Callable[[Tensor], Tensor] | None = None,
    after_batch: Callable[[], None] = lambda: None,
    calls: int = 0,
) -> Scores:
    """Evaluate ``model``, with the statistics of rank 0's normalisation layers; the same call on every rank.

    Args:
        model: on ``device``; left in evaluation mode.
        loader: this rank's part of the images; every image counts once over all ranks (or, where the loader leaves
            damaged ones out, not at all: :attr:`Scores.images` are the rest).
        normalize: from a batch's uint8 images to the model's input.
        device: of the model.
        resolution: side of the images in pixels.
        precision: bf16, fp16 or fp32.
        flip_tta: average the logits of an image and of its mirror image.
        top_k: the k of the score top-k, at most the number of classes.
        forward: a compiled form of ``model``, used for whole batches; the last one has a shape of its own.
        after_batch: called after every batch, and then until it has been called ``calls`` times, which makes it equally
            often on ranks with fewer batches.
        calls: at least the number of batches of any rank.

    Raises:
        ValueError: no rank has any image.
    """
    broadcast_buffers(model)
    model.eval()
    sums = ScoreSums(device, top_k)
    for batch in loader.epoch(0, resolution):
        images = normalize(batch.images)
        predict = model if forward is None or len(images) < loader.batch_size else forward
        with autocast(precision, device):
            logits = predict(images)
            if flip_tta:
                # A copy, for a replayed CUDA graph writes its output to the same place every time.
                logits = (logits.clone() + predict(images.flip(3))) / 2
        sums.add(logits, batch.labels)
        after_batch()
        calls -= 1
    for _ in range(calls):
        after_batch()
    sum_over_ranks(sums.sums)
    return sums.scores()
