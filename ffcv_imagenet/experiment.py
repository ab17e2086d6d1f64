"""From a configuration to a finished run: builds the parts, trains or evaluates, and keeps the run folder."""

from __future__ import annotations

import contextlib
import datetime
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ffcv_imagenet.config import TrainConfig
from ffcv_imagenet.data.read.loader import BatchLoader
from ffcv_imagenet.distributed import MaxOverRanks, find_world, launcher, on_main, only_on_main, process_group
from ffcv_imagenet.doctor.verdict import judge_log
from ffcv_imagenet.evaluated import find_evaluated
from ffcv_imagenet.limits import memory
from ffcv_imagenet.loaders import make_train_loader, make_val_loader
from ffcv_imagenet.models import build_model, freeze, output_parameters
from ffcv_imagenet.names import shown
from ffcv_imagenet.options import Given, flatten
from ffcv_imagenet.overview import describe
from ffcv_imagenet.progress import Progress
from ffcv_imagenet.resolved import Resolved, resolve
from ffcv_imagenet.resume import compared_params, look_for_start, prepare_start, run_checkpoints
from ffcv_imagenet.run.class_order import read_class_order, rows_in_order
from ffcv_imagenet.run.folder import RunFolder, describe_environment
from ffcv_imagenet.run.log import EpochLog, percent
from ffcv_imagenet.run.loggers import check_installed, make_loggers
from ffcv_imagenet.run.weights import load_weights
from ffcv_imagenet.shortage import building_shortage, evaluation_shortage, training_shortage
from ffcv_imagenet.train.evaluation import evaluate
from ffcv_imagenet.train.interruption import Interrupted, StopSignals
from ffcv_imagenet.train.loss_module import LossModule
from ffcv_imagenet.train.metrics import Scores
from ffcv_imagenet.train.optim import lr_factors, parameter_groups
from ffcv_imagenet.train.out_of_memory import is_out_of_memory
from ffcv_imagenet.train.step import EvaluationStep
from ffcv_imagenet.train.trainer import Trainer, TrainerOptions

