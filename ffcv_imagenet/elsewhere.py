"""What the options of other programs are called here: for mistakes on the command line, and for two pages of the docs.

``docs/from_ffcv_imagenet.md`` and ``docs/from_timm_and_torchvision.md`` show these tables; a test compares them. Names
are written with ``_``; on a command line ``-`` is the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Here:
    """What to give here: ``options`` as they are pasted, X being the value that was given there; and what to know.

    ``values`` are words that are other ones here.
    """

    options: str = ""
    note: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> set[str]:
        """The options' names, without dashes."""
        return set(re.findall(r"(?<![\w-])--([\w.-]+)", self.options))

    def notes(self) -> str:
        """What to know, and the words that are other ones."""
        return "; ".join(filter(None, (self.note, ", ".join(f"{a} is {b}" for a, b in self.values.items()))))

    def text(self, value: str | None) -> str:
        """As one phrase, with the ``value`` that was given there; None: it is not known."""
        if value is None:
            return ", ".join(filter(None, (f"here {self.options}" if self.options else "", self.notes())))
        options = re.sub(r"=X\b", lambda _: f"={self.values.get(value, value)}", self.options)
        return ", ".join(filter(None, (f"here {options}" if options else "", self.note)))


_GLOBAL_BATCH = "the batch over all processes; there it is that of one process"
_LR = "and --lr.base_batch equal to the batch: from there the rate scales with the batch"
_TORCHRUN = Here(note="torchrun --nproc-per-node=N says it")
_NOTHING_TO_GIVE = Here(note="nothing to give")
_WORKERS = Here("--data.num_workers=X", "threads of each process; by default its share of the cores")
_FROM_MANIFEST = Here(note="nothing to give: the manifest of the data knows it")
_ALWAYS = Here(note="nothing to give: always so")
_CONVERTED = Here("--data.train=FILE.beton --data.val=FILE.beton", "write_datasets.py makes them of the images, once")
_SMOOTHING = Here("--loss.name=label_smoothing --loss.smoothing=X")
_AMP = Here("--training.precision=fp16", "or bf16; auto, the default, takes one of them on a GPU")
_RESIZE = Here("--data.resize=X", "the filter of training and validation", {"bilinear": "triangle"})
_POLICIES = {"ra": "randaugment", "ta_wide": "trivialaugment", "imagenet": "autoaugment"}
_EVAL_ONLY = Here("--training.eval_only=1 --checkpoint.resume=CHECKPOINT")
_PRETRAINED = Here("--model.weights=FILE", "a file of weights; none is downloaded")

#: Options of libffcv/ffcv-imagenet's train_imagenet.py and write_imagenet.py, other than those with the same name here.
FFCV_IMAGENET = {
    "cfg.dataset": Here("--data.format=X", "auto by default: it looks"),
    "cfg.split": Here("--write.splits=X", "both by default"),
    "cfg.data_dir": Here("--data.root=FOLDER", "the folder with train/ and val/; there it is one of them"),
    "cfg.write_path": Here("--out.dir=FOLDER", "gets train.beton and val.beton"),
    "cfg.write_mode": Here("--write.mode=X"),
    "cfg.max_resolution": Here("--write.max_resolution=X"),
    "cfg.num_workers": Here("--write.num_workers=X"),
    "cfg.chunk_size": _NOTHING_TO_GIVE,
    "cfg.jpeg_quality": Here("--write.jpeg_quality=X"),
    "cfg.subset": Here("--write.subset=X", "drawn by the seed from all classes; there the first ones"),
    "cfg.compress_probability": Here("--write.compress_probability=X"),
    "data.train_dataset": Here("--data.train=X"),
    "data.val_dataset": Here("--data.val=X"),
    "data.in_memory": Here(note="nothing to give: the system's cache keeps what fits"),
    "lr.lr_schedule_type": Here("--lr.schedule=X", values={"cyclic": "piecewise"}),
    "lr.lr_peak_epoch": Here("--lr.peak_epoch=X"),
    "logging.log_level": Here(note="a log line comes after every epoch, an evaluation as --validation.every=X says"),
    "validation.lr_tta": Here("--validation.flip_tta=X"),
    "training.label_smoothing": _SMOOTHING,
    "training.use_blurpool": Here("--model.blurpool=X"),
    "training.distributed": _TORCHRUN,
    "model.pretrained": _PRETRAINED,
    "dist.world_size": _TORCHRUN,
    "dist.address": Here(note="torchrun --rdzv-endpoint=HOST:PORT says it"),
    "dist.port": Here(note="torchrun --rdzv-endpoint=HOST:PORT says it"),
}

