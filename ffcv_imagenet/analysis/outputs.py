"""One pass over the images of a file: features and logits batch by batch, of which only what is needed is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ffcv_imagenet.analysis.measurement import DataSet, Need
from ffcv_imagenet.analysis.subject import Subject
from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.distributed import gather, sum_over_ranks
from ffcv_imagenet.loaders import make_val_loader
from ffcv_imagenet.models import find_head
from ffcv_imagenet.progress import Progress
from ffcv_imagenet.train.precision import autocast


class Images(NamedTuple):
    """``numbers [B]`` of samples, ``images [B, 3, H, W]`` uint8 or normalised, ``labels [B]`` int64 on the device."""

    numbers: np.ndarray
    images: Tensor
    labels: Tensor


class Outputs(NamedTuple):
    """Of a batch: ``numbers [B]``, ``labels [B]`` int64, ``features [B, D]`` and ``logits [B, K]`` float32."""

    numbers: np.ndarray
    labels: Tensor
    features: Tensor
    logits: Tensor


class Collector(Protocol):
    """Keeps what is needed of a pass."""

    def add(self, batch: Outputs) -> None:
        """Take a batch of this rank."""

    def finish(self) -> None:
        """Join what the ranks have; called on every rank."""


@dataclass
class Rows:
    """Rows in the order of the samples' numbers: ``numbers [N]``, ``labels [N]`` int64, ``values [N, C]`` float32."""

    numbers: np.ndarray
    labels: np.ndarray
    values: np.ndarray


class KeptRows:
    """The logits or the features of every image, or of the images of some classes. :attr:`rows` has them at the end."""

    rows: Rows

    def __init__(self, what: str, classes: Sequence[int] | None = None):
        self.what, self.classes = what, classes
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, batch: Outputs) -> None:
        """See :class:`Collector`."""
        labels, values = batch.labels.cpu().numpy(), getattr(batch, self.what)
        numbers = batch.numbers
        if self.classes is not None:
            wanted = np.isin(labels, self.classes)
            numbers, labels, values = numbers[wanted], labels[wanted], values[torch.from_numpy(wanted)]
        self._parts.append((numbers, labels.copy(), values.cpu().numpy().copy()))

    def finish(self) -> None:
        """See :class:`Collector`."""
        parts = [part for rank in gather(self._parts) for part in rank]
        numbers, labels, values = (np.concatenate([part[i] for part in parts]) for i in range(3))
        order = np.argsort(numbers, kind="stable")
        self.rows = Rows(numbers[order], labels[order], values[order])
        self._parts = []


class ClassSums:
    """Per class, the number of images and the sum of their features of length 1, in float64: memory K x D.

    Images whose features are all 0 have no direction: they are counted in ``zeros`` and left out.
    """

    def __init__(self, num_classes: int, width: int, device: torch.device | str = "cpu"):
        self.sums = torch.zeros(num_classes, width, dtype=torch.float64, device=device)
        self.counts = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.zeros = torch.zeros(1, dtype=torch.float64, device=device)

    def add(self, batch: Outputs) -> None:
        """See :class:`Collector`."""
        features = batch.features.double()
        # The largest entry first: squares of very small or very large numbers are not numbers any more.
        scale = features.abs().amax(dim=1, keepdim=True)
        zero = scale[:, 0] == 0
        features = features / torch.where(scale == 0, 1, scale)
        unit = features / torch.where(scale == 0, 1, torch.linalg.vector_norm(features, dim=1, keepdim=True))
        self.sums.index_add_(0, batch.labels, unit)
        self.counts.index_add_(0, batch.labels, (~zero).double())
        self.zeros += zero.sum()

    def finish(self) -> None:
        """See :class:`Collector`."""
        for tensor in (self.sums, self.counts, self.zeros):
            sum_over_ranks(tensor)


#: What a measurement may need of a pass.
COLLECTORS = ("logits", "features", "class_sums")


def observe(subject: Subject, data: DataSet, needs: Sequence[Need]) -> dict[Need, Collector]:
    """Pass all images of ``data`` through the network once, and keep what is needed; the same call on every rank.

    Raises:
        ValueError: a damaged image.
    """
    collectors: dict[Need, Collector] = {}
    for need in needs:
        if need.kind == "class_sums":
            width = find_head(subject.model, subject.num_classes).weight.shape[1]
            collectors[need] = ClassSums(data.manifest.num_classes, width, subject.world.device)
        else:
            collectors[need] = KeptRows(need.kind, need.classes)
    collect(subject, read_images(subject, data.path), collectors, total=data.manifest.num_samples, what=data.path.name)
    return collectors


def collect(
    subject: Subject, batches: Iterable[Images], collectors: Mapping[Need, Collector], *, total: int, what: str
) -> None:
    """Pass batches (this rank's part) through the network, and give the outputs to ``collectors``."""
    with Progress(f"{subject.name}: {what}", total, "images", hidden=not subject.world.is_main) as progress:
        for batch in outputs(subject, batches):
            for collector in collectors.values():
                collector.add(batch)
            progress.update(len(batch.numbers) * subject.world.size)
    for collector in collectors.values():
        collector.finish()


class ImageReader:
    """This rank's part of the images in a .beton file, as the subject's run validates; as often as one likes.

    A batch holds until the next one is read. ``cores`` are this process's for what it does with images on the CPU.
    ``crop_ratio`` is in place of the run's validation.crop_ratio.
    """

    def __init__(self, subject: Subject, data: Path, *, crop_ratio: float | None = None):
        start = subject.start(data, crop_ratio)
        start.set_up_torch()
        self.cores = start.decoding_cores
        self._loader, self._side = make_val_loader(start), subject.config.validation.resolution

    def __iter__(self) -> Iterator[Images]:
        numbers = self._loader.order.sample_order(0)
        done = 0
        for batch in self._loader.epoch(0, self._side):
            yield Images(numbers[done : done + len(batch.labels)], batch.images, batch.labels)
            done += len(batch.labels)


def read_images(subject: Subject, data: Path) -> Iterator[Images]:
    """One pass of an :class:`ImageReader`."""
    return iter(ImageReader(subject, data))


@torch.no_grad()
def outputs(subject: Subject, batches: Iterable[Images]) -> Iterator[Outputs]:
    """The outputs of batches; features are the input of the last linear layer, [B, 0] where there is none.

    Raises:
        ValueError: logits or features are not finite.
    """
    model, device = subject.model, subject.world.device
    normalize = Normalize(subject.config.data.mean, subject.config.data.std).to(device)
    try:
        head: nn.Module | None = find_head(model, subject.num_classes)
    except ValueError:
        head = None
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) if head else None
    try:
        for numbers, images, labels in batches:
            seen.clear()
            with autocast(subject.config.training.precision, device):
                logits = model(normalize(images))
            features = seen[0].flatten(1).float() if len(seen) == 1 else logits.new_zeros((len(logits), 0)).float()
            finite = logits.isfinite().all() & features.isfinite().all()
            if not finite:
                raise ValueError(
                    f"{subject.source}: logits or features of samples {numbers[0]} to {numbers[-1]} are not finite "
                    f"(--training.precision=fp32 is the most exact)"
                )
            yield Outputs(numbers, labels, features, logits.float())
    finally:
        if handle is not None:
            handle.remove()
