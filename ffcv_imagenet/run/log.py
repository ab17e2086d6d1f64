"""A line of a run's log: one epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EpochLog:
    """A line of ``log.jsonl``. Shares are in 0..1, losses in nats, times in seconds; images/s over all ranks.

    ``val_loss`` is the plain cross entropy of the validation images, whatever the training loss; with
    ``validation.flip_tta``, of the logits averaged over an image and its mirror image. ``val_nonfinite`` validation
    images have logits that are not finite: if there are any, ``top_1``, ``top_5`` and ``val_loss`` are None.

    ``epoch`` counts from 1; ``lr`` is the rate of the epoch's last step; ``total_seconds`` since the run's first start,
    without pauses and without work that was lost; ``wait_share`` is the share of the training time that passed without
    data, where neither counts the time until the first batch after a start of the program; ``skipped_steps`` are those
    left out because of their loss; ``skipped`` damaged training images had another one in their place; ``val_skipped``
    damaged validation images are not in the scores; ``cpu_decoded`` is the share of the training images since the last
    start that rank 0 decoded on the CPU.
    """

    epoch: int
    train_loss: float
    top_1: float | None
    top_5: float | None
    val_loss: float | None
    lr: float
    resolution: int
    images_per_second: float
    seconds: float
    total_seconds: float
    wait_share: float
    skipped_steps: int
    skipped: int
    val_skipped: int
    val_nonfinite: int
    cpu_decoded: float


def best_epoch(log: list[dict[str, Any]]) -> int | None:
    """The epoch of the best top-1, the first of equals; None where no epoch has one."""
    scored = [line for line in log if line["top_1"] is not None]
    return max(scored, key=lambda line: line["top_1"])["epoch"] if scored else None


def format_line(line: EpochLog, epochs: int) -> str:
    """The summary line of an epoch for the terminal."""
    skipped = f"{line.skipped} training and {line.val_skipped} validation images skipped"
    damaged = f"  damaged: {skipped}" if line.skipped or line.val_skipped else ""
    if line.top_1 is None or line.top_5 is None or line.val_loss is None:
        scores = f"no scores: {line.val_nonfinite} validation images have logits that are not finite"
        val_loss = ""
    else:
        scores = f"top-1 {100 * line.top_1:6.2f} %  top-5 {100 * line.top_5:6.2f} %"
        val_loss = f"  val loss {line.val_loss:.4f}"
    return (
        f"epoch {line.epoch:3d}/{epochs}  {scores}  train loss {line.train_loss:.4f}{val_loss}  "
        f"lr {line.lr:.4g}  {line.resolution} px  "
        f"{line.images_per_second:.0f} img/s  waited {100 * line.wait_share:.0f} %  {line.seconds:.1f} s{damaged}"
    )