#: Options of torchvision's references/classification/train.py.
TORCHVISION = {
    "data_path": _CONVERTED,
    "model": Here("--model.arch=X"),
    "device": Here("--dist.device=X"),
    "batch_size": Here("--training.batch_size=N", _GLOBAL_BATCH),
    "b": Here("--training.batch_size=N", _GLOBAL_BATCH),
    "epochs": Here("--training.epochs=X"),
    "workers": _WORKERS,
    "j": _WORKERS,
    "lr": Here("--lr.lr=X", _LR),
    "momentum": Here("--training.momentum=X"),
    "weight_decay": Here("--training.weight_decay=X"),
    "wd": Here("--training.weight_decay=X"),
    "opt": Here("--training.optimizer=X", "sgd_nesterov is --training.nesterov=1"),
    "mixup_alpha": Here("--augment.mixup=X"),
    "cutmix_alpha": Here("--augment.cutmix=X"),
    "auto_augment": Here(
        "--augment.policy=X", values={"ra": "randaugment", "ta_wide": "trivialaugment", "imagenet": "autoaugment"}
    ),
    "ra_magnitude": Here("--augment.policy=randaugment --augment.magnitude=X"),
    "clip_grad_norm": Here("--training.clip_norm=X"),
    "lr_min": Here("--lr.end=SHARE", "a share of the peak"),
    "norm_weight_decay": Here("--training.decay=weights", "the default: not on normalisation layers and biases"),
    "bias_weight_decay": Here("--training.decay=weights", "the default: not on normalisation layers and biases"),
    "label_smoothing": _SMOOTHING,
    "lr_scheduler": Here("--lr.schedule=X", values={"steplr": "step", "cosineannealinglr": "cosine"}),
    "lr_warmup_epochs": Here("--lr.warmup_epochs=X"),
    "lr_warmup_method": Here(note="nothing to give: the warm-up is linear"),
    "lr_warmup_decay": Here("--lr.warmup_start=X"),
    "lr_step_size": Here("--lr.step_length=X"),
    "lr_gamma": Here("--lr.step_ratio=X"),
    "print_freq": Here(note="nothing to give: a bar on a terminal, elsewhere a line every minute"),
    "output_dir": Here("--logging.folder=X", "each run gets a folder in it"),
    "resume": Here("--checkpoint.resume=X"),
    "start_epoch": Here("--checkpoint.resume=CHECKPOINT", "the checkpoint knows its epoch"),
    "cache_dataset": _NOTHING_TO_GIVE,
    "sync_bn": Here("--dist.sync_bn=1"),
    "test_only": _EVAL_ONLY,
    "pretrained": _PRETRAINED,
    "weights": _PRETRAINED,
    "amp": _AMP,
    "world_size": _TORCHRUN,
    "dist_url": Here(note="torchrun --rdzv-endpoint=HOST:PORT says it"),
    "model_ema": Here("--training.ema=0.999", "the decay"),
    "model_ema_decay": Here("--training.ema=X", "as given; there it is adapted to batch and length"),
    "model_ema_steps": Here(note="nothing to give: the average is updated after every step"),
    "interpolation": _RESIZE,
    "val_resize_size": Here(
        "--validation.crop_ratio=R", "val-crop-size / val-resize-size, such as 0.875 for 224 of 256"
    ),
    "val_crop_size": Here("--validation.resolution=X"),
    "train_crop_size": Here("--resolution.min_res=X --resolution.max_res=X"),
    "random_erase": Here("--augment.erasing=X"),
    "ra_sampler": Here("--data.repeats=3", "or what ra-reps says"),
    "ra_reps": Here("--data.repeats=X"),
}

