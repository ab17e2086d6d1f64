"""From a configuration to a finished run: builds the parts, trains or evaluates, and keeps the run folder."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch._inductor.config
from torch import nn

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.format.manifest import Manifest
from ffcv_imagenet.data.read.decode_cpu import CenterCropDecoder, CropDecoder, RandomResizedCropDecoder
from ffcv_imagenet.data.read.decode_gpu import GPUBatchLoader, choose_decoder
from ffcv_imagenet.data.read.loader import BatchLoader
from ffcv_imagenet.data.read.orders import QuasiRandomOrder, ShardedOrder, ShuffledOrder
from ffcv_imagenet.distributed import MaxOverRanks, World, find_world, launcher, on_main, process_group
from ffcv_imagenet.models import build_model, check_resolutions
from ffcv_imagenet.options import flatten
from ffcv_imagenet.resume import prepare_start, resume_state, run_checkpoints
from ffcv_imagenet.run.folder import RunFolder, describe_environment
from ffcv_imagenet.run.log import EpochLog
from ffcv_imagenet.run.loggers import check_installed, make_loggers
from ffcv_imagenet.run.weights import checkpoint_weights, load_weights
from ffcv_imagenet.train.evaluation import evaluate
from ffcv_imagenet.train.interruption import Interrupted, StopSignals
from ffcv_imagenet.train.metrics import Scores
from ffcv_imagenet.train.optim import make_sgd
from ffcv_imagenet.train.precision import choose_precision, input_dtype
from ffcv_imagenet.train.step import EvaluationStep, choose_compile
from ffcv_imagenet.train.trainer import Trainer, TrainerOptions

#: Bytes that ``data.order=quasi_random`` reads at a time.
READ_TOGETHER = 8 << 20


def train(config: TrainConfig, *, recipe: str = "none", command: Sequence[str] = ()) -> EpochLog:
    """Train as ``config`` says, from the start or from a checkpoint; the same call on every rank.

    Only rank 0 reads and writes the run folder.

    Args:
        config: all options.
        recipe: name of the recipe, for the log table.
        command: the command line, for ``params.json``.

    Returns:
        The last epoch's line of the log.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: a user's mistake, found before anything starts.
        BlockingIOError: another process is writing this run.
        FloatingPointError: the loss is not finite.
        ConnectionError: another process has ended or does not answer.
        Interrupted: a signal came; everything is saved.
    """
    world = find_world(config.dist.device)
    path = Path(config.logging.folder) / (config.logging.name or config.default_name(recipe))
    loggers: dict[str, Any] = {"tensorboard": config.logging.tensorboard, "wandb": config.logging.wandb}
    with contextlib.ExitStack() as stack:
        folder = None
        try:
            with process_group(world, config.dist.timeout_minutes):
                on_main(world, lambda: check_installed(**loggers))
                exchange = MaxOverRanks(config.dist.timeout_minutes)
                stop = stack.enter_context(StopSignals(exchange))
                trainer = _make_trainer(config, world, stop)
                params = _params(config, world, path.name, recipe, command)
                state, params = on_main(world, lambda: prepare_start(config, path, params, stack))
                if state is not None:
                    trainer.load_state_dict(state)
                params["compilation_seconds"] = trainer.warm_up()
                if world.is_main and params["compilation_seconds"]:
                    print(f"compiled for every image size in {params['compilation_seconds']:.1f} s", flush=True)

                def begin() -> None:
                    nonlocal folder
                    folder = RunFolder(path, make_loggers(path, params, **loggers))
                    folder.write_params(params)
                    folder.write_status("running")
                    if trainer.log:  # What the checkpoint knows, where the log was ahead of it.
                        folder.write_log(trainer.log)

                on_main(world, begin)
                last = trainer.fit(folder, run_checkpoints(config, path, params) if world.is_main else None)
                exchange.finish()
        except BaseException as error:
            if folder is not None:
                stopped = isinstance(error, (KeyboardInterrupt, Interrupted))
                folder.write_status("interrupted" if stopped else "failed", None if stopped else str(error))
            raise
        if folder is not None:
            folder.write_status("finished")
            print(f"final top-1 {100 * last.top_1:.2f} %, top-5 {100 * last.top_5:.2f} %; the run lies in {path}")
        return last


def evaluate_only(config: TrainConfig, *, recipe: str = "none") -> Scores:
    """Evaluate the checkpoint or the weights that ``config`` names; the same call on every rank.

    Raises:
        ValueError, FileNotFoundError: a user's mistake.
    """
    world = find_world(config.dist.device)
    path = Path(config.logging.folder) / (config.logging.name or config.default_name(recipe))
    with process_group(world, config.dist.timeout_minutes):
        num_classes = _read_manifest(config.data.val).num_classes
        check_resolutions(config.model.arch, num_classes, {config.validation.resolution})
        model = _make_model(config, num_classes, world)
        state = on_main(world, lambda: resume_state(config.checkpoint.resume, run_checkpoints(config, path)))
        source = config.model.weights
        if state is not None:
            _load_model(model, state)
            place = path if config.checkpoint.resume == "auto" else config.checkpoint.resume
            source = f"{place}, epoch {state['epochs_done']}" + (f", step {state['step']}" if state["step"] else "")
            source += ", averaged weights" if state["ema"] else ""
        elif source is None:
            raise FileNotFoundError(f"no checkpoint in {path}: allowed is a run folder with one, or model.weights=FILE")
        loader = _make_val_loader(config, world)
        precision = choose_precision(config.training.precision, world.device)
        scores = evaluate(
            EvaluationStep(model, precision=precision, device=world.device),
            loader,
            resolution=config.validation.resolution,
            flip_tta=config.validation.flip_tta,
        )
    if world.is_main:
        left_out = loader.num_samples - scores.images
        damaged = f", {left_out} damaged ones left out" if left_out else ""
        print(
            f"top-1 {100 * scores.top_1:.3f} %  top-5 {100 * scores.top_5:.3f} %  val loss {scores.loss:.4f}  "
            f"({scores.images} images{damaged}; {source})"
        )
    return scores


def _make_trainer(config: TrainConfig, world: World, stop: StopSignals) -> Trainer:
    assert config.data.train is not None  # Checked with the configuration.
    train_data, val_data = _read_manifest(config.data.train), _read_manifest(config.data.val)
    if train_data.classes != val_data.classes:
        raise ValueError(f"{config.data.train} and {config.data.val} have different classes")
    training = config.training
    check_resolutions(config.model.arch, val_data.num_classes, config.extreme_sides())
    train_loader = make_train_loader(config, world)
    model = _make_model(config, val_data.num_classes, world)
    skip_nonfinite = training.on_nonfinite == "skip"
    return Trainer(
        model=model,
        loss=config.make_loss().to(world.device),
        optimizer=make_sgd(model, momentum=training.momentum, weight_decay=training.weight_decay),
        train_loader=train_loader,
        val_loader=_make_val_loader(config, world),
        world=world,
        stop=stop,
        options=TrainerOptions(
            epochs=training.epochs,
            accumulation=training.accumulation,
            precision=choose_precision(training.precision, world.device),
            seed=training.seed,
            lr=config.make_lr(),
            resolution=config.make_resolution(),
            val_resolution=config.validation.resolution,
            flip_tta=config.validation.flip_tta,
            progress_bar=config.logging.progress_bar and sys.stderr.isatty(),
            skip_nonfinite=skip_nonfinite,
            checkpoint_steps=config.checkpoint.every_steps,
            compile=_choose_compile(config, world),
            ema=training.ema or 0.0,
        ),
    )


def _choose_compile(config: TrainConfig, world: World) -> str:
    return choose_compile(config.training.compile, world.device, sync_bn=config.dist.sync_bn, processes=world.size)


def _train_order(config: TrainConfig, data: Manifest, world: World) -> ShuffledOrder:
    shape = (data.num_samples, config.training.seed, config.training.batch_size, world.rank, world.size)
    if config.data.order == "random":
        return ShuffledOrder(*shape)
    if world.is_main and not data.parameters.shuffle:
        print(
            f"warning: {config.data.train} holds its images class by class: with data.order=quasi_random a batch mixes "
            f"few classes; write it with --write.shuffle=1",
            file=sys.stderr,
        )
    return QuasiRandomOrder(*shape, block=max(1, READ_TOGETHER * data.num_samples // data.num_bytes))


def _make_model(config: TrainConfig, num_classes: int, world: World) -> nn.Module:
    _set_up_torch(config, world)
    torch.manual_seed(config.training.seed)
    model = build_model(config.model.arch, num_classes, blurpool=config.model.blurpool)
    if config.model.weights is not None:
        load_weights(model, Path(config.model.weights))
    if config.dist.sync_bn and world.size > 1:
        if world.device.type == "cpu":
            raise ValueError("dist.sync_bn: got 1, allowed on CPUs is 0 (torch synchronises on GPUs only)")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model.to(memory_format=torch.channels_last).to(world.device)


def make_train_loader(config: TrainConfig, world: World) -> BatchLoader:
    """This rank's batches of the training images, as ``config`` says."""
    assert config.data.train is not None  # Checked with the configuration.
    data = _read_manifest(config.data.train)
    decoder = RandomResizedCropDecoder(
        config.resolution.min_res,
        seed=config.training.seed,
        min_area=config.data.min_crop_area,
        flip=config.data.flip,
    )
    return _make_loader(
        config,
        world,
        config.data.train,
        decoder,
        _train_order(config, data, world),
        batch_size=config.per_rank_batch(world.size),
        on_damaged="fail" if config.data.on_error == "fail" else "replace",
    )