T = TypeVar("T")


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
        OSError: memory was too small; says what would fit.
        FloatingPointError: the loss is not finite.
        ConnectionError: another process has ended or does not answer.
        Interrupted: a signal came; everything is saved.
    """
    world, path = find_world(config.dist.device), _run_path(config, recipe)
    loggers: dict[str, Any] = {"tensorboard": config.logging.tensorboard, "wandb": config.logging.wandb}
    with contextlib.ExitStack() as stack:
        folder = None
        try:
            with process_group(world, config.dist.timeout_minutes):
                on_main(world, lambda: check_installed(**loggers))
                exchange = MaxOverRanks(config.dist.timeout_minutes)
                stop = stack.enter_context(StopSignals(exchange))
                start = resolve(config, world)
                start.set_up_torch()
                trainer = _with_enough_memory(
                    lambda: make_trainer(start, stop, make_train_loader(start), make_val_loader(start)),
                    functools.partial(building_shortage, start),
                )
                explain = functools.partial(training_shortage, start, trainer)
                params = _params(start, path.name, recipe, command)
                state, params = on_main(world, lambda: prepare_start(config, path, params, stack))
                if state is not None:
                    trainer.load_state_dict(state)
                if world.is_main:
                    print("\n".join([*describe(start, trainer.steps, path), *_goes_on(state)]), flush=True)
                params["compilation_seconds"] = _with_enough_memory(trainer.warm_up, explain)
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
                checkpoints = run_checkpoints(config, path, params, start.val_data) if world.is_main else None
                last = _with_enough_memory(lambda: trainer.fit(folder, checkpoints), explain)
                exchange.finish()
        except BaseException as error:
            if folder is not None:
                stopped = isinstance(error, (KeyboardInterrupt, Interrupted))
                folder.write_status("interrupted" if stopped else "failed", None if stopped else str(error))
            raise
        if folder is not None:
            folder.write_status("finished")
            scores = f"top-1 {percent(last.top_1)} %, top-{last.k} {percent(last.top_k)} %"
            print(f"final {scores}; the run lies in {shown(path)}\n{_limit(start, trainer.log)}")
        return last


def dry_run(config: TrainConfig, *, recipe: str = "none") -> None:
    """Say what :func:`train` would do, and refuse what it would refuse; writes nothing. The same call on every rank.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: a user's mistake.
    """
    world, path = find_world(config.dist.device), _run_path(config, recipe)
    with process_group(world, config.dist.timeout_minutes):
        check_installed(tensorboard=config.logging.tensorboard, wandb=config.logging.wandb)
        start = resolve(config, world)
        steps = len(make_train_loader(start)) // config.training.accumulation
        make_val_loader(start)
        model = make_model(start, torch.device("cpu"))
        make_optimizer(config, model)
        assert start.train_data is not None
        LossModule(config.make_loss(), start.train_data.images_per_class, config.training.epochs)
        state = on_main(world, lambda: look_for_start(config, path, _params(start, path.name, recipe, ())))
        if world.is_main:
            print("\n".join([*describe(start, steps, path), *_goes_on(state)]), flush=True)


def _goes_on(state: dict[str, Any] | None) -> list[str]:
    """From where a run is continued, as no or one line."""
    if state is None:
        return []
    step = f" and step {state['step']} of the next" if state["step"] else ""
    return [f"continues after {state['epochs_done']} epochs{step}"]


def evaluate_only(config: TrainConfig, *, given: Given | None = None, recipe: str = "none") -> Scores:
    """Evaluate the checkpoint or the weights that ``config`` names; the same call on every rank.

    A checkpoint is evaluated as its run was validated: what ``given`` does not say comes from the checkpoint.

    Args:
        config: all options.
        given: those of them that a user gave; None: all.
        recipe: name of the recipe, for the name of the run folder.

    Raises:
        ValueError, FileNotFoundError: a user's mistake.
        FloatingPointError: logits are not finite.
        OSError: memory was too small; says what would fit.
    """
    world, path = find_world(config.dist.device), _run_path(config, recipe)
    given = given or Given(flatten(config), {})
    with process_group(world, config.dist.timeout_minutes):
        found = on_main(world, lambda: find_evaluated(config, path))
        if found is not None:
            config = found.config(given)
        start = resolve(config, world)
        start.set_up_torch()
        if found is not None:
            found.check_classes(start.config, start.val_data)
            if world.is_main:
                print("\n".join(found.describe(start.config, start.val_data)), flush=True)
        model = make_model(start)
        if found is not None:
            found.load_into(model)
        loader = make_val_loader(start)
        normalize = start.make_normalize().to(world.device)
        step = EvaluationStep(model, normalize, precision=start.precision, device=world.device)
        hidden = not (world.is_main and config.logging.progress_bar)
        with Progress("evaluation", len(loader), "batches", hidden=hidden) as progress:
            scores = _with_enough_memory(
                lambda: evaluate(
                    step,
                    loader,
                    resolution=config.validation.resolution,
                    flip_tta=config.validation.flip_tta,
                    top_k=start.top_k,
                    after_batch=progress.update,
                ),
                functools.partial(evaluation_shortage, start, step),
            )
    source = found.source if found else config.model.weights
    if scores.top_1 is None or scores.top_k is None or scores.loss is None:
        text = (
            f"{scores.nonfinite} of {scores.images} validation images have logits that are not finite: there are no "
            f"scores ({source}); training.precision=fp32 may help"
        )
        raise only_on_main(world, FloatingPointError(text))
    if world.is_main:
        left_out = loader.num_samples - scores.images
        damaged = f", {left_out} damaged ones left out" if left_out else ""
        print(
            f"top-1 {100 * scores.top_1:.3f} %  top-{scores.k} {100 * scores.top_k:.3f} %  val loss {scores.loss:.4f}  "
            f"({scores.images} images{damaged}; {source})"
        )
    return scores


def _run_path(config: TrainConfig, recipe: str) -> Path:
    return Path(config.logging.folder) / (config.logging.name or config.default_name(recipe))


def _with_enough_memory(work: Callable[[], T], explain: Callable[[str], str]) -> T:
    """What ``work()`` returns; where memory is too small for it, OSError says what ``explain(message)`` does."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error)
    # The exception is gone, and with it the frames that held the step's tensors.
    raise OSError(explain(said))


def _limit(start: Resolved, log: Sequence[Mapping[str, Any]]) -> str:
    """What limited a training, in one line, by its log."""
    assert start.train_data is not None
    lines = [EpochLog.from_line(line) for line in log]
    images = start.train_data.num_samples
    return judge_log(
        [(images / (line.images_per_second or images), line.wait_share or 0.0) for line in lines],
        device=start.world.device.type,
        decoder=start.train_decoder,
        file_bytes=start.train_data.num_bytes,
        cache_bytes=memory().available,
    )


