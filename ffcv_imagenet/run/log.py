"""A line of a run's log: one epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What the names of a loss's own columns begin with.
LOSS_COLUMN = "loss."


@dataclass(frozen=True)
class EpochLog:
    """A line of ``log.jsonl``. Shares are in 0..1, losses in nats, times in seconds; images/s over all ranks.

    ``val_loss`` is the plain cross entropy of the validation images, whatever the training loss; with
    ``validation.flip_tta``, of the logits averaged over an image and its mirror image. ``val_nonfinite`` validation
    images have logits that are not finite: if there are any, ``top_1``, ``top_k`` and ``val_loss`` are None. After an
    epoch that was not evaluated (``validation.every``), all that tells of validation images is None.
    ``top_k`` is the share whose target is one of the ``k`` largest logits.

    ``epoch`` counts from 1; ``lr`` is the rate of the epoch's last step; ``total_seconds`` since the run's first start,
    without pauses and without work that was lost; ``wait_share`` is the share of the training time that passed without
    data, where neither counts the time until the first batch after a start of the program; ``skipped_steps`` are those
    left out because of their loss; ``skipped`` damaged training images had another one in their place; ``val_skipped``
    damaged validation images are not in the scores; ``cpu_decoded`` is the share of the training images since the last
    start that rank 0 decoded on the CPU; ``of_loss`` are columns of the loss's own, in the file as ``loss.alpha`` and
    the like.

    Trainers write all of it. Else None stands for what is not known: logs of earlier versions and of other programs
    lack fields.
    """

    epoch: int
    total_seconds: float
    train_loss: float | None = None
    top_1: float | None = None
    top_k: float | None = None
    k: int | None = None
    val_loss: float | None = None
    lr: float | None = None
    resolution: int | None = None
    images_per_second: float | None = None
    seconds: float | None = None
    wait_share: float | None = None
    skipped_steps: int | None = None
    skipped: int | None = None
    val_skipped: int | None = None
    val_nonfinite: int | None = None
    cpu_decoded: float | None = None
    of_loss: Mapping[str, float] = field(default_factory=dict)

    def as_line(self) -> dict[str, Any]:
        """The line as one flat JSON object."""
        fields = {key: value for key, value in vars(self).items() if key != "of_loss"}
        return fields | {LOSS_COLUMN + name: value for name, value in self.of_loss.items()}

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> EpochLog:
        """The inverse of :meth:`as_line`; other entries of the line are left out."""
        line = current(line)
        fields = {key: value for key, value in line.items() if key in cls.__dataclass_fields__}
        of_loss = {key.removeprefix(LOSS_COLUMN): v for key, v in line.items() if key.startswith(LOSS_COLUMN)}
        return cls(**fields, of_loss=of_loss)


def current(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line as this version writes it: earlier ones have ``top_5`` for ``top_k`` and ``k``."""
    rest = {key: value for key, value in line.items() if key != "top_5"}
    return rest | {"top_k": line["top_5"], "k": 5} if "top_5" in line else rest


def best_epoch(log: list[dict[str, Any]]) -> int | None:
    """The epoch of the best top-1, the first of equals; None where no epoch has one."""
    scored = [line for line in log if line["top_1"] is not None]
    return max(scored, key=lambda line: line["top_1"])["epoch"] if scored else None


def percent(share: float | None, decimals: int = 2) -> str:
    """A share of 1 in per cent, without the sign; a dash for None."""
    return "-" if share is None else f"{100 * share:.{decimals}f}"


def format_line(line: EpochLog, epochs: int) -> str:
    """The summary line of an epoch for the terminal."""
    skipped = f"{line.skipped} training and {line.val_skipped or 0} validation images skipped"
    damaged = f"  damaged: {skipped}" if line.skipped or line.val_skipped else ""
    of_loss = "".join(f"  {name} {value:.4g}" for name, value in line.of_loss.items())
    if line.val_nonfinite:
        scores = f"no scores: {line.val_nonfinite} validation images have logits that are not finite"
        val_loss = ""
    elif line.top_1 is None:
        scores, val_loss = "not evaluated", ""
    else:
        scores = f"top-1 {percent(line.top_1):>6} %  top-{line.k} {percent(line.top_k):>6} %"
        val_loss = f"  val loss {line.val_loss:.4f}"
    return (
        f"epoch {line.epoch:3d}/{epochs}  {scores}  train loss {line.train_loss:.4f}{val_loss}{of_loss}  "
        f"lr {line.lr:.4g}  {line.resolution} px  {line.images_per_second:.0f} img/s  "
        f"waited {percent(line.wait_share, 0)} %  {line.seconds:.1f} s{damaged}"
    )
