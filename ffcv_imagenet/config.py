"""All options of the two entry scripts, with their defaults, ranges and the checks that involve several of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from ffcv_imagenet.losses import LOSS_OPTIONS, Loss, make_loss
from ffcv_imagenet.options import Choice, Integer, OrNone, Real, Switch, Text, Words, group, option
from ffcv_imagenet.schedules import LR_OPTIONS, make_lr_schedule, resolution_at
from ffcv_imagenet.train.step import COMPILE_MODES

#: Options that may differ when a run goes on: they say where and how it runs, not what it computes. What they lead
#: to (the data, the precision, the size of a micro-batch) is compared instead.
RESUMABLE_CHANGES = (
    "data.train",
    "data.val",
    "data.decode",
    "data.num_workers",
    "data.on_error",
    "training.accumulation",
    "training.precision",
    "training.compile",
    "training.on_nonfinite",
    "validation.batch_size",
    "dist.device",
    "dist.cpu_threads",
    "dist.timeout_minutes",
    "logging.",
    "checkpoint.",
)


@dataclass(frozen=True)
class WriteDataOptions:
    """Where the images are."""

    root: str = option(Text(), "folder with train/ and val/, each one folder per class")


@dataclass(frozen=True)
class WriteOutOptions:
    """Where the .beton files go."""

    dir: str = option(Text(), "folder for train.beton and val.beton")


@dataclass(frozen=True)
class WriteOptions:
    """How the images are stored."""

    splits: tuple[str, ...] = option(Words("train", "val"), "splits to write", ("train", "val"))
    preset: str | None = option(
        OrNone(Choice("rn50", "rn18")), "a published data set; single options override it", None
    )
    mode: str | None = option(
        OrNone(Choice("raw", "jpg", "smart", "proportion")), "storage (none: the preset's, else jpg)", None
    )
    max_resolution: int | None = option(
        OrNone(Integer(1, 65535)), "longest side in pixels, larger images are shrunk", None
    )
    compress_probability: float | None = option(
        OrNone(Real(0, 1)), "share of JPEG images in proportion mode (none: the preset's, else 0.5)", None
    )
    smart_threshold: float | None = option(
        OrNone(Real(0)),
        "smart mode stores JPEG where raw takes more than this many times its bytes (none: 2)",
        None,
    )
    jpeg_quality: int | None = option(OrNone(Integer(1, 100)), "JPEG quality (none: 90)", None)
    reencode: bool = option(Switch(), "0: keep JPEG files that are small enough byte for byte", True)
    num_workers: int = option(Integer(0, 1024), "encoding threads (0: one per usable core)", 0)
    subset: int = option(Integer(-1), "write only this many images, drawn by the seed (-1: all)", -1)
    shuffle: bool = option(Switch(), "store the images in a random order drawn by the seed", False)
    seed: int = option(Integer(0), "seed of the compressed share, the subset and the shuffle", 0)
    page_size_mib: int = option(Integer(2, 2048), "FFCV page size in MiB, a power of 2; no image may be larger", 8)
    overwrite: bool = option(Switch(), "replace files that are already there", False)
    on_error: str = option(
        Choice("fail", "skip"),
        "a file that cannot be stored: fail stops and names it, skip leaves it out and lists it",
        "fail",
    )


@dataclass(frozen=True)
class WriteConfig:
    """Configuration of write_datasets.py."""

    data: WriteDataOptions = group(WriteDataOptions)
    out: WriteOutOptions = group(WriteOutOptions)
    write: WriteOptions = group(WriteOptions)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Training and validation images."""

    train: str | None = option(OrNone(Text()), "training .beton file (none is allowed with training.eval_only=1)", None)
    val: str = option(Text(), "validation .beton file")
    order: str = option(
        Choice("random", "quasi_random"),
        "order of the training images; quasi_random reads large pieces, for files larger than the memory",
        "random",
    )
    on_error: str = option(
        Choice("fail", "skip"),
        "damaged image: stop, or skip (training: another one of the batch stands in; validation: it does not count)",
        "fail",
    )
    decode: str = option(
        Choice("cpu", "gpu", "auto"),
        "where images are decoded: the same pixels; gpu needs an entry-point index; auto: gpu where cores are few",
        "cpu",
    )
    num_workers: int = option(
        Integer(0, 1024),
        "decoding threads on the CPU per process (0: its share of the usable cores, less two where there is a GPU)",
        0,
    )
    min_crop_area: float = option(Real(0.0001, 1), "smallest training crop as a share of the image's area", 0.08)
    flip: bool = option(Switch(), "mirror half of the training images (off where mirroring changes the class)", True)


