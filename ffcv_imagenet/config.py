"""All options of the two entry scripts, with their defaults, ranges and the checks that involve several of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ffcv_imagenet.augment.policies import POLICIES, Policy
from ffcv_imagenet.data.read.crop_kinds import CROPS, Crop
from ffcv_imagenet.data.sources.formats import FORMATS, TORCHVISION
from ffcv_imagenet.data.write.modes import MODES
from ffcv_imagenet.imagenet import IMAGENET_CENTER_CROP, IMAGENET_MEAN, IMAGENET_STD, IMAGENET_TOP_K
from ffcv_imagenet.losses import LOSSES, Loss
from ffcv_imagenet.optimizers import OPTIMIZERS, Optimizer
from ffcv_imagenet.options import (
    Choice,
    Effect,
    Integer,
    Numbers,
    OptionsError,
    OrNone,
    Real,
    Switch,
    Text,
    VariantName,
    Words,
    group,
    option,
    options_of,
    variant_options,
)
from ffcv_imagenet.schedules import SCHEDULES, make_lr_schedule, ramp, resolution_at
from ffcv_imagenet.train.compile_modes import COMPILE_MODES

#: What changing an option of TrainConfig means; each of them says which. It decides what is learned:
LEARNING = Effect(resumable=False, averaged=False)
#: It only tells repetitions apart.
SEED = Effect(resumable=False, averaged=True, shown=False)
#: It decides how something is computed, which may change the rounding or what becomes of faults. What it leads to (the
#: precision, the size of a micro-batch) is compared instead when a run continues.
COMPUTING = Effect(resumable=True, averaged=False)
#: It says where and how fast a run executes; the data are compared by their checksums.
RUNNING = Effect(resumable=True, averaged=True)
#: It decides what is scored besides top-1 and the cross entropy, on which nothing depends.
SCORING = Effect(resumable=False, averaged=True)
#: It says what is kept of a run.
KEEPING = Effect(resumable=True, averaged=True, shown=False)


class DataFormat(Choice):
    """A format of :data:`FORMATS`, or a class of torchvision that reads it."""

    def check(self, value: Any) -> str:
        """Return ``value``; raises ValueError when it is neither."""
        text = str(value)
        is_class = text.startswith(TORCHVISION) and text.removeprefix(TORCHVISION).isidentifier()
        return text if is_class else super().check(value)

    def help(self) -> str:
        """What is allowed."""
        return f"{super().help()} | {TORCHVISION}CLASS"


@dataclass(frozen=True)
class WriteDataOptions:
    """Where the images are."""

    root: str = option(Text(), "folder with train/ and val/, or a data set as it is downloaded (docs/data.md has all)")
    format: str = option(
        DataFormat("auto", *FORMATS), "what data.root is; auto looks, and stops where it may be two of them", "auto"
    )
    class_names: str | None = option(
        OrNone(Text()),
        "file of names that people use, for the manifest: a line for each class, 'n01440764 tench' or 'tench'",
        None,
    )
    class_order: str | None = option(
        OrNone(Choice("name", "map")),
        "order of the labels where zip has map files: by the classes' names, or as the maps number them (none: name)",
        None,
    )


@dataclass(frozen=True)
class WriteOutOptions:
    """Where the .beton files go."""

    dir: str = option(Text(), "folder for train.beton and val.beton")


@dataclass(frozen=True)
class WriteOptions:
    """How the images are stored."""

    splits: tuple[str, ...] = option(Words("train", "val"), "splits to write", ("train", "val"))
    preset: str | None = option(
        OrNone(Choice("rn50", "rn18", "cifar", "cifar_lt", "imagenette")),
        "a published data set; single options override it",
        None,
    )
    mode: str | None = option(OrNone(VariantName(MODES)), "storage (none: the preset's, else jpg)", None)
    of_mode: Mapping[str, Any] = variant_options(MODES)
    max_resolution: int | None = option(
        OrNone(Integer(1, 65535)), "longest side in pixels, larger images are shrunk", None
    )
    resize: str | None = option(
        OrNone(Choice("triangle", "area", "bicubic")), "filter that shrinks them (none: area, which is FFCV's)", None
    )
    num_workers: int = option(Integer(0, 1024), "encoding threads (0: one per usable core)", 0)
    subset: int = option(Integer(-1), "write only this many images, drawn by the seed (-1: all)", -1)
    classes: str | None = option(
        OrNone(Text()), "write only the first so many classes, or those that a text file names, one a line", None
    )
    per_class: int | None = option(
        OrNone(Integer(1)), "write at most so many images of each class, drawn by the seed", None
    )
    imbalance: str | None = option(
        OrNone(Text()),
        "long-tailed training images, exp:RATIO or step:RATIO (exp:100 of CIFAR-10: 5000 to 50 images, as published)",
        None,
    )
    shuffle: bool = option(Switch(), "store the images in a random order drawn by the seed", False)
    seed: int = option(Integer(0), "seed of the compressed share, the subset and the shuffle", 0)
    page_size_mib: int = option(Integer(2, 2048), "FFCV page size in MiB, a power of 2; no image may be larger", 8)
    max_pixels: int | None = option(
        OrNone(Integer(1)),
        "images with more pixels are refused before they are decoded (none: 178956970, as Pillow does)",
        None,
    )
    overwrite: bool = option(Switch(), "replace files that are already there", False)
    on_error: str = option(
        Choice("fail", "skip"),
        "a file that cannot be stored: fail stops and names it, skip leaves it out and lists it",
        "fail",
    )


@dataclass(frozen=True)
class WriteConfig:
    """Configuration of ``python -m ffcv_imagenet.write``."""

    data: WriteDataOptions = group(WriteDataOptions)
    out: WriteOutOptions = group(WriteOutOptions)
    write: WriteOptions = group(WriteOptions)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Training and validation images."""

    train: str | None = option(
        OrNone(Text()), "training .beton file (none is allowed with training.eval_only=1)", None, RUNNING
    )
    subset: str | None = option(
        OrNone(Text()),
        "train on part of data.train: a text file with the samples' numbers, one a line, or an .npy file (none: all)",
        None,
        RUNNING,
    )
    val: str | None = option(
        OrNone(Text()), "validation .beton file (training.eval_only=1: none for that of the run)", None, RUNNING
    )
    order: str = option(
        Choice("random", "quasi_random"),
        "order of the training images; quasi_random reads large pieces, for files larger than the memory",
        "random",
        LEARNING,
    )
    repeats: int = option(
        Integer(1, 16),
        "repeated augmentation: how often an image is in a batch, each time with another crop and augmentation; an "
        "epoch has as many steps as without, and sees that much fewer images",
        1,
        LEARNING,
    )
    on_error: str = option(
        Choice("fail", "skip"),
        "damaged image: stop, or skip (training: another one of the batch replaces it; validation: it does not count)",
        "fail",
        COMPUTING,
    )
    on_wrong_split: str = option(
        Choice("fail", "warn"),
        "what to do when data.train is no training split, data.val no validation split, or both are the same images",
        "fail",
        RUNNING,
    )
    decode: str = option(
        Choice("cpu", "gpu", "auto"),
        "where images are decoded, to the same pixels; gpu needs FILE.beton.mcu; auto: gpu where cores are few",
        "cpu",
        RUNNING,
    )
    num_workers: int = option(
        Integer(0, 1024),
        "decoding threads on the CPU per process (0: its share of the usable cores, less two where there is a GPU)",
        0,
        RUNNING,
    )
    resize: str = option(
        Choice("triangle", "area", "bicubic"),
        "filter for training and validation crops: torchvision's bilinear, FFCV's area, torchvision's bicubic",
        "triangle",
        LEARNING,
    )
    crop: str = option(
        VariantName(CROPS),
        "training crops: of random area and aspect ratio, a square of constant size, a part of the whole squashed to a "
        "square, or the whole moved by a few pixels",
        "random_resized",
        LEARNING,
    )
    of_crop: Mapping[str, Any] = variant_options(CROPS)
    flip: bool = option(
        Switch(), "mirror half of the training images (off where mirroring changes the class)", True, LEARNING
    )
    mean: tuple[float, ...] = option(
        Numbers(3, 0, 1), "mean of red, green and blue that is subtracted from images in 0..1", IMAGENET_MEAN, LEARNING
    )
    std: tuple[float, ...] = option(
        Numbers(3, 0.001, 1),
        "standard deviation of red, green and blue by which they are divided",
        IMAGENET_STD,
        LEARNING,
    )


