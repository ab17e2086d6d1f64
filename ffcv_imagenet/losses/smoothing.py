"""The weight of label smoothing over the training, for the losses that have it."""

from __future__ import annotations

from dataclasses import dataclass

from ffcv_imagenet.losses.cross_entropy import CrossEntropyLoss
from ffcv_imagenet.options import OrNone, Real, option
from ffcv_imagenet.schedules import linear


@dataclass(frozen=True)
class SmoothingSchedule(CrossEntropyLoss):
    """A loss with ``state["smoothing"]``, which goes linearly from ``smoothing_start`` to ``smoothing_end``."""

    smoothing: float = option(Real(0, 1), "share of the target spread over all classes, at the start and the end", 0.1)
    smoothing_start: float | None = option(OrNone(Real(0, 1)), "that share at the start (none: smoothing)", None)
    smoothing_end: float | None = option(OrNone(Real(0, 1)), "that share at the end (none: smoothing)", None)

    def scheduled(self, epoch: float, epochs: int) -> dict[str, float]:
        """See :meth:`Loss.scheduled`."""
        start = self.smoothing if self.smoothing_start is None else self.smoothing_start
        end = self.smoothing if self.smoothing_end is None else self.smoothing_end
        return {"smoothing": linear(epoch / epochs, start, end)} | super().scheduled(epoch, epochs)
