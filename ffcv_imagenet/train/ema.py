"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """A copy of ``model`` whose weights follow it: ``average += (1 - d) (weights - average)`` at every step.

    ``d`` rises to ``decay`` as ``(1 + t) / (10 + t)``, t steps done, so that a short training forgets its random start
    too. The statistics of normalisation layers are averaged like weights, because they belong to the averaged weights;
    integers (counters) are copied. A few launches per step, and nothing waits for the device.

    Args:
        model: on its device, in its memory format.
        decay: below 1; at 0.999 the average reaches about a thousand steps back.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)
        pairs = [
            (average, value)
            for averages, values in (
                (self.model.parameters(), model.parameters()),
                (self.model.buffers(), model.buffers()),
            )
            for average, value in zip(averages, values, strict=True)
        ]
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take over the model's weights after ``steps`` steps in all, 1 after the first."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        averages, values = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(averages, values, 1 - decay)
        if self._copied:
            averages, values = zip(*self._copied, strict=True)
            torch._foreach_copy_(averages, values)
