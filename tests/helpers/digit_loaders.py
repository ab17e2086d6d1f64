"""Loaders of the digits' data sets (the fixture ``digits``), and what they load."""

from pathlib import Path

import torch

from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.decode_cpu import CenterCropDecoder, RandomResizedCropDecoder
from ffcv_imagenet.data.read.loader_cpu import CPUBatchLoader
from ffcv_imagenet.data.read.orders import ShardedOrder, ShuffledOrder
from ffcv_imagenet.imagenet import IMAGENET_CENTER_CROP

CPU = torch.device("cpu")


def train_loader(
    digits: Path, *, seed=0, workers=1, batch=16, rank=0, world=1, flip=True, on_damaged="fail", device=CPU
):
    order = ShuffledOrder(96, seed=seed, global_batch=batch * world, rank=rank, world_size=world)
    decoder = RandomResizedCropDecoder(32, seed=seed, flip=flip)
    options = {"batch_size": batch, "num_workers": workers, "device": device, "on_damaged": on_damaged}
    return CPUBatchLoader(BetonFile.open(digits / "train.beton"), decoder, order, **options)


def val_loader(digits: Path, *, batch=8, workers=1, on_damaged="fail", ratio=IMAGENET_CENTER_CROP):
    options = {"batch_size": batch, "num_workers": workers, "device": CPU, "on_damaged": on_damaged}
    file = BetonFile.open(digits / "val.beton")
    return CPUBatchLoader(file, CenterCropDecoder(35, ratio), ShardedOrder(31), **options)


def copies(loader, epoch, resolution):
    """An epoch's batches, as (images, labels) on the CPU in memory of their own."""
    return [
        (batch.images.to(CPU, copy=True), batch.labels.to(CPU, copy=True)) for batch in loader.epoch(epoch, resolution)
    ]
