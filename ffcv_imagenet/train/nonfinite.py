"""What a training does about losses, gradients, weights and scores that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ffcv_imagenet.distributed import World, only_on_main, sum_over_ranks
from ffcv_imagenet.run.log import EpochLog
from ffcv_imagenet.train.metrics import Scores


class NonfinitePolicy:
    """Skips steps whose loss or gradients are not finite, or ends the training; the same on every rank.

    A skipped step changes neither weights nor momenta nor buffers. The device decides: nothing waits for it until one
    of the checks is called.

    Args:
        buffers: what a step changes besides weights and momenta, restored when it is skipped.
        skip: skip such steps, for which the optimizer must be fused; else the next check raises.
        world: this process among all.
        where: after which step of the epoch (counted from 0), as the end of an error message.
    """

    def __init__(self, buffers: Iterable[Tensor], *, skip: bool, world: World, where: Callable[[int], str]):
        self.skip = skip
        self._world, self._where = world, where
        self._buffers = list(buffers) if skip else []
        self._buffers_before = [buffer.clone() for buffer in self._buffers]

    def begin_step(self) -> None:
        """Remember the buffers before a step."""
        if self._buffers:
            torch._foreach_copy_(self._buffers_before, self._buffers)

    def share(self, loss: Tensor) -> Tensor:
        """A micro-batch's loss in a form whose gradients tell the other ranks when it is not finite."""
        # Times 1, or times NaN: then all gradients are NaN, on all ranks, and all of them skip the step.
        return loss * (1 + 0 * loss.detach()) if self.skip else loss

    def before_update(
        self,
        loss: Tensor,
        parameters: Iterable[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> None:
        """Keep the optimizer from a step that is to be skipped. ``loss`` becomes NaN if its gradients are the reason.

        Under fp16 the scaler skips steps with such gradients anyway, and they are no failure: it is searching for its
        scale.
        """
        if not self.skip:
            return
        if not scaler.is_enabled():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            loss.add_(0 * nn.utils.get_total_norm(gradients, norm_type=math.inf))
            optimizer.found_inf = (~loss.isfinite()).float()  # type: ignore[attr-defined]
        skipped = ~loss.isfinite()
        for buffer, before in zip(self._buffers, self._buffers_before, strict=True):
            torch.where(skipped, before, buffer, out=buffer)

    def check_losses(self, losses: Tensor, steps: int) -> None:
        """Check the mean losses, over all ranks, of an epoch's first steps, on the CPU; ``steps`` are all of them.

        Raises:
            FloatingPointError: one is not finite and is not to be skipped, or all ``steps`` are skipped.
        """
        finite = losses.isfinite()
        skipped = int((~finite).sum())
        if skipped == steps or (skipped and not self.skip):
            first = int(finite.int().argmin())
            raise self._error(f"the training loss is {losses[first].item()}", first)

    def check_weights(self, models: Iterable[nn.Module], step: int) -> None:
        """Check the weights and statistics of ``models`` after ``step``. Called on every rank; waits for the device.

        Raises:
            FloatingPointError: one is not finite on any rank.
        """
        floats = [value for model in models for value in model.state_dict().values() if value.is_floating_point()]
        if sum_over_ranks((~torch.stack([value.isfinite().all() for value in floats])).sum()).item():
            raise self._error("the weights are not finite", step)

    def check_scores(self, scores: Scores, step: int) -> None:
        """Check the scores of the weights after ``step``. Called on every rank.

        Raises:
            FloatingPointError: there are none, and steps are not to be skipped either.
        """
        if scores.nonfinite and not self.skip:
            what = f"{scores.nonfinite} of {scores.images} validation images have logits that are not finite"
            raise self._error(what, step)

    def check_last(self, line: EpochLog) -> None:
        """Check the last line of a training, which is its result. Called on every rank.

        Raises:
            FloatingPointError: it has no scores.
        """
        if line.top_1 is None:
            text = (
                f"the last epoch has no scores, and the run no result: {line.val_nonfinite} validation images have "
                f"logits that are not finite; a lower lr.lr may help, or training.precision=fp32"
            )
            raise only_on_main(self._world, FloatingPointError(text))

    def _error(self, what: str, step: int) -> BaseException:
        if self.skip:
            advice = "training.on_nonfinite=skip does not help"
        else:
            advice = "training.precision=fp32 or training.on_nonfinite=skip may help"
        text = f"{what} {self._where(step)}; a lower lr.lr may help, {advice}"
        return only_on_main(self._world, FloatingPointError(text))
