"""The training steps that are compared: the project's, with single techniques exchanged, and the published recipe's."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.data.read.loader import Batch
from ffcv_imagenet.distributed import World
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.models import BlurPoolConv2d, build_model
from ffcv_imagenet.optimizers import SGD
from ffcv_imagenet.train.evaluation import evaluate
from ffcv_imagenet.train.interruption import StopSignals
from ffcv_imagenet.train.loss_module import LossModule
from ffcv_imagenet.train.optim import parameter_groups
from ffcv_imagenet.train.precision import autocast, choose_precision
from ffcv_imagenet.train.step import choose_compile
from ffcv_imagenet.train.trainer import Trainer, TrainerOptions

CLASSES = 1000
MOMENTUM, WEIGHT_DECAY, SMOOTHING = 0.9, 1e-4, 0.1
#: Small, so that random labels do not make the loss infinite.
LR = 1e-3
VAL_SIDE = 256
#: Of the process, before a variant changes it.
THREADS = torch.get_num_threads()


@dataclass(frozen=True)
class Variant:
    """Techniques of the project's step; ``auto`` is what a training takes on the device."""

    compile: str = "auto"
    precision: str = "auto"
    channels_last: bool = True
    fused: bool = True
    cudnn_benchmark: bool = True
    blur: str = "project"
    padded_stem: bool = False
    ema: float = 0.0
    onednn: bool = True
    threads: int = 0  # 0: those of the process


#: One technique exchanged in each, for the table of what each one brings; first what is yet to be decided.
ABLATIONS = {
    "blur as sums of shifted images, not depthwise convolutions": Variant(blur="sums"),
    "images of 4 channels, the last one empty": Variant(padded_stem=True),
    "without torch.compile": Variant(compile="off"),
    "with CUDA graphs (reduce-overhead)": Variant(compile="reduce-overhead"),
    "fp16 and a scaler instead of bf16": Variant(precision="fp16"),
    "contiguous instead of channels_last": Variant(channels_last=False),
    "plain SGD instead of fused": Variant(fused=False),
    "without cudnn.benchmark": Variant(cudnn_benchmark=False),
    "blur of all pixels in front of 1x1 convolutions": Variant(blur="all pixels"),
    "with an average of the weights (ema 0.999)": Variant(ema=0.999),
}
#: The same on a CPU.
CPU_ABLATIONS = {
    "with torch.compile": Variant(compile="default"),
    "bf16 instead of fp32": Variant(precision="bf16"),
    "bf16, with torch.compile": Variant(precision="bf16", compile="default"),
    "without oneDNN": Variant(onednn=False),
    "one thread": Variant(threads=1),
    **{
        name: ABLATIONS[name]
        for name in (
            "contiguous instead of channels_last",
            "plain SGD instead of fused",
            "blur of all pixels in front of 1x1 convolutions",
            "with an average of the weights (ema 0.999)",
        )
    },
}


class DeviceBatches:
    """Two random batches that lie on the device, in turn, ``steps`` times: a loader that takes no time."""

    dtype = torch.uint8

    def __init__(self, steps: int, batch_size: int, device: torch.device, channels_last: bool = True):
        self.steps, self.batch_size, self.device, self.channels_last = steps, batch_size, device, channels_last
        self._made: tuple[int, list[Batch]] = (0, [])

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int, resolution: int, first_batch: int = 0) -> Iterator[Batch]:
        if self._made[0] != resolution:
            self._made = (resolution, [self._draw(resolution) for _ in range(2)])
        for number in range(first_batch, self.steps):
            yield self._made[1][number % 2]

    def _draw(self, side: int) -> Batch:
        images = torch.randint(256, (self.batch_size, side, side, 3), dtype=torch.uint8, device=self.device)
        images = images.permute(0, 3, 1, 2)
        labels = torch.randint(CLASSES, (self.batch_size,), device=self.device)
        return Batch(images if self.channels_last else images.contiguous(), labels, replaced=0)