#: Options of timm's train.py, as on its command line and in the args.yaml that it writes.
TIMM = {
    "data_dir": _CONVERTED,
    "dataset": Here("--data.format=X", "of write_datasets.py; auto by default: it looks"),
    "train_split": Here("--data.train=FILE.beton"),
    "val_split": Here("--data.val=FILE.beton"),
    "class_map": Here("--data.class_order=map", "of write_datasets.py"),
    "model": Here("--model.arch=timm/X"),
    "pretrained": _PRETRAINED,
    "initial_checkpoint": Here("--model.weights=X"),
    "resume": Here("--checkpoint.resume=X"),
    "num_classes": _FROM_MANIFEST,
    "img_size": Here("--resolution.min_res=X --resolution.max_res=X --validation.resolution=X"),
    "input_size": Here("--resolution.min_res=N --resolution.max_res=N --validation.resolution=N"),
    "crop_pct": Here("--validation.crop_ratio=X"),
    "mean": Here("--data.mean=R,G,B"),
    "std": Here("--data.std=R,G,B"),
    "interpolation": _RESIZE,
    "train_interpolation": _RESIZE,
    "batch_size": Here("--training.batch_size=N", _GLOBAL_BATCH),
    "b": Here("--training.batch_size=N", _GLOBAL_BATCH),
    "validation_batch_size": Here("--validation.batch_size=X"),
    "grad_accum_steps": Here("--training.accumulation=X", "the batch stays what --training.batch_size says"),
    "channels_last": _ALWAYS,
    "torchcompile": Here("--training.compile=default", "the default on a GPU"),
    "opt": Here("--training.optimizer=X", "nesterov is --training.nesterov=1", {"momentum": "sgd"}),
    "opt_eps": Here("--training.eps=X"),
    "opt_betas": Here("--training.beta1=B --training.beta2=B"),
    "clip_grad": Here("--training.clip_norm=X"),
    "layer_decay": Here("--training.layer_decay=X"),
    "drop_path": Here("--model.drop_path=X"),
    "momentum": Here("--training.momentum=X"),
    "weight_decay": Here("--training.weight_decay=X"),
    "sched": Here("--lr.schedule=X"),
    "lr": Here("--lr.lr=X", _LR),
    "lr_base": Here("--lr.lr=X", "for a batch of --lr.base_batch"),
    "lr_base_size": Here("--lr.base_batch=X"),
    "epochs": Here("--training.epochs=X"),
    "start_epoch": Here("--checkpoint.resume=CHECKPOINT", "the checkpoint knows its epoch"),
    "decay_epochs": Here("--lr.step_length=X"),
    "decay_milestones": Here("--lr.step_epochs=A,B"),
    "decay_rate": Here("--lr.step_ratio=X"),
    "warmup_epochs": Here("--lr.warmup_epochs=X"),
    "warmup_lr": Here("--lr.warmup_start=SHARE", "a share of the peak"),
    "min_lr": Here("--lr.end=SHARE", "a share of the peak"),
    "scale": Here("--data.min_crop_area=A --data.max_crop_area=B"),
    "ratio": Here("--data.crop_aspect=A,B"),
    "aa": Here("--augment.policy=timm_randaugment", "rand-m9-mstd0.5-inc1; --help lists the others"),
    "color_jitter": Here("--augment.color_jitter=X,X,X,0", "with a policy, too; there it is ignored then"),
    "color_jitter_prob": Here("--augment.color_jitter_prob=X"),
    "grayscale_prob": Here("--augment.grayscale_prob=X"),
    "gaussian_blur_prob": Here("--augment.gaussian_blur_prob=X"),
    "aug_repeats": Here("--data.repeats=X"),
    "reprob": Here("--augment.erasing=X"),
    "remode": Here("--augment.erasing_mode=X"),
    "recount": Here("--augment.erasing_count=X"),
    "mixup": Here("--augment.mixup=X"),
    "cutmix": Here("--augment.cutmix=X"),
    "mixup_prob": Here("--augment.mix_prob=X"),
    "mixup_switch_prob": Here("--augment.mix_switch=X"),
    "mixup_off_epoch": Here("--augment.mix_off_epochs=N", "how many epochs at the end; there it is the first of them"),
    "mixup_mode": Here(note="nothing to give: batch, one share for all images of a step"),
    "hflip": Here("--data.flip=1", "half of the images, or 0: none"),
    "bce_loss": Here("--loss.name=bce"),
    "bce_target_thresh": Here("--loss.name=bce --loss.target_threshold=X"),
    "smoothing": _SMOOTHING,
    "sync_bn": Here("--dist.sync_bn=1"),
    "dist_bn": Here(note="nothing to give: the first process's statistics are evaluated"),
    "model_ema": Here("--training.ema=0.999", "the decay"),
    "model_ema_decay": Here("--training.ema=X"),
    "seed": Here("--training.seed=X"),
    "log_interval": Here(note="nothing to give: a bar on a terminal, elsewhere a line every minute"),
    "recovery_interval": Here("--checkpoint.every_steps=X"),
    "checkpoint_hist": Here("--checkpoint.keep=X", "and the best"),
    "workers": _WORKERS,
    "j": _WORKERS,
    "amp": _AMP,
    "native_amp": _AMP,
    "amp_dtype": Here("--training.precision=X", values={"bfloat16": "bf16", "float16": "fp16"}),
    "pin_mem": _ALWAYS,
    "no_prefetcher": _NOTHING_TO_GIVE,
    "output": Here("--logging.folder=X", "each run gets a folder in it"),
    "experiment": Here("--logging.name=X"),
    "tta": Here("--validation.flip_tta=1", "the mirror image"),
    "local_rank": _TORCHRUN,
    "log_wandb": Here("--logging.wandb=PROJECT"),
}