def make_trainer(start: Resolved, stop: StopSignals, train_loader: BatchLoader, val_loader: BatchLoader) -> Trainer:
    """The trainer that the options describe, for the batches of these loaders."""
    config, world, training, train_data = start.config, start.world, start.config.training, start.train_data
    assert train_data is not None
    model = make_model(start)
    return Trainer(
        model=model,
        loss=LossModule(config.make_loss(), train_data.images_per_class, training.epochs).to(world.device),
        optimizer=make_optimizer(config, model),
        train_loader=train_loader,
        val_loader=val_loader,
        normalize=start.make_normalize().to(world.device),
        world=world,
        stop=stop,
        augmentation=start.make_augmentation(),
        options=TrainerOptions(
            epochs=training.epochs,
            max_steps=training.max_steps,
            evaluate_every=config.validation.every,
            accumulation=training.accumulation,
            precision=start.precision,
            seed=training.seed,
            lr=config.make_lr(),
            resolution=config.make_resolution(),
            val_resolution=config.validation.resolution,
            flip_tta=config.validation.flip_tta,
            top_k=start.top_k,
            show_progress=config.logging.progress_bar,
            skip_nonfinite=training.on_nonfinite == "skip",
            checkpoint_steps=config.checkpoint.every_steps,
            compile=start.compile,
            ema=training.ema or 0.0,
            clip_norm=training.clip_norm,
        ),
    )


def make_model(start: Resolved, device: torch.device | None = None) -> nn.Module:
    """The network, with the weights that the options name, on ``device`` (None: that of ``start``)."""
    config, world = start.config, start.world
    torch.manual_seed(config.training.seed)
    model = build_model(
        config.model.arch,
        start.num_classes,
        blurpool=config.model.blurpool,
        cosine_scale=config.make_loss().cosine_scale,
        **config.model.network(),
    )
    if config.model.weights is not None:
        loaded = _load_weights(model, start)
        if world.is_main:
            print(loaded, flush=True)
    for part in config.model.frozen.split(",") if config.model.frozen else ():
        freeze(model, part)
    if config.dist.sync_bn and world.size > 1:
        if world.device.type == "cpu":
            raise ValueError("dist.sync_bn: got 1, allowed on CPUs is 0 (torch synchronises on GPUs only)")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model.to(memory_format=torch.channels_last).to(device or world.device)


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the parameters of ``model`` that are trained."""
    training = config.training
    factors = None
    if training.head_lr != 1 or training.layer_decay != 1:
        head = _output_parameters(config)
        factors = lr_factors(model, head, head_lr=training.head_lr, layer_decay=training.layer_decay)
    groups = parameter_groups(model, training.weight_decay, training.decay, factors)
    return config.make_optimizer().make(groups)


def _output_parameters(config: TrainConfig) -> list[str]:
    """Names of the parameters of the output layer, which the loss may decide."""
    model = config.model
    return output_parameters(model.arch, cosine_scale=config.make_loss().cosine_scale, **model.network())


def _load_weights(model: nn.Module, start: Resolved) -> str:
    """Load what ``model.weights`` names, as the other options of the section say; returns a line about it."""
    options, rows = start.config.model, None
    assert options.weights is not None
    if options.class_order is not None:
        file = Path(options.class_order)
        rows = rows_in_order(read_class_order(file), start.val_data.classes, file)
    return load_weights(
        model,
        Path(options.weights),
        options.arch,
        average=options.average,
        head=_output_parameters(start.config),
        new_head=options.head == "new",
        rows=rows,
        resize=options.positions == "resize",
    )


def _params(start: Resolved, name: str, recipe: str, command: Sequence[str]) -> dict[str, Any]:
    """What ``params.json`` says."""
    config, world, data = start.config, start.world, start.train_data
    assert data is not None
    return {
        "name": name,
        "recipe": recipe,
        "command": list(command),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **compared_params(config, data, start.val_data, world.size),
        "planned_epochs": config.planned_epochs(data.num_samples),
        "world_size": world.size,
        "precision": start.precision,
        "compile": start.compile,
        "launcher": launcher(),
        **describe_environment(world.device),
    }
