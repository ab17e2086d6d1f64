"""The manifests of a training's images and of its validation images, checked against each other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.format.subset import read_subset, restrict


def read_manifests(
    config: TrainConfig, *, read: Callable[[Path], Manifest] = Manifest.read, show_warnings: bool = True
) -> tuple[Manifest | None, Manifest]:
    """The manifests of the training images (None with training.eval_only) and of the validation images.

    Where data.subset names some of the training images, theirs is that of these.

    Args:
        config: names the files.
        read: reads a manifest.
        show_warnings: on stderr.

    Raises:
        FileNotFoundError: a file or its manifest is not there.
        ValueError: a damaged file, a list of samples that does not fit, other classes, or the splits of
            :func:`_split_mistakes`.
    """
    if config.data.val is None:
        raise ValueError("data.val is required: give --data.val=FILE.beton")
    val_data = read(Path(config.data.val))
    if config.training.eval_only:
        return None, val_data
    assert config.data.train is not None  # Checked with the configuration.
    train_data = read(Path(config.data.train))
    if train_data.classes != val_data.classes:
        raise ValueError(_other_classes(config, train_data.classes, val_data.classes))
    if mistakes := _split_mistakes(config, train_data, val_data):
        if config.data.on_wrong_split == "fail":
            raise ValueError("; ".join(mistakes) + " (--data.on_wrong_split=warn to go on)")
        if show_warnings:
            print(f"warning: {'; '.join(mistakes)}", file=sys.stderr)
    samples = train_samples(config, train_data)
    return train_data if samples is None else restrict(train_data, Path(config.data.train), samples), val_data


def train_samples(config: TrainConfig, train_data: Manifest) -> np.ndarray | None:
    """The samples of data.train that are trained on, [N] int64 in rising order; None: all.

    Args:
        config: names a list of them.
        train_data: the manifest of the whole file.

    Raises:
        FileNotFoundError, ValueError: see :func:`~ffcv_imagenet.data.format.subset.read_subset`.
    """
    return None if config.data.subset is None else read_subset(Path(config.data.subset), train_data.num_samples)


def _other_classes(config: TrainConfig, train: Sequence[str], val: Sequence[str]) -> str:
    """How the classes of the validation images differ from those of the training images."""
    parts = []
    for what, names in (("missing", set(train) - set(val)), ("not in data.train", set(val) - set(train))):
        if names:
            some = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
            parts.append(f"{len(names)} {what} ({some})")
    return (
        f"data.val: got {config.data.val} with {len(val)} classes, allowed are the {len(train)} of "
        f"{config.data.train}: {'; '.join(parts) or 'they are in another order'}"
    )


def _split_mistakes(config: TrainConfig, train_data: Manifest, val_data: Manifest) -> list[str]:
    """Validation images to train on, training images to validate on, or the same for both."""
    files = (("data.train", config.data.train, train_data, "train"), ("data.val", config.data.val, val_data, "val"))
    mistakes = [
        f"{key}: got {file}, which was written as the split {data.split}, allowed is the split {wanted}"
        for key, file, data, wanted in files
        if data.split != wanted
    ]
    if train_data.checksum == val_data.checksum:
        mistakes.append(f"data.train and data.val hold the same images: {config.data.train} and {config.data.val}")
    return mistakes
