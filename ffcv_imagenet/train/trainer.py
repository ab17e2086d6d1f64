"""The training loop: one batch, from the loader to the weights, read top to bottom."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ffcv_imagenet.augment.augmentation import Augmentation
from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.data.read.loader import SLOTS, Batch, BatchLoader
from ffcv_imagenet.distributed import World, gather, sum_over_ranks
from ffcv_imagenet.progress import Progress
from ffcv_imagenet.run.checkpoint import CheckpointFolder
from ffcv_imagenet.run.folder import RunFolder
from ffcv_imagenet.run.log import EpochLog, best_epoch, format_line
from ffcv_imagenet.train.compile_modes import CUDA_GRAPH_MODES
from ffcv_imagenet.train.ema import WeightAverage
from ffcv_imagenet.train.evaluation import evaluate
from ffcv_imagenet.train.interruption import Interrupted, StopSignals
from ffcv_imagenet.train.loss_module import LossModule
from ffcv_imagenet.train.metrics import Scores
from ffcv_imagenet.train.nonfinite import NonfinitePolicy
from ffcv_imagenet.train.optim import get_lr, set_lr
from ffcv_imagenet.train.step import DistributedStep, EvaluationStep, TrainingStep, compile_module
from ffcv_imagenet.train.time_left import guess_evaluation, seconds_left
from ffcv_imagenet.train.wait_clock import WaitClock
from ffcv_imagenet.units import duration

#: After so many steps and seconds from the first step on, the time of the training is told.
_PACE_STEPS, _PACE_SECONDS = 20, 5.0

#: What a process tells the others, like a signal's number but below those, when it has seen a loss that is not finite.
_NONFINITE_SEEN = 1


@dataclass(frozen=True)
class TrainerOptions:
    """What the loop needs to know besides its parts.

    ``accumulation`` micro-batches make a step; ``precision`` is bf16, fp16 or fp32; ``resolution(epoch)`` is the side
    of the training images in pixels, ``val_resolution`` that of the validation images; ``lr(epoch)`` the learning
    rate at a fractional epoch; ``flip_tta`` averages the logits of a validation image and its mirror image;
    ``top_k`` is the k of the score top-k. ``skip_nonfinite`` leaves out steps whose loss or gradients are not
    finite, for which the optimizer must be fused; else such a loss is an error. ``checkpoint_steps`` is the number
    of steps between checkpoints inside an epoch, 0 for none. ``compile`` is off or one of
    :data:`~ffcv_imagenet.train.step.COMPILE_MODES`; ``ema`` the decay of the average of the weights, 0 for none:
    with one, the average is evaluated. Evaluations come after every ``evaluate_every`` epochs, and after the last.
    After ``max_steps`` steps the training ends, with an evaluation, in the middle of its schedules; None: after
    ``epochs``.
    """

    epochs: int
    accumulation: int
    precision: str
    seed: int
    lr: Callable[[float], float]
    resolution: Callable[[int], int]
    val_resolution: int
    flip_tta: bool
    top_k: int
    show_progress: bool
    skip_nonfinite: bool = False
    checkpoint_steps: int = 0
    compile: str = "off"
    ema: float = 0.0
    max_steps: int | None = None
    evaluate_every: int = 1
    clip_norm: float | None = None


@dataclass
class EpochProgress:
    """Where the training stands inside an epoch.

    ``losses [steps] float64`` is, on the device, this rank's sum over the micro-batches of each step (0 for steps to
    come); ``start_up`` the time until the first batch after a start of the program, ``waited`` the time without data
    since then; ``step`` the number of steps done, ``seconds`` of training so far, start-up included; ``skipped`` the
    damaged images of this rank.
    """

    losses: Tensor
    start_up: WaitClock
    waited: WaitClock
    step: int = 0
    skipped: int = 0
    seconds: float = 0.0


class Trainer:
    """Trains ``model`` on ``train_loader`` and evaluates it on ``val_loader`` after epochs.

    Args:
        model: on the device of ``world``; wrapped for distribution here.
        loss: on the same device.
        optimizer: over the parameters of ``model``.
        train_loader: batches of this rank, ``steps * accumulation`` of them per epoch.
        val_loader: this rank's part of the validation images.
        normalize: from uint8 images to the model's input; on the same device.
        world: this process among all.
        stop: asked after every step whether to stop.
        augmentation: of the training batches; None: none.
        options: see :class:`TrainerOptions`.

    Attributes:
        evaluating: whether it computes on validation images, also after an exception.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: LossModule,
        optimizer: torch.optim.Optimizer,
        train_loader: BatchLoader,
        val_loader: BatchLoader,
        normalize: Normalize,
        world: World,
        stop: StopSignals,
        augmentation: Augmentation | None = None,
        options: TrainerOptions,
    ):
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.train_loader, self.val_loader, self.augmentation = train_loader, val_loader, augmentation
        self.world, self.stop, self.options = world, stop, options
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=options.precision == "fp16")
        self.replays_graphs = options.compile in CUDA_GRAPH_MODES and world.device.type == "cuda"
        # A replayed graph writes its gradients where those of the micro-batch before lie: they are added to others.
        self.keeps_gradients = self.replays_graphs and options.accumulation > 1
        if self.keeps_gradients:
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
        self.step = DistributedStep(
            TrainingStep(model, loss, normalize, precision=options.precision, device=world.device),
            world,
            accumulation=options.accumulation,
            compile=options.compile,
            shapes=options.epochs,
        )
        self.ema = WeightAverage(model, options.ema) if options.ema else None
        self.evaluated_model = model if self.ema is None else self.ema.model
        self.evaluated_step = EvaluationStep(
            self.evaluated_model, normalize, precision=options.precision, device=world.device
        )
        self.evaluated_forward = compile_module(self.evaluated_step, options.compile, 1)
        self.nonfinite = NonfinitePolicy(
            [*model.buffers(), *loss.changed_by_steps()],
            skip=options.skip_nonfinite,
            world=world,
            where=self._where,
        )
        self.steps = len(train_loader) // options.accumulation
        self.epochs = options.epochs  # that are trained, at least in part
        if options.max_steps is not None:
            self.epochs = min(options.epochs, math.ceil(options.max_steps / self.steps))
        self.most_val_batches = max(gather(len(val_loader)))
        self.checkpoints: CheckpointFolder | None = None
        self.has_had_data = self.has_told_time = self.evaluating = False
        self.evaluation_seconds: float | None = None
        self.epochs_done = 0
        self.progress = self._new_epoch()
        self.log: list[dict[str, Any]] = []
        torch.manual_seed(options.seed * world.size + world.rank)

    def fit(self, folder: RunFolder | None, checkpoints: CheckpointFolder | None) -> EpochLog:
        """Train to the last epoch from wherever the training stands, and return the last epoch's log line.

        Rank 0 writes the log and the checkpoints to ``folder`` and ``checkpoints``; other ranks are given None.

        Raises:
            FloatingPointError: the training loss, the weights, or the scores are not finite; with ``skip_nonfinite``,
                those of the last epoch, or the losses of a whole epoch.
            Interrupted: a signal came; a checkpoint is written.
        """
        self.checkpoints = checkpoints
        for epoch in range(self.epochs_done, self.epochs):
            self.train_epoch(epoch)
            start = time.perf_counter()
            losses = self._check_finite()  # waits for the device
            not_skipped = losses[losses.isfinite()]
            self.progress.seconds += time.perf_counter() - start
            seconds = train_seconds = self.progress.seconds
            scores = None
            if self._is_evaluated(epoch):
                start = time.perf_counter()
                self.evaluating = True
                scores = self._evaluate()
                self.evaluating = False
                self.nonfinite.check_scores(scores, self.progress.step - 1)
                self.evaluation_seconds = time.perf_counter() - start
                seconds += self.evaluation_seconds
            micro_batches = self._steps_of(epoch) * self.options.accumulation
            images = micro_batches * self.train_loader.batch_size * self.world.size
            line = EpochLog(
                epoch=epoch + 1,
                train_loss=not_skipped.mean().item(),
                k=self.options.top_k,
                **self._of_scores(scores),
                lr=get_lr(self.optimizer),
                resolution=self.options.resolution(epoch),
                images_per_second=images / train_seconds,
                seconds=seconds,
                total_seconds=seconds + (self.log[-1]["total_seconds"] if self.log else 0.0),
                wait_share=self.progress.waited.seconds() / (train_seconds - self.progress.start_up.seconds()),
                cpu_decoded=self.train_loader.cpu_share,
                skipped_steps=len(losses) - len(not_skipped),
                skipped=self._sum(self.progress.skipped),
                # Only now: a checkpoint written during the evaluation is one from before the end of the epoch.
                of_loss=self.loss.end_epoch(),
            )
            self.log.append(line.as_line())
            self.epochs_done, self.progress = epoch + 1, self._new_epoch()
            if folder is not None:
                folder.write_log(self.log)
            self._save()
            if folder is not None:
                print(format_line(line, self.epochs), flush=True)
        last = EpochLog.from_line(self.log[-1])
        self.nonfinite.check_last(last)
        return last

    def _is_evaluated(self, epoch: int) -> bool:
        return (epoch + 1) % self.options.evaluate_every == 0 or epoch + 1 == self.epochs

    def _of_scores(self, scores: Scores | None) -> dict[str, Any]:
        """The fields of an epoch's log line that tell of the validation images."""
        if scores is None:
            return {}
        return {
            "top_1": scores.top_1,
            "top_k": scores.top_k,
            "val_loss": scores.loss,
            "val_skipped": self.val_loader.num_samples - scores.images,
            "val_nonfinite": scores.nonfinite,
        }

    def _evaluate(self) -> Scores:
        with self._show("evaluation", self.most_val_batches, "batches") as shown:

            def after_batch() -> None:
                shown.update()
                self._after_val_batch()

            return evaluate(
                self.evaluated_step,
                self.val_loader,
                resolution=self.options.val_resolution,
                flip_tta=self.options.flip_tta,
                top_k=self.options.top_k,
                forward=self.evaluated_forward,
                after_batch=after_batch,
                calls=self.most_val_batches,
            )

    def warm_up(self) -> float:
        """Compile for every shape of the training to come; returns the seconds that it took. Called on every rank.

        Weights, statistics, the loss's state, optimizer and random state are afterwards what they were.

        Raises:
            OSError: the compiler does not work here.
        """
        options, device = self.options, self.world.device
        sides = sorted({options.resolution(epoch) for epoch in range(self.epochs_done, self.epochs)})
        if options.compile == "off" or not sides:
            return 0.0
        start = time.perf_counter()
        buffers = list(self.step.module.buffers())
        before = [buffer.clone() for buffer in buffers]
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            try:
                self._warm_up(sides)
            except torch._dynamo.exc.TorchDynamoException as error:
                reason = " ".join(str(error).split())[:300]
                raise OSError(f"training.compile={options.compile} fails ({reason}); allowed is off") from error
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    def _warm_up(self, sides: list[int]) -> None:
        """Compute gradients and predictions of random images as often as it takes until nothing is left to prepare."""
        options, device = self.options, self.world.device
        times = 3 if self.replays_graphs else 1  # A graph is recorded at the second time.
        self.step.train()
        with self._show("compiling", len(sides) + 1, "image sizes") as shown:
            for side in shown.over(sides):
                self._warm_up_step(side, times)
            self.evaluating = True
            self.evaluated_step.eval()
            batch = _random_batch(self.val_loader, options.val_resolution, device, self.step.module.normalize)
            with torch.no_grad():
                for _ in range(times):
                    self.evaluated_forward(batch.images)
            self.evaluating = False

    def _warm_up_step(self, side: int, times: int) -> None:
        batch = _random_batch(self.train_loader, side, self.world.device, self.step.module.normalize)
        accumulation = min(2, self.options.accumulation)
        for _ in range(times):
            for micro_step in range(accumulation):
                with self.step.gradient_sync(micro_step == accumulation - 1):
                    self._backward(*self._augmented(batch, self.epochs_done, 0, micro_step))
            self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)

    def largest_side(self) -> int:
        """The side of the largest training images to come, in pixels."""
        return max(
            self.options.resolution(epoch) for epoch in range(min(self.epochs_done, self.epochs - 1), self.epochs)
        )

    def attempt(self, images: int, side: int) -> None:
        """Compute gradients of random images, not compiled, to see whether they fit into the device's memory.

        With all that a training holds then: the loader's other batches, the optimizer's state. Without the other ranks.
        Statistics and the loss's state change.
        """
        batch = _random_batch(self.train_loader, side, self.world.device, self.step.module.normalize, images)
        held = [torch.empty_like(batch.images) for _ in range(SLOTS - 1)]
        if not self.optimizer.state:
            held += map(torch.empty_like, self.model.parameters())
        self.step.module(*self._augmented(batch, self.epochs_done, 0, 0)).backward()
        del held
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)

    def train_on(self, loader: BatchLoader) -> None:
        """Take another loader's batches from now on, from the start of an epoch."""
        self.train_loader, self.steps = loader, len(loader) // self.options.accumulation
        self.progress = self._new_epoch()

    def train_epoch(self, epoch: int) -> None:
        """Train the rest of an epoch; ``progress`` tells how it went."""
        options, accumulation, progress = self.options, self.options.accumulation, self.progress
        resolution = options.resolution(epoch)
        first_step = progress.step
        self.step.train()
        batches = self.train_loader.epoch(epoch, resolution, first_batch=first_step * accumulation)
        now = after_first = time.perf_counter()
        start, seconds_before = now, progress.seconds
        steps = self._steps_of(epoch)
        with (
            contextlib.closing(batches),
            self._show(f"epoch {epoch + 1}/{self.epochs}", steps, "steps", done=first_step) as shown,
        ):
            for step in range(first_step, steps):
                lr = options.lr(epoch + step / self.steps)
                set_lr(self.optimizer, lr)
                self.loss.set_epoch(epoch + step / self.steps)
                self.nonfinite.begin_step()
                for micro_step in range(accumulation):
                    with self.step.gradient_sync(micro_step == accumulation - 1):
                        with progress.waited if self.has_had_data else progress.start_up:
                            batch = next(batches)
                        self.has_had_data = True
                        loss = self._backward(*self._augmented(batch, epoch, step, micro_step))
                    progress.losses[step].add_(loss)
                    progress.skipped += batch.replaced
                self._update_weights(progress.losses[step])
                now = time.perf_counter()
                progress.step, progress.seconds = step + 1, seconds_before + now - start
                after_first = now if step == first_step else after_first
                timed = step - first_step  # steps after the first one, which may have had to wait for much
                seen_nonfinite = False
                if shown.is_due():
                    loss_value = progress.losses[step].item() / accumulation  # waits for the device
                    seen_nonfinite = not math.isfinite(loss_value)
                    rate = (timed + 1) * accumulation * self.train_loader.batch_size * self.world.size / (now - start)
                    note = f"loss {loss_value:.3f}, lr {lr:.3g}, {resolution} px, {rate:.0f} img/s"
                    if timed:
                        note += f", {duration(self._seconds_left((now - after_first) / timed))} to the end"
                    shown.update(progress.step - shown.done, note)
                if not self.has_told_time and timed >= _PACE_STEPS and now - after_first >= _PACE_SECONDS:
                    self.has_told_time, pace = True, (now - after_first) / timed
                    left = duration(self._seconds_left(pace))
                    shown.say(f"about {left} to go on this machine, at {pace:.3g} s a step of {resolution} px")
                self._after_step(seen_nonfinite)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on. Called on every rank, between two steps.

        The statistics of rank 0's normalisation layers are enough, see :func:`ffcv_imagenet.train.step.distribute`.
        """
        rng = {"cpu": torch.get_rng_state()}
        if self.world.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.world.device)
        progress = self.progress
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loss": self.loss.state_over_ranks(),
            "epochs_done": self.epochs_done,
            "step": progress.step,
            "losses": sum_over_ranks(progress.losses.clone()),
            "skipped": self._sum(progress.skipped),
            "seconds": progress.seconds,
            "start_up": progress.start_up.seconds(),
            "waited": progress.waited.seconds(),
            "log": self.log,
            "rng": gather(rng),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state; the random state of ranks that did not exist then stays as it is."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.model.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.loss.load_state_over_ranks(state["loss"], is_main=self.world.is_main)
        self.epochs_done, self.log = state["epochs_done"], list(state["log"])
        self.progress = self._new_epoch()
        self.progress.step, self.progress.seconds = state["step"], state["seconds"]
        self.progress.start_up = _host_clock(state.get("start_up", 0.0))  # Older checkpoints do not have it.
        self.progress.waited = WaitClock(self.world.device, state["waited"])
        if self.world.is_main:  # They are the sums over the ranks.
            self.progress.losses.copy_(state["losses"])
            self.progress.skipped = state["skipped"]
        if self.world.rank < len(state["rng"]):
            rng = state["rng"][self.world.rank]
            torch.set_rng_state(rng["cpu"])
            if self.world.device.type == "cuda" and "cuda" in rng:
                torch.cuda.set_rng_state(rng["cuda"], self.world.device)

    def _steps_of(self, epoch: int) -> int:
        """Steps that are taken in an epoch: all of them, but for the last one before ``max_steps``."""
        most = self.options.max_steps
        return self.steps if most is None else min(self.steps, most - epoch * self.steps)

    def _sum(self, number: int) -> int:
        """The sum over the ranks."""
        return int(sum_over_ranks(torch.tensor(number, device=self.world.device)).item())

    def _new_epoch(self) -> EpochProgress:
        device = self.world.device
        losses = torch.zeros(self.steps, dtype=torch.float64, device=device)
        return EpochProgress(losses, _host_clock(), WaitClock(device))

    def _augmented(self, batch: Batch, epoch: int, step: int, micro_step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """A micro-batch as :class:`TrainingStep` takes it."""
        if self.augmentation is None:
            return batch.images, batch.labels, None
        # Of the global batch of a step each rank has a part, which its micro-batches cut up.
        micro_batches = (step * self.world.size + self.world.rank) * self.options.accumulation + micro_step
        first = micro_batches * self.train_loader.batch_size
        images, mixture = self.augmentation(batch.images, epoch=epoch, step=step, first=first)
        return images, batch.labels, mixture

    def _backward(self, images: Tensor, labels: Tensor, mixture: Tensor | None) -> Tensor:
        """Add the gradients of one micro-batch; returns its mean loss, on the device."""
        loss = self.nonfinite.share(self.step(images, labels, mixture))
        self.scaler.scale(loss / self.options.accumulation).backward()
        return loss.detach()

    def _update_weights(self, loss: Tensor) -> None:
        """Take the optimizer's step for ``loss``; see :meth:`NonfinitePolicy.before_update`."""
        self.nonfinite.before_update(loss, self.model.parameters(), self.optimizer, self.scaler)
        if self.options.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)
        if self.ema is not None:
            self.ema.update(self.epochs_done * self.steps + self.progress.step + 1)

    def _after_step(self, seen_nonfinite: bool) -> None:
        """Write a checkpoint when it is time; stop when a process was asked to, or has seen a loss to stop for."""
        step, every = self.progress.step, self.options.checkpoint_steps
        agreed = self.stop.agreed(_NONFINITE_SEEN if seen_nonfinite else 0)
        if agreed > _NONFINITE_SEEN:
            self._stop(agreed)
        elif every and step % every == 0 and step < self._steps_of(self.epochs_done):
            self._save()
        elif agreed:
            self._check_finite()

    def _after_val_batch(self) -> None:
        signum = self.stop.agreed()
        if signum > _NONFINITE_SEEN:
            self._stop(signum)

    def _stop(self, signum: int) -> None:
        stopped = Interrupted(signum)
        file = self._save()
        if file is not None:
            print(
                f"interrupted by {stopped.signal}: saved {file}; --checkpoint.resume=auto continues from there",
                file=sys.stderr,
            )
        raise stopped

    def _save(self) -> Path | None:
        """Write a checkpoint on rank 0, if everything in it is finite; called on every rank."""
        if self.progress.step:
            self._check_finite()
        state = self.state_dict()
        if self.checkpoints is None:
            return None
        return self.checkpoints.save(state, self.epochs_done, self.progress.step, best_epoch(self.log))

    def _check_finite(self) -> Tensor:
        """Mean losses of the epoch's steps so far, [steps done] float64 on the CPU. Called on every rank.

        Raises:
            FloatingPointError: a loss is not finite and is not to be skipped, a whole epoch is skipped, or there are
                weights that are not finite.
        """
        losses = sum_over_ranks(self.progress.losses[: self.progress.step].clone())
        losses = losses.cpu() / (self.options.accumulation * self.world.size)
        self.nonfinite.check_losses(losses, self._steps_of(self.epochs_done))
        self.nonfinite.check_weights(dict.fromkeys((self.model, self.evaluated_model)), self.progress.step - 1)
        return losses

    def _where(self, step: int) -> str:
        """Where the training stands after a step of this epoch, for an error message."""
        epoch, files = self.epochs_done, self.checkpoints.files() if self.checkpoints else []
        return (
            f"after step {step + 1} of {self.steps} in epoch {epoch + 1}, "
            f"learning rate {self.options.lr(epoch + step / self.steps):.4g}; "
            f"last good checkpoint: {files[-1] if files else 'none'}"
        )

    def _seconds_left(self, seconds_per_step: float) -> float:
        """The time from here to the end of the training, from that of a step of this epoch; in seconds."""
        options, loader, epoch = self.options, self.val_loader, self.epochs_done
        sides = [options.resolution(e) for e in range(self.epochs)]
        evaluation = self.evaluation_seconds
        if evaluation is None:
            evaluation = guess_evaluation(
                self.most_val_batches * loader.batch_size,
                options.val_resolution,
                step_images=options.accumulation * self.train_loader.batch_size,
                step_side=sides[epoch],
                seconds_per_step=seconds_per_step,
                passes=1 + options.flip_tta,
            )
        return seconds_left(
            [self._steps_of(e) for e in range(self.epochs)],
            sides,
            epoch=epoch,
            step=self.progress.step,
            seconds_per_step=seconds_per_step,
            evaluations_seconds=evaluation * sum(map(self._is_evaluated, range(epoch, self.epochs))),
        )

    def _show(self, what: str, total: int, unit: str, done: int = 0) -> Progress:
        hidden = not (self.world.is_main and self.options.show_progress)
        return Progress(what, total, unit, done=done, hidden=hidden)


def _host_clock(seconds: float = 0.0) -> WaitClock:
    """A clock that does not ask the device, which has nothing to do before the first batch."""
    return WaitClock(torch.device("cpu"), seconds)


def _random_batch(
    loader: BatchLoader, side: int, device: torch.device, normalize: Normalize, size: int | None = None
) -> Batch:
    """A batch in the loader's type and memory format; of its size unless ``size`` says another."""
    size = size or loader.batch_size
    images = torch.randint(0, 256, (size, side, side, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    if loader.dtype != torch.uint8:
        images = normalize(images).to(loader.dtype)
    return Batch(images, torch.zeros(size, dtype=torch.int64, device=device), replaced=0)