@dataclass(frozen=True)
class AugmentOptions:
    """What happens to the training images after their crop and flip, on the training device."""

    policy: str = option(VariantName(POLICIES), "operations on each image", "none", LEARNING)
    of_policy: Mapping[str, Any] = variant_options(POLICIES)
    color_jitter: tuple[float, ...] = option(
        Numbers(4, 0, 1),
        "most by which brightness, contrast, saturation and hue change, such as 0.3,0.3,0.3,0 (hue: at most 0.5)",
        (0.0, 0.0, 0.0, 0.0),
        LEARNING,
    )
    color_jitter_prob: float = option(Real(0, 1), "share of the images with color_jitter", 1.0, LEARNING)
    grayscale_prob: float = option(Real(0, 1), "share of the images made grey", 0.0, LEARNING)
    gaussian_blur_prob: float = option(
        Real(0, 1), "share of the images blurred, by a Gaussian of 0.1 to 2 pixels", 0.0, LEARNING
    )
    solarize_prob: float = option(Real(0, 1), "share of the images with levels from 128 on inverted", 0.0, LEARNING)
    erasing: float = option(Real(0, 1), "share of the images in which a box is erased", 0.0, LEARNING)
    erasing_mode: str = option(
        Choice("pixel", "const", "rand"),
        "what is there instead: noise in each pixel, the mean colour, or one random colour",
        "pixel",
        LEARNING,
    )
    erasing_count: int = option(Integer(1, 16), "boxes in such an image, which share its area", 1, LEARNING)
    mixup: float = option(
        Real(0), "mix pairs of images, and their labels, by a share from Beta(mixup, mixup) (0: don't)", 0.0, LEARNING
    )
    cutmix: float = option(
        Real(0),
        "paste a box of one image into the other, of an area from Beta(cutmix, cutmix) (0: don't)",
        0.0,
        LEARNING,
    )
    mix_prob: float = option(Real(0, 1), "share of the steps that are mixed, by mixup or cutmix", 1.0, LEARNING)
    mix_switch: float = option(Real(0, 1), "with both, the share of the mixed steps that cutmix has", 0.5, LEARNING)
    mix_off_epochs: int = option(Integer(0), "epochs at the end in which nothing is mixed", 0, LEARNING)

    @property
    def mixes(self) -> bool:
        """Whether images are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        shares = (self.grayscale_prob, self.gaussian_blur_prob, self.solarize_prob, self.erasing, *self.color_jitter)
        return self.mixes or self.policy != "none" or any(shares)


@dataclass(frozen=True)
class ModelOptions:
    """The network."""

    arch: str = option(
        Text(),
        "a torchvision classification model, timm/NAME for one of timm's, cifar_resnet9 | 18 | 20 | 32 | 44 | 50 | 56 "
        "| 110 for images of 32 pixels, resnet10, or package.module:name",
        "resnet18",
        LEARNING,
    )
    blurpool: bool = option(
        Switch(), "blur before convolutions with stride > 1 and >= 16 input channels", False, LEARNING
    )
    drop_path: float = option(
        Real(0, 0.99),
        "probability with which the last residual branch is left out, growing with the depth (0: the network's own)",
        0.0,
        LEARNING,
    )
    image_size: int | None = option(
        OrNone(Integer(1)), "side of the images for a network that is made for one (none: its own)", None, LEARNING
    )
    weights: str | None = option(
        OrNone(Text()), "start from these weights (a state dict, a checkpoint or a run folder)", None, LEARNING
    )
    head: str = option(
        Choice("same", "new"), "of model.weights, take the output layer too, or begin with a new one", "same", LEARNING
    )
    average: bool = option(
        Switch(),
        "of model.weights from another program, take the average of the weights that it kept (model_ema)",
        False,
        LEARNING,
    )
    class_order: str | None = option(
        OrNone(Text()),
        "the classes in the order that model.weights have them: a file with a name per line, or a map PATH<tab>LABEL",
        None,
        LEARNING,
    )
    positions: str = option(
        Choice("same", "resize"),
        "position embeddings of model.weights that are for images of another size: refuse or resize them (bicubic)",
        "same",
        LEARNING,
    )
    frozen: str | None = option(
        OrNone(Text()),
        "parts of the network that stay as they are, by the names of its modules, such as conv1,bn1,layer1",
        None,
        LEARNING,
    )

    def __post_init__(self) -> None:
        """Raise ValueError for what is said of weights that are not there."""
        if self.weights is None:
            for key, default in (("head", "same"), ("average", False), ("class_order", None), ("positions", "same")):
                if getattr(self, key) != default:
                    raise ValueError(
                        f"model.{key}: got {getattr(self, key)}, allowed without model.weights is {default or 'none'}"
                    )
        if self.head == "new" and self.class_order is not None:
            raise ValueError("model.class_order: got a file, allowed with model.head=new is none")

    def network(self) -> dict[str, Any]:
        """Options of :func:`~ffcv_imagenet.models.build_model` that go with ``arch``."""
        return {"drop_path": self.drop_path, "image_size": self.image_size}


@dataclass(frozen=True)
class ResolutionOptions:
    """Side of the training images in pixels: min_res up to start_ramp, max_res from end_ramp, in steps of 32."""

    min_res: int = option(Integer(8, 4096), "at the start", 160, LEARNING)
    max_res: int = option(Integer(8, 4096), "at the end", 160, LEARNING)
    start_ramp: int | None = option(
        OrNone(Integer(0)), "epoch up to which min_res holds (none: 70 % of the way to the last epoch)", None, LEARNING
    )
    end_ramp: int | None = option(
        OrNone(Integer(0)), "epoch from which max_res holds (none: 85 % of the way to the last epoch)", None, LEARNING
    )


@dataclass(frozen=True)
class LrOptions:
    """Learning rate, evaluated at every step."""

    lr: float = option(Real(0), "peak rate for a global batch of lr.base_batch", 0.5, LEARNING)
    base_batch: int = option(
        Integer(1), "the batch for which lr.lr holds; the rate scales with the batch", 1024, LEARNING
    )
    schedule: str = option(VariantName(SCHEDULES), "shape over the epochs", "piecewise", LEARNING)
    of_schedule: Mapping[str, Any] = variant_options(SCHEDULES)


@dataclass(frozen=True)
class LossOptions:
    """The training loss."""

    name: str = option(VariantName(LOSSES), "which loss", "baseline", LEARNING)
    of_loss: Mapping[str, Any] = variant_options(LOSSES)


@dataclass(frozen=True)
class TrainingOptions:
    """Length, batch, optimizer and precision."""

    epochs: int = option(Integer(1, 100_000), "number of epochs", 16, LEARNING)
    max_steps: int | None = option(
        OrNone(Integer(1)),
        "smoke test: end after so many steps of this training, with an evaluation; the report keeps such runs apart",
        None,
        LEARNING,
    )
    batch_size: int = option(Integer(1), "global batch: images per optimizer step over all processes", 1024, LEARNING)
    accumulation: int = option(
        Integer(1),
        "parts in which a process computes its share of a batch, for one that does not fit into memory",
        1,
        COMPUTING,
    )
    optimizer: str = option(VariantName(OPTIMIZERS), "which optimizer", "sgd", LEARNING)
    of_optimizer: Mapping[str, Any] = variant_options(OPTIMIZERS)
    weight_decay: float = option(Real(0), "weight decay; training.decay says of what", 5e-5, LEARNING)
    decay: str = option(
        Choice("weights", "all", "libffcv"),
        "what is decayed: weights, without normalisation layers, biases, class tokens and positions; all parameters, "
        "as torchvision does; libffcv: weights, all biases, and the normalisation layers without bn in their name",
        "weights",
        LEARNING,
    )
    clip_norm: float | None = option(
        OrNone(Real(1e-9)),
        "shorten a step's gradient to this Euclidean norm where it is longer (none: don't)",
        None,
        LEARNING,
    )
    head_lr: float = option(Real(0), "factor of the learning rate for the output layer", 1.0, LEARNING)
    layer_decay: float = option(
        Real(0.01, 1),
        "factor of the learning rate from each block of the network to the one before it, for fine-tuning",
        1.0,
        LEARNING,
    )
    precision: str = option(
        Choice("auto", "bf16", "fp16", "fp32"),
        "auto: bf16 on GPUs that have it, fp16 on others, fp32 on a CPU (fp32 is without TF32)",
        "auto",
        COMPUTING,
    )
    compile: str = option(
        Choice("auto", "off", *COMPILE_MODES),
        "torch.compile (auto: default on a GPU, off on a CPU or with dist.sync_bn); reduce-overhead and max-autotune "
        "replay CUDA graphs, aot_eager only searches for faults",
        "auto",
        COMPUTING,
    )
    ema: float | None = option(
        OrNone(Real(0, 0.999999)),
        "evaluate an exponential moving average of the weights with this decay, such as 0.999 (none or 0: the weights)",
        None,
        LEARNING,
    )
    seed: int = option(Integer(0, 2**31), "seed of weights, order and crops", 0, SEED)
    on_nonfinite: str = option(
        Choice("fail", "skip"),
        "when the loss is NaN or infinite: fail, or skip the step and count it in the log",
        "fail",
        COMPUTING,
    )
    eval_only: bool = option(
        Switch(), "evaluate a checkpoint (checkpoint.resume) or model.weights, don't train", False, LEARNING
    )


@dataclass(frozen=True)
class ValidationOptions:
    """When and how the network is evaluated: on the centre of each image."""

    resolution: int = option(Integer(8, 4096), "side of the validation images in pixels", 256, LEARNING)
    crop_ratio: float = option(
        Real(0.01, 1),
        "side of the square that is cut out of the centre, as a share of the shorter side",
        IMAGENET_CENTER_CROP,
        LEARNING,
    )
    batch_size: int = option(Integer(1), "images per batch and process", 256, RUNNING)
    every: int = option(Integer(1), "epochs from one evaluation to the next; the last epoch always has one", 1, RUNNING)
    flip_tta: bool = option(Switch(), "average over the image and its mirror image", False, LEARNING)
    top_k: int = option(Integer(1), "the k of the score top-k (at most the number of classes)", IMAGENET_TOP_K, SCORING)


@dataclass(frozen=True)
class DistOptions:
    """Processes; their number comes from torchrun."""

    device: str = option(Choice("auto", "cuda", "cpu"), "where to train", "auto", COMPUTING)
    sync_bn: bool = option(Switch(), "batch-normalisation statistics over all processes", False, LEARNING)
    cpu_threads: int = option(
        Integer(0, 1024), "torch's threads per process on a CPU (0: its share of the cores)", 0, RUNNING
    )
    meant_for: int | None = option(
        OrNone(Integer(1)),
        "for recipes: how many GPUs the batch is meant for; on another number the start says how to divide it",
        None,
        KEEPING,
    )
    timeout_minutes: float = option(Real(0.1), "give up when a process waits this long for another", 10, RUNNING)


@dataclass(frozen=True)
class LoggingOptions:
    """The run folder."""

    folder: str = option(Text(), "folder of all runs", "runs", KEEPING)
    name: str | None = option(
        OrNone(Text()), "name of this run (none: recipe, architecture, loss and seed)", None, KEEPING
    )
    progress_bar: bool = option(
        Switch(), "show how far it is: a bar where stderr is a terminal, elsewhere a line every minute", True, KEEPING
    )
    tensorboard: bool = option(
        Switch(), "write TensorBoard events into the run folder (pip install tensorboard)", False, KEEPING
    )
    wandb: str | None = option(
        OrNone(Text()), "log to this project of Weights & Biases, too (pip install wandb)", None, KEEPING
    )


@dataclass(frozen=True)
class CheckpointOptions:
    """Checkpoints, written after every epoch, every so many steps, and when a signal stops the training."""

    resume: str = option(
        Text(),
        "none: start a new run; auto: continue from its last whole checkpoint if any; or a checkpoint or run folder",
        "none",
        KEEPING,
    )
    every_steps: int = option(
        Integer(0), "steps between checkpoints in the middle of an epoch (0: none)", 1000, KEEPING
    )
    keep: int = option(Integer(1), "how many of the newest to keep; the best is always kept", 2, KEEPING)


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of ``python -m ffcv_imagenet.train``."""

    data: DataOptions = group(DataOptions)
    augment: AugmentOptions = group(AugmentOptions)
    model: ModelOptions = group(ModelOptions)
    resolution: ResolutionOptions = group(ResolutionOptions)
    lr: LrOptions = group(LrOptions)
    loss: LossOptions = group(LossOptions)
    training: TrainingOptions = group(TrainingOptions)
    validation: ValidationOptions = group(ValidationOptions)
    dist: DistOptions = group(DistOptions)
    logging: LoggingOptions = group(LoggingOptions)
    checkpoint: CheckpointOptions = group(CheckpointOptions)

    def __post_init__(self) -> None:
        """Check what involves several options; raises OptionsError with everything that does not go together."""
        mistakes = [*self._data_mistakes(), *self._resolution_mistakes(), *self._augment_mistakes()]
        for make in (self.make_lr, self.make_optimizer, lambda: self.make_loss().scheduled(0.0, self.training.epochs)):
            try:
                make()
            except ValueError as error:
                mistakes.append(str(error))
        if self.training.on_nonfinite == "skip" and not OPTIMIZERS.kind(self.training.optimizer).skips_on_device:
            mistakes.append(
                f"training.on_nonfinite: got skip, allowed with training.optimizer={self.training.optimizer} is fail"
            )
        if mistakes:
            raise OptionsError(mistakes)

    def _data_mistakes(self) -> Iterator[str]:
        if self.training.eval_only:
            if self.checkpoint.resume == "none" and self.model.weights is None:
                yield (
                    "training.eval_only=1 needs --checkpoint.resume=auto, --checkpoint.resume=CHECKPOINT or "
                    "--model.weights=FILE"
                )
            return
        for key, file in (("data.train", self.data.train), ("data.val", self.data.val)):
            if file is None:
                yield f"{key} is required: give --{key}=FILE.beton"
        if self.data.subset is not None and self.data.order != "random":
            yield f"data.order: got {self.data.order}, allowed with data.subset is random"

    def _resolution_mistakes(self) -> Iterator[str]:
        options, epochs = self.resolution, self.training.epochs
        start, end = ramp(epochs, options.start_ramp, options.end_ramp)
        if options.min_res > options.max_res:
            yield f"resolution.min_res: got {options.min_res}, allowed is at most resolution.max_res={options.max_res}"
        if start > end:
            yield f"resolution.start_ramp: got {start}, allowed is at most resolution.end_ramp={end}"
        if end > epochs and options.min_res < options.max_res:
            yield f"resolution.end_ramp: got {end}, allowed is at most training.epochs={epochs}, or none to follow it"

    def _augment_mistakes(self) -> Iterator[str]:
        options, epochs = self.augment, self.training.epochs
        if self.data.repeats > 1:
            for key, got, allowed in (
                ("order", self.data.order, "random"),
                ("decode", self.data.decode, "cpu | auto"),
            ):
                if got not in allowed.split(" | "):
                    yield f"data.{key}: got {got}, allowed with data.repeats={self.data.repeats} is {allowed}"
        if options.color_jitter[3] > 0.5:
            yield f"augment.color_jitter: got a hue of {options.color_jitter[3]}, allowed are 0 to 0.5"
        if not options.mixes:
            return
        try:
            loss = self.make_loss()
        except ValueError:
            return  # told by who makes it
        if not (loss.linear_in_target or loss.takes_soft_targets):
            key = "mixup" if options.mixup else "cutmix"
            yield (
                f"augment.{key}: got {getattr(options, key)}, allowed is 0 with loss.name={self.loss.name}, which "
                f"takes no mixed targets (--augment.mixup=0 --augment.cutmix=0)"
            )
        if options.mix_off_epochs >= epochs:
            yield (
                f"augment.mix_off_epochs: got {options.mix_off_epochs}, allowed is less than training.epochs={epochs}; "
                f"--augment.mixup=0 --augment.cutmix=0 mixes nothing"
            )

    def default_name(self, recipe: str) -> str:
        """A run's name from what is compared: recipe, architecture, loss and seed; and that it is a smoke test.

        It is one folder's name: ``timm/NAME`` becomes ``timm_NAME``.
        """
        steps = "" if self.training.max_steps is None else f"_{self.training.max_steps}_steps"
        return f"{recipe}_{self.model.arch}_{self.loss.name}_seed{self.training.seed}{steps}".replace("/", "_")

    def make_loss(self) -> Loss:
        """The loss that the options describe."""
        return LOSSES.choose(self.loss.name, self.loss.of_loss)

    @property
    def augments(self) -> bool:
        """Whether training images are changed on the training device, besides their normalisation."""
        return self.augment.any or self.data.crop == "padded"

    def make_crop(self) -> Crop:
        """The training crops that the options describe."""
        return CROPS.choose(self.data.crop, self.data.of_crop)

    def make_optimizer(self) -> Optimizer:
        """The optimizer that the options describe."""
        return OPTIMIZERS.choose(self.training.optimizer, self.training.of_optimizer)

    def make_policy(self) -> Policy:
        """The operations on each image that the options describe."""
        return POLICIES.choose(self.augment.policy, self.augment.of_policy)

    def make_lr(self) -> Callable[[float], float]:
        """The learning rate as a function of the fractional epoch, scaled to the global batch."""
        lr = self.lr
        return make_lr_schedule(
            lr.schedule,
            lr=lr.lr * self.training.batch_size / lr.base_batch,
            epochs=self.training.epochs,
            **lr.of_schedule,
        )

    def extreme_sides(self) -> frozenset[int]:
        """The smallest and the largest image side of the training, and the evaluation's: a model has to take them."""
        return frozenset((self.resolution.min_res, self.resolution.max_res, self.validation.resolution))

    def make_resolution(self) -> Callable[[int], int]:
        """The side of the training images in pixels as a function of the epoch."""
        resolution = self.resolution
        start, end = ramp(self.training.epochs, resolution.start_ramp, resolution.end_ramp)
        return functools.partial(
            resolution_at, min_res=resolution.min_res, max_res=resolution.max_res, start_ramp=start, end_ramp=end
        )

    def planned_epochs(self, num_samples: int) -> int:
        """How many epochs are trained, the last one perhaps in part, on a data set of so many images."""
        if self.training.max_steps is None:
            return self.training.epochs
        steps = max(1, num_samples // self.training.batch_size)
        return min(self.training.epochs, math.ceil(self.training.max_steps / steps))

    def per_rank_batch(self, world_size: int) -> int:
        """Images of a micro-batch on one rank; raises ValueError when the global batch cannot be shared."""
        parts = world_size * self.training.accumulation
        if self.training.batch_size % parts:
            raise ValueError(
                f"training.batch_size: got {self.training.batch_size}, allowed is a multiple of {parts} "
                f"({world_size} processes x training.accumulation={self.training.accumulation})"
            )
        if self.augment.mixes and self.training.batch_size // parts % 2:
            raise ValueError(
                f"training.batch_size: got {self.training.batch_size}, allowed with augment.mixup or augment.cutmix, "
                f"which mix pairs of images, is a multiple of {2 * parts} (2 x {world_size} processes x "
                f"training.accumulation={self.training.accumulation})"
            )
        return self.training.batch_size // parts

    def normalised_batch(self, world_size: int) -> int:
        """Images over which batch normalisation takes its statistics: a micro-batch, on one rank or on all."""
        return self.per_rank_batch(world_size) * (world_size if self.dist.sync_bn else 1)


@dataclass(frozen=True)
class SweepOptions:
    """How the runs of a sweep share the machine."""

    gpus_per_run: int | None = option(
        OrNone(Integer(1)), "GPUs of each run, one process per GPU (none: 1 where there are GPUs)", None
    )
    cores_per_run: int | None = option(
        OrNone(Integer(1)), "CPU cores of each run (none: an equal share; without GPUs, as many runs as fit)", None
    )
    retries: int = option(Integer(0), "how often a failed run is started again (never after a user's mistake)", 1)
    stop_seconds: float = option(Real(0), "after Ctrl-C, how long the runs may take to write their checkpoints", 60)
    only: int | None = option(OrNone(Integer(1)), "start no run but the one of this number in the plan", None)


@dataclass(frozen=True)
class SweepConfig:
    """Configuration of ``python -m ffcv_imagenet.sweep``, besides what is swept."""

    sweep: SweepOptions = group(SweepOptions)


def effect_of(key: str) -> Effect:
    """What changing the option ``section.name`` of a training means; unknown options decide what is learned."""
    return _EFFECTS.get(key, LEARNING)


def _effects(kind: type) -> dict[str, Effect]:
    """The effect of every option; raises TypeError when one does not say it."""
    effects = {key: field.metadata["effect"] for key, field in options_of(kind).items()}
    for key, effect in effects.items():
        if effect is None:
            raise TypeError(f"{key} has no effect: give option(...) one of those at the top of config.py")
    return effects


_EFFECTS = _effects(TrainConfig)
