"""The batches of a training and of an evaluation, from the options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.crop_kinds import RandomResized, RandomSquare, Squash
from ffcv_imagenet.data.read.decode_cpu import (
    CenterCropDecoder,
    CropDecoder,
    RandomPartDecoder,
    RandomResizedCropDecoder,
)
from ffcv_imagenet.data.read.loader import BatchLoader, OnDamaged, most_workers
from ffcv_imagenet.data.read.loader_cpu import CPUBatchLoader
from ffcv_imagenet.data.read.loader_gpu import GPUBatchLoader
from ffcv_imagenet.data.read.orders import ListedOrder, QuasiRandomOrder, RepeatedOrder, ShardedOrder, ShuffledOrder
from ffcv_imagenet.manifests import train_samples
from ffcv_imagenet.resolved import Resolved
from ffcv_imagenet.train.precision import input_dtype

#: Bytes that ``data.order=quasi_random`` reads at a time.
READ_TOGETHER = 8 << 20


def make_train_loader(
    start: Resolved, order: ShuffledOrder | ListedOrder | None = None, batch_size: int | None = None
) -> BatchLoader:
    """This rank's batches of random crops of the training images.

    Args:
        start: the options.
        order: of the images; None: the training's.
        batch_size: of the batches; None: the training's.

    Raises:
        ValueError, FileNotFoundError: see :class:`BatchLoader` and :meth:`BetonFile.open`; or a batch that the
            ranks cannot share.
    """
    config = start.config
    assert start.train_data is not None
    assert config.data.train is not None
    return _make_loader(
        start,
        config.data.train,
        start.train_data if config.data.subset is None else None,
        _train_decoder(config),
        order or _train_order(start, start.train_data),
        decode=start.train_decoder,
        batch_size=batch_size or config.per_rank_batch(start.world.size),
        on_damaged="fail" if config.data.on_error == "fail" else "replace",
        # Augmentations begin with what a CPU decodes, too: the same pixels wherever they are decoded.
        normalized=not config.augments,
    )


def make_val_loader(start: Resolved, order: ListedOrder | None = None, batch_size: int | None = None) -> BatchLoader:
    """This rank's batches of the centres of the validation images.

    Args:
        start: the options.
        order: of the images; None: all of them over all ranks.
        batch_size: of the batches; None: the evaluation's.

    Raises:
        ValueError, FileNotFoundError: see :class:`BatchLoader` and :meth:`BetonFile.open`.
    """
    config, world = start.config, start.world
    assert config.data.val is not None
    return _make_loader(
        start,
        config.data.val,
        start.val_data,
        CenterCropDecoder(config.validation.resolution, config.validation.crop_ratio, resize=config.data.resize),
        order or ShardedOrder(start.val_data.num_samples, world.rank, world.size),
        decode=start.val_decoder,
        batch_size=batch_size or config.validation.batch_size,
        # A validation image cannot be replaced; the scores are those of the rest, on any number of processes.
        on_damaged="fail" if config.data.on_error == "fail" else "leave_out",
    )


def _train_decoder(config: TrainConfig) -> CropDecoder:
    options: dict[str, Any] = {
        "seed": config.training.seed,
        "flip": config.data.flip,
        "resize": config.data.resize,
    }
    match config.make_crop():
        case RandomResized(min_crop_area, max_crop_area, crop_aspect):
            options |= {"min_area": min_crop_area, "max_area": max_crop_area, "ratio": crop_aspect}
            return RandomResizedCropDecoder(config.resolution.min_res, **options)
        case RandomSquare(crop_share):
            return RandomPartDecoder(config.resolution.min_res, share=crop_share, squash=False, **options)
        case Squash(crop_share):
            return RandomPartDecoder(config.resolution.min_res, share=crop_share, squash=True, **options)
        case _:  # Padded: the rest happens on the training device.
            return RandomPartDecoder(config.resolution.min_res, share=1.0, squash=True, **options)


def _train_order(start: Resolved, data: Manifest) -> ShuffledOrder:
    config, world = start.config, start.world
    shape = (data.num_samples, config.training.seed, config.training.batch_size, world.rank, world.size)
    if config.data.order == "random":
        samples = None
        if config.data.subset is not None:
            assert config.data.train is not None
            samples = train_samples(config, Manifest.read(Path(config.data.train)))
        if config.data.repeats > 1:
            return RepeatedOrder(*shape, samples=samples, repeats=config.data.repeats)
        return ShuffledOrder(*shape, samples=samples)
    if world.is_main and not data.parameters.shuffle:
        print(
            f"warning: {config.data.train} holds its images class by class: with data.order=quasi_random a batch mixes "
            f"few classes; write it with --write.shuffle=1",
            file=sys.stderr,
        )
    return QuasiRandomOrder(*shape, block=max(1, READ_TOGETHER * data.num_samples // data.num_bytes))


def _make_loader(
    start: Resolved,
    file: str,
    manifest: Manifest | None,
    decoder: CropDecoder,
    order: ShuffledOrder | ListedOrder,
    *,
    decode: str,
    batch_size: int,
    on_damaged: OnDamaged,
    normalized: bool = True,
) -> BatchLoader:
    beton = BetonFile.open(Path(file), manifest)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "num_workers": start.config.data.num_workers or min(start.decoding_cores, most_workers()),
        "device": start.world.device,
        "on_damaged": on_damaged,
    }
    if decode == "cpu":
        return CPUBatchLoader(beton, decoder, order, **options)
    return GPUBatchLoader(
        beton,
        decoder,
        order,
        dtype=input_dtype(start.precision) if normalized else torch.uint8,
        normalize=start.make_normalize(),
        **options,
    )