class BlurSums(nn.Module):
    """What :class:`BlurPoolConv2d` does, written so that the compiler makes one pass of it, forward and backward: no
    depthwise convolution, whose backward pass is known to be slow on GPUs.

    All nine pixels at once: as a sum of rows and then of columns, what lies between them is written and read as well.
    """

    def __init__(self, module: BlurPoolConv2d):
        super().__init__()
        self.conv, self.stride = module.conv, 1 if module.reads_all else module.conv.stride[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        padded, blurred = nn.functional.pad(x, (1, 1, 1, 1)), 0.0
        for row, column in itertools.product(range(3), repeat=2):
            weight = (1, 2, 1)[row] * (1, 2, 1)[column] / 16
            shifted = padded[:, :, row : row + height : self.stride, column : column + width : self.stride]
            blurred = blurred + weight * shifted
        if self.stride == 1:
            return self.conv(blurred)
        return nn.functional.conv2d(blurred, self.conv.weight, self.conv.bias, groups=self.conv.groups)


class PaddedStem(nn.Conv2d):
    """A convolution of 3 channels, computed as one of 4, the last one empty: aligned loads for the tensor cores, and
    the compiler writes that channel together with the normalised images. The weights are those of 3 channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        empty = (0, 0, 0, 0, 0, 1)
        return nn.functional.conv2d(
            nn.functional.pad(x, empty), nn.functional.pad(self.weight, empty), self.bias, self.stride, self.padding
        )


def pad_stem(model: nn.Module) -> None:
    """Exchange a ResNet's first convolution; checkpoints fit as before."""
    old = model.conv1
    stem = PaddedStem(3, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
    stem.load_state_dict(old.state_dict())
    model.conv1 = stem.to(old.weight.dtype)


def change_blur(model: nn.Module, blur: str) -> None:
    """Exchange how ``model`` blurs: ``all pixels`` where there is a stride, or ``sums``; ``project`` does nothing."""
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if isinstance(module, BlurPoolConv2d):
                if blur == "all pixels":
                    module.reads_all = True
                elif blur == "sums":
                    setattr(parent, name, BlurSums(module))


class ProjectStep:
    """The project's own Trainer on batches that lie on the device, or on those of a loader."""

    def __init__(self, arch: str, variant: Variant, *, batch_size: int, steps: int, device: torch.device):
        self.variant = variant
        self.batches = DeviceBatches(steps, batch_size, device, variant.channels_last)
        torch.manual_seed(0)
        model = build_model(arch, CLASSES, blurpool=True)
        change_blur(model, variant.blur)
        if variant.padded_stem:
            pad_stem(model)
        model = model.to(device)
        if variant.channels_last:
            model = model.to(memory_format=torch.channels_last)
        self.trainer = Trainer(
            model=model,
            loss=LossModule(LOSSES.choose("label_smoothing", {"smoothing": SMOOTHING}), [1] * CLASSES, 1).to(device),
            normalize=Normalize().to(device),
            optimizer=SGD(momentum=MOMENTUM).make(parameter_groups(model, WEIGHT_DECAY))
            if variant.fused
            else plain_sgd(model),
            train_loader=self.batches,
            val_loader=DeviceBatches(steps, max(1, batch_size // 2), device, variant.channels_last),
            world=World(0, 1, 0, 1, device),
            stop=StopSignals(lambda number: number),
            options=TrainerOptions(
                epochs=8,  # as many shapes and types of images as are compiled for at most
                accumulation=1,
                precision=choose_precision(variant.precision, device),
                seed=0,
                lr=lambda epoch: LR,
                resolution=lambda epoch: 0,
                val_resolution=VAL_SIDE,
                flip_tta=True,
                top_k=5,
                show_progress=False,
                compile=choose_compile(variant.compile, device),
                ema=variant.ema,
            ),
        )

    def _choose_libraries(self) -> None:
        """Before anything runs: cuDNN keeps the plan that it used first for a convolution, searched for or not.

        What is not searched for has to be another convolution: whether TF32 is allowed is part of what plans are kept
        by, and is of no consequence to bf16.
        """
        torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = self.variant.cudnn_benchmark
        torch.backends.mkldnn.enabled = self.variant.onednn
        torch.set_num_threads(self.variant.threads or THREADS)

    def prepare(self, side: int, loader: Any = None) -> float:
        """Compile for images of ``side``, of the loader's type or uint8; returns the seconds."""
        self._choose_libraries()
        self.trainer.train_loader = self.batches if loader is None else loader
        self.trainer.options = dataclasses.replace(self.trainer.options, resolution=lambda epoch: side)
        return self.trainer.warm_up()

    def train(self, loader: Any = None) -> int:
        """Train on all batches of ``loader``, or on those on the device; returns the number of images."""
        self._choose_libraries()
        trainer = self.trainer
        trainer.train_loader = self.batches if loader is None else loader
        trainer.steps = len(trainer.train_loader)
        trainer.progress = trainer._new_epoch()
        trainer.train_epoch(0)
        return trainer.steps * trainer.train_loader.batch_size

    def evaluate(self) -> int:
        """Evaluate as after an epoch, with mirror images; returns the number of images."""
        self._choose_libraries()
        trainer = self.trainer
        return evaluate(
            trainer.evaluated_step,
            trainer.val_loader,
            resolution=VAL_SIDE,
            flip_tta=True,
            top_k=trainer.options.top_k,
            forward=trainer.evaluated_forward,
        ).images


class ReferenceStep:
    """The loop of libffcv/ffcv-imagenet (2022): eager, fp16 with a scaler, plain SGD, a list of losses, full blur."""

    def __init__(self, arch: str, *, batch_size: int, steps: int, device: torch.device):
        self.batches, self.device = DeviceBatches(steps, batch_size, device), device
        torch.manual_seed(0)
        model = build_model(arch, CLASSES, blurpool=True)
        change_blur(model, "all pixels")
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.normalize = Normalize().to(device)
        self.loss = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
        self.optimizer = plain_sgd(model)
        self.scaler = torch.amp.GradScaler(device.type)

    def train(self, side: int, batches: Any = None) -> int:
        """Train on ``batches`` of images uint8 and labels, or on those on the device; returns the number of images."""
        torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
        self.model.train()
        losses, count = [], 0
        for images, labels, *_ in self.batches.epoch(0, side) if batches is None else batches:
            for group in self.optimizer.param_groups:
                group["lr"] = LR
            self.optimizer.zero_grad(set_to_none=True)
            images = self.normalize(images).half()
            with autocast("fp16", self.device):
                loss = self.loss(self.model(images), labels.view(-1))
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            losses.append(loss.detach())
            count += len(images)
        return count


def plain_sgd(model: nn.Module) -> torch.optim.SGD:
    """SGD as of 2022: some kernels for every parameter."""
    groups = parameter_groups(model, WEIGHT_DECAY)
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, foreach=False, fused=False)