#: All programs, by the name that messages give them.
PROGRAMS = {"ffcv-imagenet": FFCV_IMAGENET, "torchvision": TORCHVISION, "timm": TIMM}


#: Options of ffcv-imagenet that have the same name here and another meaning.
_OTHER_MEANINGS = {
    "training.batch_size": f"here {_GLOBAL_BATCH}",
    "lr.lr": "here the rate for a batch of --lr.base_batch, from where it scales with --training.batch_size",
}


def other_meanings(given: Collection[str], known: Collection[str]) -> list[str]:
    """A sentence for each of the ``given`` options that means something else here, if some are ffcv-imagenet's."""
    if not any(key in FFCV_IMAGENET and key not in known for key in given):
        return []
    return [f"{key} of ffcv-imagenet: {text}" for key, text in _OTHER_MEANINGS.items() if key in given]


def called_here(name: str, known: Collection[str], value: str | None = None) -> str | None:
    """What another program's option is called here, as a phrase; None where no program has one of that name.

    Args:
        name: without dashes in front.
        known: the options that the command has; another command's are no answer.
        value: that was given there; None: it is not known.
    """
    key = name.replace("-", "_")
    answers: dict[str, list[str]] = {}
    has_sections = any("." in option for option in known)
    for program, table in PROGRAMS.items():
        if has_sections and key in table and table[key].names() <= set(known):
            answers.setdefault(table[key].text(value), []).append(program)
    told = [f"{' and '.join(programs)}: {text}" for text, programs in answers.items()]
    return f"an option of {'; of '.join(told)}" if told else None