@dataclass(frozen=True)
class ModelOptions:
    """The network."""

    arch: str = option(Text(), "a torchvision classification model, or resnet10", "resnet18")
    blurpool: bool = option(Switch(), "blur in front of convolutions with stride > 1 and >= 16 input channels", False)
    weights: str | None = option(OrNone(Text()), "start from these weights (a state dict or a checkpoint)", None)


@dataclass(frozen=True)
class ResolutionOptions:
    """Side of the training images in pixels: min_res up to start_ramp, max_res from end_ramp, in steps of 32."""

    min_res: int = option(Integer(8, 4096), "at the start", 160)
    max_res: int = option(Integer(8, 4096), "at the end", 160)
    start_ramp: int = option(Integer(0), "epoch up to which min_res holds", 0)
    end_ramp: int = option(Integer(0), "epoch from which max_res holds", 0)


@dataclass(frozen=True)
class LrOptions:
    """Learning rate, evaluated at every step."""

    lr: float = option(Real(0), "peak rate for a global batch of lr.base_batch", 0.5)
    base_batch: int = option(Integer(1), "the batch for which lr.lr holds; the rate scales with the batch", 1024)
    schedule: str = option(Choice(*LR_OPTIONS), "shape over the epochs", "piecewise")
    peak_epoch: float | None = option(OrNone(Real(0)), "piecewise: epoch of the peak (none: 2)", None)
    step_length: int | None = option(OrNone(Integer(1)), "step: epochs between steps (none: 30)", None)
    step_ratio: float | None = option(OrNone(Real(0, 1)), "step: factor at every step (none: 0.1)", None)
    warmup_epochs: float | None = option(OrNone(Real(0)), "step, cosine: linear warm-up (none: 0)", None)


@dataclass(frozen=True)
class LossOptions:
    """The training loss."""

    name: str = option(Choice(*LOSS_OPTIONS), "which loss", "baseline")
    smoothing: float | None = option(
        OrNone(Real(0, 1)), "label_smoothing: share spread over all classes (none: 0.1)", None
    )
    alpha_start: float | None = option(OrNone(Real(0)), "maxsup: weight at the start (none: 0.1)", None)
    alpha_end: float | None = option(OrNone(Real(0)), "maxsup: weight at the end (none: 0.2)", None)


@dataclass(frozen=True)
class TrainingOptions:
    """Length, batch, optimizer and precision."""

    epochs: int = option(Integer(1), "number of epochs", 16)
    batch_size: int = option(Integer(1), "global batch: images per optimizer step over all processes", 1024)
    accumulation: int = option(Integer(1), "micro-batches per step, for a batch that does not fit into memory", 1)
    momentum: float = option(Real(0, 1), "momentum of SGD", 0.9)
    weight_decay: float = option(Real(0), "weight decay (never on normalisation layers and biases)", 5e-5)
    precision: str = option(
        Choice("auto", "bf16", "fp16", "fp32"),
        "auto: bf16 on GPUs that have it, fp16 on others, fp32 on a CPU (fp32 is without TF32)",
        "auto",
    )
    compile: str = option(
        Choice("auto", "off", *COMPILE_MODES),
        "torch.compile (auto: default on a GPU, off on a CPU or with dist.sync_bn); reduce-overhead and max-autotune "
        "replay CUDA graphs, aot_eager only searches for faults",
        "auto",
    )
    ema: float | None = option(
        OrNone(Real(0, 0.999999)),
        "evaluate an exponential moving average of the weights with this decay, such as 0.999 (none or 0: the weights)",
        None,
    )
    seed: int = option(Integer(0, 2**31), "seed of weights, order and crops", 0)
    on_nonfinite: str = option(
        Choice("fail", "skip"),
        "when the loss is NaN or infinite: fail, or skip the step and count it in the log",
        "fail",
    )
    eval_only: bool = option(Switch(), "evaluate a checkpoint (checkpoint.resume) or model.weights, don't train", False)


@dataclass(frozen=True)
class ValidationOptions:
    """Evaluation after every epoch: centre crop of 224/256 of the shorter side."""

    resolution: int = option(Integer(8, 4096), "side of the validation images in pixels", 256)
    batch_size: int = option(Integer(1), "images per batch and process", 256)
    flip_tta: bool = option(Switch(), "average over the image and its mirror image", False)


