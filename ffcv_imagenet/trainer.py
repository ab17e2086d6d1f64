"""The training loop: one batch, from the loader to the weights, read top to bottom."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ffcv_imagenet.augment import Normalize
from ffcv_imagenet.checkpoint import CheckpointFolder
from ffcv_imagenet.data.loader import Batch, BatchLoader
from ffcv_imagenet.distributed import World, gather, sum_over_ranks
from ffcv_imagenet.evaluation import evaluate
from ffcv_imagenet.losses import Loss
from ffcv_imagenet.optim import set_lr
from ffcv_imagenet.precision import autocast
from ffcv_imagenet.runlog import RunFolder

#: Seconds between updates of the progress bar; only then the loss is read from the device.
_BAR_SECONDS = 0.5


@dataclass(frozen=True)
class TrainerOptions:
    """What the loop needs to know beside its parts.

    ``accumulation`` micro-batches make a step; ``precision`` is bf16, fp16 or fp32; ``resolution(epoch)`` is the
    side of the training images in pixels, ``val_resolution`` that of the validation images; ``lr(epoch)`` the
    learning rate at a fractional epoch; ``flip_tta`` averages the logits of a validation image and its mirror image.
    """

    epochs: int
    accumulation: int
    precision: str
    seed: int
    lr: Callable[[float], float]
    resolution: Callable[[int], int]
    val_resolution: int
    flip_tta: bool
    progress_bar: bool


@dataclass(frozen=True)
class EpochLog:
    """A line of ``log.jsonl``. Shares are in 0..1, losses in nats, times in seconds; images/s over all ranks.

    ``epoch`` counts from 1; ``lr`` is the rate of the epoch's last step; ``total_seconds`` since the run's first start.
    ``skipped`` damaged training images had another one in their place; ``val_skipped`` damaged validation images are
    not in the scores.
    """

    epoch: int
    train_loss: float
    top_1: float
    top_5: float
    val_loss: float
    lr: float
    resolution: int
    images_per_second: float
    seconds: float
    total_seconds: float
    wait_share: float
    skipped: int
    val_skipped: int


class Trainer:
    """Trains ``model`` on ``train_loader`` and evaluates it on ``val_loader`` after every epoch.

    Args:
        model: on the device of ``world``; wrapped for distribution here.
        loss: on the same device.
        optimizer: over the parameters of ``model``.
        train_loader: batches of this rank, ``steps * accumulation`` of them per epoch.
        val_loader: this rank's part of the validation images.
        world: this process among all.
        options: see :class:`TrainerOptions`.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        train_loader: BatchLoader,
        val_loader: BatchLoader,
        world: World,
        options: TrainerOptions,
    ):
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.train_loader, self.val_loader = train_loader, val_loader
        self.world, self.options = world, options
        self.normalize = Normalize().to(world.device)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=options.precision == "fp16")
        self.distributed_model: nn.Module = model
        if world.size > 1:
            device_ids = [world.device] if world.device.type == "cuda" else None
            self.distributed_model = DistributedDataParallel(model, device_ids=device_ids, gradient_as_bucket_view=True)
        self.epochs_done = 0
        self.log: list[dict[str, Any]] = []
        torch.manual_seed(options.seed * world.size + world.rank)

    def fit(self, folder: RunFolder | None, checkpoints: CheckpointFolder | None) -> EpochLog:
        """Train to the last epoch from wherever the training stands, and return the last epoch's log line.

        Rank 0 writes the log and the checkpoints to ``folder`` and ``checkpoints``; other ranks are given None.

        Raises:
            FloatingPointError: the training loss is not finite.
        """
        for epoch in range(self.epochs_done, self.options.epochs):
            start = time.perf_counter()
            train_loss, train_seconds, waited, skipped = self.train_epoch(epoch)
            scores = evaluate(
                self.model,
                self.val_loader,
                self.normalize,
                device=self.world.device,
                resolution=self.options.val_resolution,
                precision=self.options.precision,
                flip_tta=self.options.flip_tta,
            )
            seconds = time.perf_counter() - start
            images = len(self.train_loader) * self.train_loader.batch_size * self.world.size
            line = EpochLog(
                epoch=epoch + 1,
                train_loss=train_loss,
                top_1=scores.top_1,
                top_5=scores.top_5,
                val_loss=scores.loss,
                lr=self.optimizer.param_groups[0]["lr"],
                resolution=self.options.resolution(epoch),
                images_per_second=images / train_seconds,
                seconds=seconds,
                total_seconds=seconds + (self.log[-1]["total_seconds"] if self.log else 0.0),
                wait_share=waited / train_seconds,
                skipped=skipped,
                val_skipped=self.val_loader.num_samples - scores.images,
            )
            self.log.append(asdict(line))
            self.epochs_done = epoch + 1
            state = self.state_dict()
            if folder is not None and checkpoints is not None:
                folder.write_log(self.log)
                checkpoints.save(state, self.epochs_done, best_epoch(self.log))
                print(format_line(line, self.options.epochs), flush=True)
        return EpochLog(**self.log[-1])

    def train_epoch(self, epoch: int) -> tuple[float, float, float, int]:
        """Train one epoch; returns mean loss, seconds, seconds spent waiting for data, and skipped images."""
        options, accumulation = self.options, self.options.accumulation
        resolution = options.resolution(epoch)
        steps = len(self.train_loader) // accumulation
        loss_sum, skipped = torch.zeros((), dtype=torch.float64, device=self.world.device), 0
        self.distributed_model.train()
        batches = _TimedBatches(self.train_loader.epoch(epoch, resolution))
        start = last_shown = time.perf_counter()
        with contextlib.closing(batches), self._bar(f"epoch {epoch + 1}/{options.epochs}", steps) as bar:
            for step in range(steps):
                lr = options.lr(epoch + step / steps)
                set_lr(self.optimizer, lr)
                self.loss.set_progress((epoch + step / steps) / options.epochs)
                for micro_step in range(accumulation):
                    with self._gradient_sync(micro_step == accumulation - 1):
                        batch = next(batches)
                        loss = self._backward(batch)
                    loss_sum += loss
                    skipped += batch.replaced
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.optimizer.zero_grad(set_to_none=True)
                now = time.perf_counter()
                if bar is not None and now - last_shown > _BAR_SECONDS:
                    last_shown = now
                    rate = (step + 1) * accumulation * self.train_loader.batch_size * self.world.size / (now - start)
                    bar.set_postfix_str(f"loss {loss.item():.3f}, lr {lr:.3g}, {resolution} px, {rate:.0f} img/s")
                    bar.update(step + 1 - bar.n)
        mean_loss = (sum_over_ranks(loss_sum) / (steps * accumulation * self.world.size)).item()
        if not math.isfinite(mean_loss):
            raise FloatingPointError(
                f"the training loss is {mean_loss} in epoch {epoch + 1}, learning rate {lr:.4g}; "
                f"a lower lr.lr or training.precision=fp32 may help"
            )
        all_skipped = sum_over_ranks(torch.tensor(float(skipped), device=self.world.device)).item()
        return mean_loss, time.perf_counter() - start, batches.waited, int(all_skipped)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on. Called on every rank."""
        rng = {"cpu": torch.get_rng_state()}
        if self.world.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.world.device)
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loss": self.loss.state_dict(),
            "epochs_done": self.epochs_done,
            "log": self.log,
            "rng": gather(rng),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state; the random state of ranks that did not exist then stays as it is."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.loss.load_state_dict(state["loss"])
        self.epochs_done, self.log = state["epochs_done"], list(state["log"])
        if self.world.rank < len(state["rng"]):
            rng = state["rng"][self.world.rank]
            torch.set_rng_state(rng["cpu"])
            if self.world.device.type == "cuda" and "cuda" in rng:
                torch.cuda.set_rng_state(rng["cuda"], self.world.device)

    def _backward(self, batch: Batch) -> Tensor:
        """Add the gradients of one micro-batch; returns its mean loss, on the device."""
        images = self.normalize(batch.images)
        with autocast(self.options.precision, self.world.device):
            loss = self.loss(self.distributed_model(images), batch.labels)
        self.scaler.scale(loss / self.options.accumulation).backward()
        return loss.detach()

    def _gradient_sync(self, sync: bool) -> contextlib.AbstractContextManager:
        """Gradients are summed over the ranks in the last micro-batch of a step only."""
        if sync or not isinstance(self.distributed_model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.distributed_model.no_sync()

    def _bar(self, title: str, steps: int) -> contextlib.AbstractContextManager[tqdm | None]:
        if not (self.world.is_main and self.options.progress_bar):
            return contextlib.nullcontext()
        return tqdm(desc=title, total=steps, unit="step", leave=False, dynamic_ncols=True)


def best_epoch(log: list[dict[str, Any]]) -> int:
    """The epoch of the best top-1, the first of equals."""
    return max(log, key=lambda line: line["top_1"])["epoch"]


def format_line(line: EpochLog, epochs: int) -> str:
    """The summary line of an epoch for the terminal."""
    skipped = f"{line.skipped} training and {line.val_skipped} validation images skipped"
    damaged = f"  damaged: {skipped}" if line.skipped or line.val_skipped else ""
    return (
        f"epoch {line.epoch:3d}/{epochs}  top-1 {100 * line.top_1:6.2f} %  top-5 {100 * line.top_5:6.2f} %  "
        f"train loss {line.train_loss:.4f}  val loss {line.val_loss:.4f}  lr {line.lr:.4g}  {line.resolution} px  "
        f"{line.images_per_second:.0f} img/s  waited {100 * line.wait_share:.0f} %  {line.seconds:.1f} s{damaged}"
    )


class _TimedBatches:
    """The batches of a generator, with the seconds that its consumer had to wait for them."""

    def __init__(self, batches: Iterator[Batch]):
        self.batches, self.waited = batches, 0.0

    def __next__(self) -> Batch:
        start = time.perf_counter()
        batch = next(self.batches)
        self.waited += time.perf_counter() - start
        return batch

    def close(self) -> None:
        self.batches.close()  # type: ignore[attr-defined]
