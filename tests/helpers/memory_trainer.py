"""A trainer whose batches are drawn by a seed instead of decoded: for what does not depend on files."""

import shutil

import torch

from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.data.read.loader import Batch
from ffcv_imagenet.distributed import World
from ffcv_imagenet.optimizers import SGD
from ffcv_imagenet.run.checkpoint import CheckpointFolder
from ffcv_imagenet.train.interruption import StopSignals
from ffcv_imagenet.train.loss_module import LossModule
from ffcv_imagenet.train.optim import parameter_groups
from ffcv_imagenet.train.trainer import Trainer, TrainerOptions

CLASSES = 10
#: What losses for long-tailed sets are told; the batches drawn are balanced.
IMAGES_PER_CLASS = (500, 300, 200, 120, 70, 40, 25, 15, 9, 5)


def draw_batch(number, size, side):
    """Random images, uint8 and channels_last as a BatchLoader's, and labels; the same for the same number."""
    generator = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, generator=generator)
    return Batch(images.permute(0, 3, 1, 2), torch.randint(0, CLASSES, (size,), generator=generator), replaced=0)


class DrawnLoader:
    """Like a BatchLoader: ``batches`` batches per epoch, this rank's part of each; the last one may be smaller."""

    dtype, cpu_share = torch.uint8, 1.0

    def __init__(self, batches, batch_size, rank=0, ranks=1, last=None, device="cpu"):
        self.batches, self.batch_size, self.rank, self.ranks = batches, batch_size, rank, ranks
        self.last, self.device = last or batch_size, device
        self.num_samples = (batches - 1) * batch_size + self.last

    def __len__(self):
        return self.batches

    def epoch(self, epoch, resolution, first_batch=0):
        for number in range(first_batch, self.batches):
            size = self.last if number == self.batches - 1 else self.batch_size
            whole = draw_batch(1000 * epoch + number, size * self.ranks, resolution)
            images, labels = (part[self.rank * size :][:size].to(self.device) for part in whole[:2])
            yield Batch(images, labels, replaced=0)


class KeptCheckpoints(CheckpointFolder):
    """Keeps a copy ``kept_...`` of every checkpoint."""

    def save(self, *arguments, **options):
        file = super().save(*arguments, **options)
        shutil.copy(file, file.with_name(f"kept_{file.name}"))
        return file


def make_trainer(
    model,
    loss,
    *,
    batches,
    batch_size,
    momentum=0.9,
    weight_decay=5e-4,
    world=None,
    train_loader=None,
    augmentation=None,
    **options,
):
    world = world or World(0, 1, 0, 1, torch.device("cpu"))
    defaults = {
        "epochs": 2,
        "accumulation": 1,
        "precision": "fp32",
        "seed": 0,
        "lr": lambda epoch: 0.1,
        "resolution": lambda epoch: 32,
        "val_resolution": 32,
        "flip_tta": False,
        "top_k": 5,
        "show_progress": False,
    }
    options = TrainerOptions(**defaults | options)
    return Trainer(
        model=model.to(memory_format=torch.channels_last).to(world.device),
        loss=LossModule(loss, IMAGES_PER_CLASS, options.epochs).to(world.device),
        optimizer=SGD(momentum=momentum).make(parameter_groups(model, weight_decay)),
        train_loader=train_loader or DrawnLoader(batches, batch_size, world.rank, world.size, device=world.device),
        normalize=Normalize().to(world.device),
        val_loader=DrawnLoader(2, batch_size, last=batch_size // 2, device=world.device),
        world=world,
        stop=StopSignals(lambda number: number),
        augmentation=augmentation,
        options=options,
    )
