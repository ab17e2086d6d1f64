"""Data sets of torchvision that are on disk (``torchvision:Flowers102``), read by torchvision's own classes."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ffcv_imagenet.data.sources.members import Members, arrange, check_classes, class_of_label
from ffcv_imagenet.data.sources.root import Root
from ffcv_imagenet.data.sources.source import Source
from ffcv_imagenet.names import shown

#: What torchvision may call our splits; the first that the data set has counts.
_SPLITS = {"train": ("train", "trainval"), "val": ("val", "valid", "test")}

#: Where its classes keep their labels.
_LABELS = ("targets", "_labels", "labels")


def open_dataset(name: str, root: Root, splits: Sequence[str]) -> dict[str, Source]:
    """The splits of ``torchvision.datasets.NAME``; ``val`` is torchvision's, or the test set where there is none.

    Images come as the pixels that torchvision gives, so that ``write.reencode=0`` keeps no file.

    Raises:
        ValueError: no such class, one without splits, or data that torchvision does not find.
    """
    import torchvision

    kind = getattr(torchvision.datasets, name, None)
    if not isinstance(kind, type) or not {"split", "train"} & set(inspect.signature(kind).parameters):
        raise ValueError(
            f"data.format: got torchvision:{name}, allowed is a class of torchvision.datasets with the argument split "
            "or train, such as torchvision:Flowers102"
        )
    sources: dict[str, Source] = {}
    for split in splits:
        dataset = _open(kind, root, split)
        labels = _labels(dataset)
        names = getattr(dataset, "classes", None)
        numbered = dict(enumerate(names)) if names else class_of_label(labels.tolist(), name)
        classes = [str(numbered[label]).replace("/", "-") for label in range(len(numbered))]
        sources[split] = arrange(
            f"torchvision:{name}",
            _Items(f"{root.path} ({name}, {split})", dataset),
            {called: np.flatnonzero(labels == label).tolist() for label, called in enumerate(classes)},
            "{:08}.ppm".format,
            place=f"{root.path} ({name}, {split})",
            name=name,
            classes=classes,
            content=hashlib.sha256(labels.tobytes()).hexdigest(),
        )
    check_classes(sources)
    return sources


def _open(kind: Any, root: Root, split: str) -> Any:
    parameters = inspect.signature(kind).parameters
    choices: list[dict[str, Any]] = [{"split": name} for name in _SPLITS[split]]
    if "split" not in parameters:
        choices = [{"train": split == "train"}]
    for choice in choices:
        try:
            return kind(str(root.path), download=False, **choice)
        except ValueError as error:  # it has no such split
            reason: Exception = error
        except Exception as error:  # what its classes raise where files are missing
            raise ValueError(f"{shown(root.path)}: torchvision: {' '.join(str(error).split())}") from None
    raise ValueError(f"{shown(root.path)}: torchvision: {' '.join(str(reason).split())}")


def _labels(dataset: Any) -> np.ndarray:
    """[N] int64, without reading images where the data set lets it."""
    for name in _LABELS:
        found = getattr(dataset, name, None)
        if found is not None and len(found) == len(dataset):
            return np.asarray(found, np.int64)
    return np.array([dataset[number][1] for number in range(len(dataset))], np.int64)


class _Items(Members):
    """The items of a data set, as PPM files."""

    def __init__(self, place: str, dataset: Any):
        self.place, self.damage, self._dataset = place, {}, dataset
        self.names = [f"item {number}" for number in range(len(dataset))]
        self.sizes = np.zeros(len(dataset), np.int64)  # not known before they are read

    def _read(self, number: int) -> bytes:
        try:
            image = self._dataset[number][0]
        except Exception as error:  # whatever Pillow raises on bad bytes
            raise ValueError(" ".join((str(error) or type(error).__name__).split())) from error
        if not isinstance(image, Image.Image):
            raise ValueError(f"is a {type(image).__name__}, allowed is an image of Pillow")
        rgb = image.convert("RGB")
        return f"P6 {rgb.width} {rgb.height} 255\n".encode() + rgb.tobytes()
