"""The data loaders that are compared, each set up as its users do.

All deliver batches of random-resized crops (area 8 to 100 %, ratio 3/4 to 4/3), half of them mirrored, as uint8. A
module of this folder imports a loader's package only inside its function: each runs in a process of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class DataSet:
    """The same JPEG files in every form that a contender reads."""

    folder: Path
    num_samples: int

    @property
    def images(self) -> Path:
        """An image folder, ``<class>/<image>.jpg``."""
        return self.folder / "images"

    @property
    def beton(self) -> Path:
        """A .beton file without an entry-point index beside it."""
        return self.folder / "plain" / "images.beton"

    @property
    def indexed_beton(self) -> Path:
        """The same file with its index."""
        return self.folder / "indexed" / "images.beton"

    @property
    def shards(self) -> list[Path]:
        """WebDataset's tar files."""
        return sorted((self.folder / "shards").glob("*.tar"))


class Settings(NamedTuple):
    """What is asked of a contender."""

    resolution: int
    batch_size: int
    num_workers: int


#: Gives the batches of an epoch: [B, S, S, 3] or [B, 3, S, S] uint8.
Epoch = Callable[[int], Iterable[Any]]


def project(beton: Path, num_samples: int, settings: Settings, *, quasi_random: bool = False) -> Epoch:
    """This project's loader; it uses the index that lies beside ``beton``."""
    import torch

    from ffcv_imagenet.data.read.beton_file import BetonFile
    from ffcv_imagenet.data.read.decode_cpu import RandomResizedCropDecoder
    from ffcv_imagenet.data.read.loader_cpu import CPUBatchLoader
    from ffcv_imagenet.data.read.orders import QuasiRandomOrder, ShuffledOrder

    order: ShuffledOrder = ShuffledOrder(num_samples, 0, settings.batch_size)
    if quasi_random:
        from ffcv_imagenet.loaders import READ_TOGETHER

        block = max(1, READ_TOGETHER * num_samples // beton.stat().st_size)
        order = QuasiRandomOrder(num_samples, 0, settings.batch_size, block=block)
    loader = CPUBatchLoader(
        BetonFile.open(beton),
        RandomResizedCropDecoder(settings.resolution, seed=0),
        order,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        device=torch.device("cpu"),
    )
    return lambda epoch: (batch.images for batch in loader.epoch(epoch, settings.resolution))


def project_without_index(data: DataSet, settings: Settings) -> Epoch:
    return project(data.beton, data.num_samples, settings)


def project_with_index(data: DataSet, settings: Settings) -> Epoch:
    return project(data.indexed_beton, data.num_samples, settings)


def stock_ffcv(data: DataSet, settings: Settings, *, quasi_random: bool = False) -> Epoch:
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor, ToTorchImage

    size = (settings.resolution, settings.resolution)
    decoder = RandomResizedCropRGBImageDecoder(size, scale=SCALE, ratio=RATIO)
    loader = Loader(
        str(data.beton),
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        order=OrderOption.QUASI_RANDOM if quasi_random else OrderOption.RANDOM,
        os_cache=not quasi_random,  # FFCV's quasi-random order needs its own cache; a mapped file is its default
        pipelines={"image": [decoder, RandomHorizontalFlip(), ToTensor(), ToTorchImage()]},
    )
    return lambda epoch: (images for images, _ in loader)


def dali(data: DataSet, settings: Settings) -> Epoch:
    import numpy as np
    from nvidia.dali import fn, pipeline_def, types

    batches_ahead = 2

    @pipeline_def(
        batch_size=settings.batch_size,
        num_threads=settings.num_workers,
        device_id=None,
        prefetch_queue_depth=batches_ahead,
    )
    def crops() -> Any:
        jpegs, _ = fn.readers.file(file_root=str(data.images), random_shuffle=True)
        images = fn.decoders.image_random_crop(
            jpegs, device="cpu", output_type=types.RGB, random_area=SCALE, random_aspect_ratio=RATIO
        )
        images = fn.resize(images, size=(settings.resolution, settings.resolution))
        return fn.flip(images, horizontal=fn.random.coin_flip())

    pipeline = crops()
    pipeline.build()
    steps = data.num_samples // settings.batch_size

    def batches(epoch: int) -> Iterator[Any]:
        # Not run(), which begins with the next epoch before it is asked for, outside of the time that is measured.
        for step in range(steps + batches_ahead):
            if step >= batches_ahead:
                (images,) = pipeline.share_outputs()
                yield np.asarray(images.as_tensor())
                pipeline.release_outputs()
            if step < steps:
                pipeline.schedule_run()

    return batches


def torchvision(data: DataSet, settings: Settings) -> Epoch:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomResizedCrop(settings.resolution, scale=SCALE, ratio=RATIO, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(data.images), transform),
        batch_size=settings.batch_size,
        shuffle=True,
        num_workers=settings.num_workers,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    return lambda epoch: (images for images, _ in loader)


def webdataset(data: DataSet, settings: Settings) -> Epoch:
    import cv2
    import numpy as np
    import torch
    import webdataset as wds
    from torch.utils.data import default_collate
    from torchvision.transforms import v2

    cv2.setNumThreads(0)
    size = (settings.resolution, settings.resolution)

    def crop(jpeg: bytes) -> Any:
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        shape_only = torch.empty((3, *image.shape[:2]), device="meta")
        top, left, height, width = v2.RandomResizedCrop.get_params(shape_only, SCALE, RATIO)
        image = cv2.resize(image[top : top + height, left : left + width], size, interpolation=cv2.INTER_AREA)
        if random.random() < 0.5:
            image = cv2.flip(image, 1)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    shards = [str(shard) for shard in data.shards]
    samples = wds.WebDataset(shards, shardshuffle=len(shards)).shuffle(1000).to_tuple("jpg", "cls")
    dataset = samples.map_tuple(crop, int).batched(settings.batch_size, collation_fn=default_collate)
    loader = wds.WebLoader(
        dataset,
        batch_size=None,
        num_workers=settings.num_workers,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    return lambda epoch: (images for images, _ in loader)


class Contender(NamedTuple):
    """A loader in the comparison: its name in the tables, the module that it needs, and how it is set up."""

    title: str
    module: str
    build: Callable[[DataSet, Settings], Epoch]

    def is_installed(self) -> bool:
        try:
            return find_spec(self.module) is not None
        except ModuleNotFoundError:  # the package around the module is missing
            return False


CONTENDERS = {
    "project": Contender("ffcv_imagenet", "ffcv_imagenet", project_without_index),
    "project-index": Contender("ffcv_imagenet + index", "ffcv_imagenet", project_with_index),
    "ffcv": Contender("FFCV", "ffcv", stock_ffcv),
    "dali": Contender("DALI (CPU, fused random crop)", "nvidia.dali", dali),
    "torchvision": Contender("torchvision DataLoader (PIL)", "torchvision", torchvision),
    "webdataset": Contender("WebDataset (OpenCV)", "webdataset", webdataset),
}