def _make_val_loader(config: TrainConfig, world: World) -> BatchLoader:
    data = _read_manifest(config.data.val)
    return _make_loader(
        config,
        world,
        config.data.val,
        CenterCropDecoder(config.validation.resolution),
        ShardedOrder(data.num_samples, world.rank, world.size),
        batch_size=config.validation.batch_size,
        # Nothing can stand in for a validation image; the scores are those of the rest, on any number of processes.
        on_damaged="fail" if config.data.on_error == "fail" else "leave_out",
    )


def _set_up_torch(config: TrainConfig, world: World) -> None:
    if world.device.type == "cpu":
        # Importing ffcv has made it 1, and so does torchrun.
        threads = config.dist.cpu_threads or _share_of_cores(world)
        torch.set_num_threads(threads)
    # TF32 for what autocast leaves in float32; training.precision=fp32 means float32.
    exact = choose_precision(config.training.precision, world.device) == "fp32"
    torch.set_float32_matmul_precision("highest" if exact else "high")
    torch.backends.cudnn.allow_tf32 = not exact
    torch.backends.cudnn.benchmark = True
    if "TORCHINDUCTOR_COMPILE_THREADS" not in os.environ:
        # All processes of a machine compile at the same time, each with as many others as there are cores.
        torch._inductor.config.compile_threads = min(32, _share_of_cores(world))


