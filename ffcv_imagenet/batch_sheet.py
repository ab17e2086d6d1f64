"""A picture of training images as the network sees them, with their labels: for people to look at before they train."""

from __future__ import annotations

import dataclasses
import math

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ffcv_imagenet.augment.mixing import UNMIXED, Mixture, mix_images, swap_neighbours
from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.distributed import find_world
from ffcv_imagenet.loaders import make_train_loader
from ffcv_imagenet.names import shown
from ffcv_imagenet.resolved import Resolved, resolve

#: Pictures in the sheet, at most, and in a row of it; their smallest side in pixels, and the height of the text below.
_MOST, _COLUMNS, _SMALLEST, _TEXT = 40, 8, 96, 26


def draw_batch(config: TrainConfig, epoch: int) -> tuple[Image.Image, str]:
    """The first images of an epoch after everything that is done to them, and in words how they are mixed.

    They are those of the training's first step, on any number of processes. Drawn on the CPU.

    Args:
        config: of the training.
        epoch: from 0.

    Raises:
        ValueError, FileNotFoundError: a user's mistake, as in the training.
    """
    if config.training.eval_only:
        raise ValueError("training.eval_only: got 1, allowed is 0, because the batch drawn is a training's")
    if not 0 <= epoch < config.training.epochs:
        raise ValueError(f"--epoch: got {epoch}, allowed are 0 to {config.training.epochs - 1}")
    config = dataclasses.replace(config, dist=dataclasses.replace(config.dist, device="cpu"))
    start = resolve(config, find_world("cpu"))
    assert start.train_data is not None
    images, labels, mixture = _first_images(start, epoch)
    pixels = _pixels(start, images, mixture)
    texts = _texts(start.train_data, labels, mixture)
    return _sheet(pixels, texts), _in_words(mixture)


def _first_images(start: Resolved, epoch: int) -> tuple[Tensor, Tensor, Mixture]:
    """Images for the model, their labels, and how a training step mixes them."""
    count = min(_MOST, start.config.per_rank_batch(start.world.size))
    loader, augmentation = make_train_loader(start, batch_size=count), start.make_augmentation()
    batches = loader.epoch(epoch, start.config.make_resolution()(epoch))
    try:
        batch = next(batches)
        if augmentation is None:
            return batch.images.clone(), batch.labels.clone(), UNMIXED
        images, mixture = augmentation(batch.images, epoch=epoch, step=0, first=0)
        return images.clone(), batch.labels.clone(), UNMIXED if mixture is None else Mixture(*mixture.tolist())
    finally:
        batches.close()


def _pixels(start: Resolved, images: Tensor, mixture: Mixture) -> Tensor:
    """What the model is given, as [B, H, W, 3] uint8."""
    normalized = start.make_normalize()(images)
    if mixture != UNMIXED:
        normalized = mix_images(normalized, torch.tensor(mixture))
    mean, std = (torch.tensor(v)[:, None, None] for v in (start.config.data.mean, start.config.data.std))
    return (255 * (normalized * std + mean)).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _texts(data: Manifest, labels: Tensor, mixture: Mixture) -> list[str]:
    """The label of each image, or both with their shares."""
    names = [shown(name) for name in data.class_names or data.classes]
    own = [names[label] for label in labels.tolist()]
    if mixture.share == 1:
        return own
    partners = [names[label] for label in swap_neighbours(labels).tolist()]
    first, second = f"{100 * mixture.share:.0f} %", f"{100 * (1 - mixture.share):.0f} %"
    return [f"{first} {a}\n{second} {b}" for a, b in zip(own, partners, strict=True)]


def _sheet(pixels: Tensor, texts: list[str]) -> Image.Image:
    side = pixels.shape[1] * max(1, math.ceil(_SMALLEST / pixels.shape[1]))
    rows = math.ceil(len(texts) / _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * side, rows * (side + _TEXT)), "white")
    for number, (picture, text) in enumerate(zip(pixels, texts, strict=True)):
        cell = Image.new("RGB", (side, side + _TEXT), "white")
        cell.paste(Image.fromarray(picture.numpy()).resize((side, side), Image.Resampling.NEAREST))
        ImageDraw.Draw(cell).multiline_text((2, side + 1), text, fill="black", spacing=1)  # cut at the cell's edge
        sheet.paste(cell, (number % _COLUMNS * side, number // _COLUMNS * (side + _TEXT)))
    return sheet


def _in_words(mixture: Mixture) -> str:
    if mixture == UNMIXED:
        return "not mixed"
    how = "CutMix" if mixture.weight == 0 else "Mixup"
    return f"mixed by {how}, {100 * mixture.share:.1f} % of each image's own label"