@dataclass(frozen=True)
class DistOptions:
    """Processes; their number comes from torchrun."""

    device: str = option(Choice("auto", "cuda", "cpu"), "where to train", "auto")
    sync_bn: bool = option(Switch(), "batch-normalisation statistics over all processes", False)
    cpu_threads: int = option(Integer(0, 1024), "torch's threads per process on a CPU (0: its share of the cores)", 0)
    timeout_minutes: float = option(Real(0.1), "give up when a process waits this long for another", 10)


@dataclass(frozen=True)
class LoggingOptions:
    """The run folder."""

    folder: str = option(Text(), "folder of all runs", "runs")
    name: str | None = option(OrNone(Text()), "name of this run (none: recipe, architecture, loss and seed)", None)
    progress_bar: bool = option(Switch(), "show a progress bar where stderr is a terminal", True)
    tensorboard: bool = option(
        Switch(), "write TensorBoard events into the run folder (pip install tensorboard)", False
    )
    wandb: str | None = option(OrNone(Text()), "log to this project of Weights & Biases, too (pip install wandb)", None)


@dataclass(frozen=True)
class CheckpointOptions:
    """Checkpoints, written after every epoch, every so many steps, and when a signal stops the training."""

    resume: str = option(
        Text(),
        "none: start a new run; auto: go on from the run's last whole checkpoint if any; or a file",
        "none",
    )
    every_steps: int = option(Integer(0), "steps between checkpoints in the middle of an epoch (0: none)", 1000)
    keep: int = option(Integer(1), "how many of the newest to keep; the best is always kept", 2)


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of train_imagenet.py."""

    data: DataOptions = group(DataOptions)
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
        """Check what involves several options; raises ValueError."""
        resolution = self.resolution
        if resolution.min_res > resolution.max_res:
            raise ValueError(
                f"resolution.min_res: got {resolution.min_res}, allowed is at most "
                f"resolution.max_res={resolution.max_res}"
            )
        if resolution.start_ramp > resolution.end_ramp:
            raise ValueError(
                f"resolution.start_ramp: got {resolution.start_ramp}, allowed is at most "
                f"resolution.end_ramp={resolution.end_ramp}"
            )
        if self.training.eval_only:
            if self.checkpoint.resume == "none" and self.model.weights is None:
                raise ValueError(
                    "training.eval_only=1 needs checkpoint.resume=auto, checkpoint.resume=FILE or model.weights=FILE"
                )
        elif self.data.train is None:
            raise ValueError("data.train is required: give --data.train=FILE.beton")
        self.make_loss()
        self.make_lr()

    def default_name(self, recipe: str) -> str:
        """A run's name from what is compared: recipe, architecture, loss and seed."""
        return f"{recipe}_{self.model.arch}_{self.loss.name}_seed{self.training.seed}"

    def make_loss(self) -> Loss:
        """The loss that the options describe."""
        loss = self.loss
        return make_loss(loss.name, smoothing=loss.smoothing, alpha_start=loss.alpha_start, alpha_end=loss.alpha_end)

    def make_lr(self) -> Callable[[float], float]:
        """The learning rate as a function of the fractional epoch, scaled to the global batch."""
        lr = self.lr
        return make_lr_schedule(
            lr.schedule,
            lr=lr.lr * self.training.batch_size / lr.base_batch,
            epochs=self.training.epochs,
            peak_epoch=lr.peak_epoch,
            step_length=lr.step_length,
            step_ratio=lr.step_ratio,
            warmup_epochs=lr.warmup_epochs,
        )

    def extreme_sides(self) -> frozenset[int]:
        """The smallest and the largest image side of the training, and the evaluation's: a model has to take them."""
        return frozenset((self.resolution.min_res, self.resolution.max_res, self.validation.resolution))

    def make_resolution(self) -> Callable[[int], int]:
        """The side of the training images in pixels as a function of the epoch."""
        resolution = self.resolution
        return functools.partial(
            resolution_at,
            min_res=resolution.min_res,
            max_res=resolution.max_res,
            start_ramp=resolution.start_ramp,
            end_ramp=resolution.end_ramp,
        )

    def per_rank_batch(self, world_size: int) -> int:
        """Images of a micro-batch on one rank; raises ValueError when the global batch cannot be shared."""
        parts = world_size * self.training.accumulation
        if self.training.batch_size % parts:
            raise ValueError(
                f"training.batch_size: got {self.training.batch_size}, allowed is a multiple of {parts} "
                f"({world_size} processes x training.accumulation={self.training.accumulation})"
            )
        return self.training.batch_size // parts


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
    """Configuration of ``python -m ffcv_imagenet.sweep``, beside what is swept."""

    sweep: SweepOptions = group(SweepOptions)
