"""How sure the means are: intervals over seeds, and differences from the baseline with their tests.

Every figure is over independent trainings of one group, each with its last epoch's top-1. The 95 % interval of a mean
is Student's. A difference from the baseline is tested with a paired t-test when both groups have the same seeds (runs
of one seed start from the same weights and see the same images), else with Welch's t-test. The p-values of all tests
that are reported together are adjusted by Holm's step-down method (Scandinavian Journal of Statistics 6, 1979).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtr, stdtrit

from ffcv_imagenet.report.groups import BASELINE, Group, percent

CONFIDENCE = 0.95
#: A spread this small beside the values (in per cent) is rounding: nothing can be inferred from it.
_NO_SPREAD = 1e-9


@dataclass(frozen=True)
class Inference:
    """What ``n`` values in per cent (or pairs, or both groups' values) say about a mean or a difference of means.

    ``sd`` is the sample standard deviation (None below two values, and for Welch's test), ``low`` and ``high`` the
    95 % interval, ``p`` the two-sided p-value of no difference, ``p_adjusted`` the same after Holm where there are
    several; None where they cannot be given, for which ``why_not`` says why ("" else).
    """

    n: str
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    test: str = ""
    p: float | None = None
    p_adjusted: float | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Comparison:
    """A group's mean top-1 (None: no finished run), and its difference from the baseline in percentage points.

    ``difference`` is None for the baseline itself and where ``why_no_difference`` says why.
    """

    group: Group
    mean: Inference | None
    difference: Inference | None
    why_no_difference: str = ""


def compare(groups: Sequence[Group]) -> list[Comparison]:
    """Means and differences from the baseline of the groups that :func:`group_runs` made, in their order.

    The baseline of a group is the one of the same architecture and recipe with the same options but for the loss's.
    """
    comparisons = [_compare(group, groups) for group in groups]
    p_values = {i: c.difference.p for i, c in enumerate(comparisons) if c.difference and c.difference.p is not None}
    if len(p_values) < 2:
        return comparisons
    for i, adjusted in zip(p_values, holm(list(p_values.values())), strict=True):
        difference = replace(comparisons[i].difference, p_adjusted=adjusted)  # type: ignore[type-var]
        comparisons[i] = replace(comparisons[i], difference=difference)
    return comparisons


def mean_interval(values: Sequence[float]) -> Inference:
    """Mean, sample standard deviation and 95 % interval of independent values."""
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return Inference(str(n), mean, why_not="one seed: no spread can be given")
    sd = statistics.stdev(values)
    if sd < _NO_SPREAD:
        return Inference(str(n), mean, sd, why_not="all runs ended at the same top-1: no interval can be given")
    half = _half_width(n - 1) * sd / math.sqrt(n)
    return Inference(str(n), mean, sd, mean - half, mean + half)


def paired_test(values: Sequence[float], baseline: Sequence[float]) -> Inference:
    """Student's t-test of the differences between values that belong together, in the same order."""
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    n, mean = len(differences), statistics.fmean(differences)
    sd = statistics.stdev(differences)
    if sd < _NO_SPREAD:
        return Inference(f"{n} pairs", mean, sd, why_not="all pairs differ by the same: no test can be made")
    return _t_test(f"{n} pairs", mean, sd / math.sqrt(n), n - 1, "paired t-test", sd)


def welch_test(values: Sequence[float], baseline: Sequence[float]) -> Inference:
    """Welch's t-test of two independent samples, with Satterthwaite's degrees of freedom."""
    n, mean = f"{len(values)} and {len(baseline)}", statistics.fmean(values) - statistics.fmean(baseline)
    parts = [statistics.variance(sample) / len(sample) for sample in (values, baseline)]
    error = math.sqrt(sum(parts))
    if error < _NO_SPREAD:
        return Inference(n, mean, why_not="no spread in either group: no test can be made")
    freedom = sum(parts) ** 2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, (values, baseline), strict=True))
    return _t_test(n, mean, error, freedom, "Welch's t-test")


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _compare(group: Group, groups: Sequence[Group]) -> Comparison:
    mean = _mean(group)
    if group.loss == BASELINE or mean is None:
        return Comparison(group, mean, None)
    candidates = [other for other in groups if other.loss == BASELINE and _same_but_for_the_loss(group, other)]
    if not any(other.finished for other in candidates):
        why = f"no finished run of {BASELINE} with the same options"
        return Comparison(group, mean, None, why)
    if len(candidates) > 1:
        return Comparison(group, mean, None, f"several kinds of {BASELINE}")
    return Comparison(group, mean, _difference(group, candidates[0]))


def _mean(group: Group) -> Inference | None:
    values = _values(group)
    if not values:
        return None
    mean = mean_interval(values)
    if group.seeds < len(values):
        return replace(mean, low=None, high=None, why_not="a seed was repeated: its runs are not independent")
    return mean


def _difference(group: Group, baseline: Group) -> Inference:
    ours, theirs = group.finished, baseline.finished
    values, others = _values(group), _values(baseline)
    points = statistics.fmean(values) - statistics.fmean(others)
    n = f"{len(values)} and {len(others)}"
    if group.seeds < len(values) or baseline.seeds < len(others):
        return Inference(n, points, why_not="a seed was repeated: its runs are not independent")
    if len(values) < 2 or len(others) < 2:
        return Inference(n, points, why_not="one seed: no test can be made")
    seeds = {run.seed for run in ours}
    if None not in seeds and seeds == {run.seed for run in theirs}:
        by_seed = {run.seed: value for run, value in zip(theirs, others, strict=True)}
        return paired_test(values, [by_seed[run.seed] for run in ours])
    return welch_test(values, others)


def _values(group: Group) -> list[float]:
    return percent(run.log[-1].top_1 for run in group.finished)


def _same_but_for_the_loss(group: Group, other: Group) -> bool:
    return (group.architecture, group.recipe, group.shared_options) == (
        other.architecture,
        other.recipe,
        other.shared_options,
    )


def _half_width(freedom: float) -> float:
    """Half of the interval, in standard errors."""
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _t_test(n: str, mean: float, error: float, freedom: float, test: str, sd: float | None = None) -> Inference:
    half = _half_width(freedom) * error
    p = 2 * float(stdtr(freedom, -abs(mean / error)))
    return Inference(n, mean, sd, mean - half, mean + half, test, p)
