"""What a start settles once, before anything is built: both manifests, the number format, the machine's share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch._inductor.config

from ffcv_imagenet import limits
from ffcv_imagenet.augment.augmentation import Augmentation
from ffcv_imagenet.augment.draws import Purpose
from ffcv_imagenet.augment.erasing import Erasing
from ffcv_imagenet.augment.mixing import Mixing
from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.augment.policies import Policy
from ffcv_imagenet.augment.policies.shift import RandomShift
from ffcv_imagenet.augment.policies.sometimes import ColorJitter, Sometimes
from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read.crop_kinds import Padded
from ffcv_imagenet.data.read.decode_gpu import choose_decoder
from ffcv_imagenet.distributed import World
from ffcv_imagenet.manifests import read_manifests
from ffcv_imagenet.models import check_model, check_normalised_batch
from ffcv_imagenet.train.precision import choose_precision
from ffcv_imagenet.train.step import choose_compile


@dataclass(frozen=True)
class Resolved:
    """A configuration on this machine: every ``auto`` decided, every manifest read.

    Attributes:
        config: all options.
        world: this process among all.
        train_data: manifest of the training images; None where nothing is trained.
        val_data: manifest of the validation images.
        precision: bf16, fp16 or fp32.
        compile: off or one of :data:`~ffcv_imagenet.train.step.COMPILE_MODES`.
        cores: this process's share of the usable cores.
        train_decoder: cpu or gpu.
        val_decoder: cpu or gpu.
    """

    config: TrainConfig
    world: World
    train_data: Manifest | None
    val_data: Manifest
    precision: str
    compile: str
    cores: int
    train_decoder: str
    val_decoder: str

    @property
    def decoding_cores(self) -> int:
        """Of those, a loader's, unless ``data.num_workers`` says so: with a GPU all but two, which are left to the
        thread that starts the kernels of the forward pass, and to autograd's, which starts those of the backward."""
        return max(1, self.cores - (2 if self.world.device.type == "cuda" else 0))

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self.val_data.num_classes

    @property
    def top_k(self) -> int:
        """The k of the score top-k."""
        return min(self.config.validation.top_k, self.num_classes)

    def make_normalize(self) -> Normalize:
        """From uint8 images to the model's input, on the CPU."""
        return Normalize(self.config.data.mean, self.config.data.std)

    def make_augmentation(self) -> Augmentation | None:
        """What is done to the training batches, on the training device; None where there is nothing to do."""
        options, training = self.config.augment, self.config.training
        if not self.config.augments:
            return None
        policies: dict[Purpose, Policy] = (
            {Purpose.POLICY: self.config.make_policy()} if options.policy != "none" else {}
        )
        match self.config.make_crop():
            case Padded(padding):
                policies = {Purpose.SHIFT: RandomShift(padding)} | policies
        if any(options.color_jitter):
            policies[Purpose.JITTER] = ColorJitter(options.color_jitter, options.color_jitter_prob)  # type: ignore[arg-type]
        for purpose, policy in (
            (Purpose.GRAYSCALE, Sometimes("saturation", options.grayscale_prob)),
            (Purpose.BLUR, Sometimes("gaussian_blur", options.gaussian_blur_prob, 0.1, 2.0)),
            (Purpose.SOLARIZE, Sometimes("solarize", options.solarize_prob, 128, 128)),
        ):
            if policy.prob:
                policies[purpose] = policy
        erasing = Erasing(options.erasing, options.erasing_mode, options.erasing_count, training.seed)
        mixing = Mixing(
            mixup=options.mixup,
            cutmix=options.cutmix,
            prob=options.mix_prob,
            switch=options.mix_switch,
            first_unmixed=training.epochs - options.mix_off_epochs,
            seed=training.seed,
        )
        return Augmentation(
            policies=policies,
            erasing=erasing if options.erasing else None,
            normalize=self.make_normalize().to(self.world.device),
            mixing=mixing if options.mixes else None,
            seed=training.seed,
            mean=self.config.data.mean,
            device=self.world.device,
        )

    def set_up_torch(self) -> None:
        """Make torch's settings for the whole process those of this start."""
        if self.world.device.type == "cpu":
            # torchrun has made it 1.
            torch.set_num_threads(self.config.dist.cpu_threads or self.cores)
        # TF32 for what autocast leaves in float32; training.precision=fp32 means float32.
        exact = self.precision == "fp32"
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact
        torch.backends.cudnn.benchmark = True
        if "TORCHINDUCTOR_COMPILE_THREADS" not in os.environ:
            # All processes of a machine compile at the same time, each with as many others as there are cores.
            torch._inductor.config.compile_threads = min(32, self.cores)


def resolve(config: TrainConfig, world: World) -> Resolved:
    """Resolve ``config`` for this process, and check it against the data and the model.

    Raises:
        ValueError, FileNotFoundError: a user's mistake.
    """
    train_data, val_data = read_manifests(config, show_warnings=world.is_main)
    sides = {config.validation.resolution} if train_data is None else config.extreme_sides()
    arch, num_classes, loss = config.model.arch, val_data.num_classes, config.make_loss()
    check_model(
        arch,
        num_classes,
        sides,
        feature_map=loss.reads_local_classes and train_data is not None,
        linear_head=loss.cosine_scale is not None,
        **config.model.network(),
    )
    if train_data is not None:
        check_normalised_batch(
            arch,
            num_classes,
            config.resolution.min_res,
            config.normalised_batch(world.size),
            **config.model.network(),
        )
    cores = max(1, limits.cores().usable // world.local_size)

    def decoder(file: str | None, repeats: int = 1) -> str:
        if file is None or repeats > 1:  # The GPU's loader knows no copies.
            return "cpu"
        return choose_decoder(config.data.decode, Path(file), world.device, cores)

    return Resolved(
        config=config,
        world=world,
        train_data=train_data,
        val_data=val_data,
        precision=choose_precision(config.training.precision, world.device),
        compile=choose_compile(
            config.training.compile, world.device, sync_bn=config.dist.sync_bn, processes=world.size
        ),
        cores=cores,
        train_decoder=decoder(config.data.train, config.data.repeats),
        val_decoder=decoder(config.data.val),
    )
