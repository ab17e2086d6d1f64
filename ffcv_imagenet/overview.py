"""What a training is going to do, in a few lines, before it starts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import torch

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.names import shown
from ffcv_imagenet.resolved import Resolved


def describe(start: Resolved, steps: int, path: Path) -> list[str]:
    """What runs where, on which images, in which batches and at which sizes, a line each.

    Args:
        start: the resolved configuration.
        steps: of an epoch.
        path: the run's folder.
    """
    config, world, data = start.config, start.world, start.train_data
    assert data is not None
    epochs = config.planned_epochs(data.num_samples)
    in_all = min(epochs * steps, config.training.max_steps or epochs * steps)
    places = f"{world.size} process{'es' * (world.size > 1)} on the CPU"
    if world.device.type == "cuda":
        places = f"{world.size} x {torch.cuda.get_device_name(world.device)}"
    decoder = "GPU" if start.train_decoder == "gpu" else "CPU"
    workers = config.data.num_workers or start.decoding_cores
    lines = [
        f"trains {config.model.arch} with {config.loss.name}: {epochs} epoch{'s' * (epochs > 1)} of {steps} steps, "
        f"{in_all} in all, on {places} ({start.precision}, compile {start.compile}); {shown(path)}",
        f"images: {data.num_samples} of {data.num_classes} classes to train on, {start.val_data.num_samples} to "
        f"validate on; decoded on the {decoder}, {workers} CPU thread{'s' * (workers > 1)} per process",
        f"batch: {_batch(config, world.size)}",
        f"image side: {sides(config.make_resolution(), epochs)}; validation {config.validation.resolution} px",
    ]
    return [*lines, *_as_meant(config, world.size)]


def sides(resolution: Callable[[int], int], epochs: int) -> str:
    """The sides of the training images: ``160 px (epochs 1-12), 192 px (epochs 13-16)``."""
    parts = []
    for side, group in groupby(range(epochs), resolution):
        first, *rest = group
        parts.append(f"{side} px (epochs {first + 1}-{rest[-1] + 1})" if rest else f"{side} px (epoch {first + 1})")
    return ", ".join(parts)


def _batch(config: TrainConfig, processes: int) -> str:
    accumulation, images = config.training.accumulation, config.per_rank_batch(processes)
    share = f"{accumulation} parts of {images}, one part after the other" if accumulation > 1 else str(images)
    return f"{config.training.batch_size} images a step = {processes} process{'es' * (processes > 1)} x {share}"


def _as_meant(config: TrainConfig, processes: int) -> list[str]:
    """What gives the parts of a batch that the recipe is meant for, where this is another number of processes."""
    meant, batch = config.dist.meant_for, config.training.batch_size
    parts = processes * config.training.accumulation
    if meant is None or parts == meant or batch % meant:
        return []
    told = f"the recipe is meant for {meant} GPUs with {batch // meant} images each"
    if meant % processes == 0:
        return [f"{told}; here --training.accumulation={meant // processes} gives the same parts of a batch"]
    return [f"{told}; no --training.accumulation gives the same parts here"]