def _share_of_cores(world: World) -> int:
    """This process's share of the usable cores."""
    return max(1, len(os.sched_getaffinity(0)) // world.local_size)


def _decoding_threads(world: World) -> int:
    """Of a loader, unless ``data.num_workers`` says so. With a GPU two cores are left: for the thread that starts the
    kernels of the forward pass, and for autograd's, which starts those of the backward pass."""
    return max(1, _share_of_cores(world) - (2 if world.device.type == "cuda" else 0))


def _make_loader(
    config: TrainConfig,
    world: World,
    beton: str,
    decoder: CropDecoder,
    order: ShuffledOrder | ShardedOrder,
    *,
    batch_size: int,
    on_damaged: Literal["fail", "replace", "leave_out"],
) -> BatchLoader:
    path, cores = Path(beton), _share_of_cores(world)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "num_workers": config.data.num_workers or _decoding_threads(world),
        "device": world.device,
        "on_damaged": on_damaged,
    }
    if choose_decoder(config.data.decode, path, world.device, cores) == "cpu":
        return BatchLoader(path, decoder, order, **options)
    dtype = input_dtype(choose_precision(config.training.precision, world.device))
    return GPUBatchLoader(path, decoder, order, dtype=dtype, **options)


def _read_manifest(path: str) -> Manifest:
    return Manifest.read(Path(path))


def _load_model(model: nn.Module, state: dict[str, Any]) -> None:
    try:
        model.load_state_dict(checkpoint_weights(state))
    except RuntimeError as error:
        raise ValueError(f"the checkpoint is of another model: {' '.join(str(error).split())[:300]}") from None


def _params(config: TrainConfig, world: World, name: str, recipe: str, command: Sequence[str]) -> dict[str, Any]:
    """What ``params.json`` says."""
    assert config.data.train is not None  # Checked with the configuration.
    return {
        "name": name,
        "recipe": recipe,
        "config": flatten(config),
        "command": list(command),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "train_data": _read_manifest(config.data.train).checksum,
        "val_data": _read_manifest(config.data.val).checksum,
        "world_size": world.size,
        "micro_batch": config.per_rank_batch(world.size),
        "precision": choose_precision(config.training.precision, world.device),
        "compile": _choose_compile(config, world),
        "launcher": launcher(),
        **describe_environment(world.device),
    }
