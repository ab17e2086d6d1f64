"""How long a training still takes, from the time of its steps so far."""

from __future__ import annotations

from collections.abc import Sequence


def seconds_left(
    steps: Sequence[int],
    sides: Sequence[int],
    *,
    epoch: int,
    step: int,
    seconds_per_step: float,
    evaluations_seconds: float,
) -> float:
    """The time from ``step`` of ``epoch`` (both from 0) to the end, in seconds.

    A step is taken to last as long as there are pixels in its images, which holds for a network and about for decoding.

    Args:
        steps: of each epoch.
        sides: of each epoch's training images, in pixels.
        epoch: that is under way.
        step: steps of it that are done.
        seconds_per_step: in that epoch.
        evaluations_seconds: of all evaluations to come.
    """
    pixels = sum(count * side**2 for count, side in zip(steps[epoch:], sides[epoch:], strict=True))
    pixels -= step * sides[epoch] ** 2
    return pixels * seconds_per_step / sides[epoch] ** 2 + evaluations_seconds


def guess_evaluation(
    images: int, side: int, *, step_images: int, step_side: int, seconds_per_step: float, passes: int = 1
) -> float:
    """The time of an evaluation of so many images before there was one, from that of a training step, in seconds.

    The forward pass is taken for a third of a step's work, ``passes`` of them for each image.
    """
    work = passes * images * side**2 / (3 * step_images * step_side**2)
    return work * seconds_per_step
