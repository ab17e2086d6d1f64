"""The package in a program of one's own: trained networks, and batches for another training loop.

``ffcv_imagenet.load`` and the others are imported from here when they are first used: ``import ffcv_imagenet`` alone
imports neither torch nor FFCV. ``docs/library.md`` has examples.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from ffcv_imagenet import native
from ffcv_imagenet.analysis.subject import load_subject
from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read.beton_file import BetonFile
from ffcv_imagenet.data.read.crops import center_crop
from ffcv_imagenet.data.read.decode_cpu import CenterCropDecoder, CropDecoder, RandomResizedCropDecoder
from ffcv_imagenet.data.read.loader_cpu import CPUBatchLoader
from ffcv_imagenet.data.read.orders import ShardedOrder, ShuffledOrder
from ffcv_imagenet.distributed import World
from ffcv_imagenet.imagenet import IMAGENET_CENTER_CROP
from ffcv_imagenet.options import Given

#: A path as users write it.
AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Transform:
    """From an image to a network's input, as the validation images of its run are prepared.

    Attributes:
        resolution: side of the input in pixels.
        crop_ratio: side of the square that is cut out of the centre, as a share of the shorter side.
        resize: the filter: triangle, area or bicubic.
        mean: of red, green and blue, in 0..1, which is subtracted.
        std: by which they are divided.
    """

    resolution: int
    crop_ratio: float
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image.Image | np.ndarray | AnyPath) -> Tensor:
        """The input ``[3, resolution, resolution] float32`` of one image.

        Args:
            image: of Pillow; or pixels [H, W, 3] uint8, RGB; or the path of a file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no image.
        """
        if isinstance(image, Image.Image):
            pixels = np.asarray(image.convert("RGB"))
        elif isinstance(image, np.ndarray):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(f"got pixels {list(image.shape)} {image.dtype}, allowed are [H, W, 3] uint8")
            pixels = image
        else:
            pixels = _read(Path(image))
        box = tuple(int(number) for number in center_crop(*pixels.shape[:2], self.crop_ratio))
        crop = native.resize_crop(pixels, box, (self.resolution, self.resolution), resize=self.resize)  # type: ignore[arg-type]
        batch = torch.from_numpy(crop).permute(2, 0, 1).unsqueeze(0)
        return Normalize(self.mean, self.std)(batch)[0]


def _read(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise ValueError(f"{file} is no image that can be read") from None


@dataclass(frozen=True)
class Network:
    """A trained network.

    Attributes:
        model: in evaluation mode, float32, on the device; from [B, 3, R, R] to logits [B, K].
        transform: from an image to its input.
        classes: of the labels 0 to K - 1, as their folders were called; None where nothing tells them.
        class_names: names that people use, where the data had such, else the same as ``classes``.
        source: where the weights come from, in words.
    """

    model: nn.Module
    transform: Transform
    classes: tuple[str, ...] | None
    class_names: tuple[str, ...] | None
    source: str


def load(place: AnyPath, *, arch: str | None = None, device: str | torch.device = "cpu") -> Network:
    """Load a run's newest checkpoint, one checkpoint, or another file of weights.

    What is loaded is what the run evaluates: the average of the weights where it has one.

    Args:
        place: a run's folder, or a file.
        arch: architecture of a file of weights that does not say it.
        device: for the model.

    Raises:
        FileNotFoundError: no such place, or a folder without checkpoint.
        ValueError: it cannot be used; says why.
    """
    path, world = Path(place), World(0, 1, 0, 1, _with_number(device))
    given = Given({} if arch is None else {"model.arch": arch}, {})
    subject = load_subject(path, given, world, is_run=path.is_dir())
    validation, data = subject.config.validation, subject.config.data
    transform = Transform(validation.resolution, validation.crop_ratio, data.resize, data.mean, data.std)
    classes, names = subject.class_names(), subject.class_names(of_people=True)
    return Network(
        subject.model.requires_grad_(),
        transform,
        None if classes is None else tuple(classes),
        None if names is None else tuple(names),
        subject.source,
    )


def train_loader(
    file: AnyPath,
    *,
    batch_size: int,
    seed: int = 0,
    min_crop_area: float = 0.08,
    flip: bool = True,
    resize: str = "triangle",
    device: str | torch.device = "cpu",
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> CPUBatchLoader:
    """Shuffled batches of random crops, decoded on the CPU.

    Args:
        file: a .beton file, with its manifest.
        batch_size: images of a batch of this process.
        seed: of order, crops and flips, which are a function of seed, epoch and image.
        min_crop_area: smallest crop as a share of the image's area.
        flip: mirror half of the images.
        resize: the filter: triangle (torchvision's bilinear), area (FFCV's) or bicubic.
        device: for the batches.
        num_workers: decoding threads (0: one per usable core).
        rank: this process, 0 to ``world_size`` - 1, each of which gets its part of every step's images.
        world_size: number of processes.

    Raises:
        FileNotFoundError: the file or its manifest is not there.
        ValueError: a damaged file, or fewer images than a step needs.
    """
    data = BetonFile.open(Path(file))
    order = ShuffledOrder(data.num_samples, seed, batch_size * world_size, rank, world_size)
    decoder = RandomResizedCropDecoder(8, seed=seed, min_area=min_crop_area, flip=flip, resize=resize)
    return _loader(data, decoder, order, batch_size, device, num_workers)


def val_loader(
    file: AnyPath,
    *,
    batch_size: int,
    crop_ratio: float = IMAGENET_CENTER_CROP,
    resize: str = "triangle",
    device: str | torch.device = "cpu",
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> CPUBatchLoader:
    """The centres of all images in the file's order, each once over all processes; the last batch may be smaller.

    Args:
        file, batch_size, resize, device, num_workers, rank, world_size: see :func:`train_loader`.
        crop_ratio: side of the square that is cut out, as a share of the shorter side.

    Raises:
        FileNotFoundError: the file or its manifest is not there.
        ValueError: a damaged file.
    """
    data = BetonFile.open(Path(file))
    order = ShardedOrder(data.num_samples, rank, world_size)
    return _loader(data, CenterCropDecoder(8, crop_ratio, resize=resize), order, batch_size, device, num_workers)


def _loader(
    data: BetonFile,
    decoder: CropDecoder,
    order: ShuffledOrder | ShardedOrder,
    batch_size: int,
    device: str | torch.device,
    num_workers: int,
) -> CPUBatchLoader:
    return CPUBatchLoader(
        data, decoder, order, batch_size=batch_size, device=_with_number(device), num_workers=num_workers
    )


def _with_number(device: str | torch.device) -> torch.device:
    device = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def manifest(file: AnyPath) -> Manifest:
    """What a .beton file holds: number of images, classes, names, how it was made.

    Raises:
        FileNotFoundError: the file or its manifest is not there.
        ValueError: the manifest is damaged or of another file.
    """
    return Manifest.read(Path(file))
