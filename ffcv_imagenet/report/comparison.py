"""How sure the means are: intervals over seeds, and differences from the baseline with their tests.

Every figure is over the seeds of one group, each with its last epoch's top-1: seeds are independent trainings, several
runs of one seed are not, and their mean counts once. The 95 % interval of a mean or a difference is Student's, each on
its own. A difference from the baseline is tested with a paired t-test over the seeds that both groups have (runs of one
seed start from the same weights and see the same images), with Welch's t-test where they share fewer than two. The
p-values of the tests of one family (architecture and recipe) are adjusted by Holm's step-down method (Scandinavian
Journal of Statistics 6, 1979).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ffcv_imagenet.report.groups import BASELINE, Group, families

CONFIDENCE = 0.95
#: Error of the first kind that numbers of seeds are planned for, divided by the number of tests of a family.
ALPHA = 0.05
POWER = 0.8
#: More seeds than this are given as infinity.
MOST_SEEDS = 1000
#: A spread this small next to the values (in per cent) is rounding: nothing can be inferred from it.
_NO_SPREAD = 1e-9


@dataclass(frozen=True)
class Inference:
    """What values in per cent say about a mean or a difference of means; None where a figure cannot be given.

    ``n`` says in words how many values or pairs there are, ``pairs`` is their number in a paired test. ``sd`` is the
    sample standard deviation of the values (paired: of the differences; Welch: the root of the mean of both variances),
    ``low`` and ``high`` the 95 % interval, not adjusted, ``p`` the two-sided p-value of no difference, ``p_adjusted``
    the same after Holm for ``tests`` tests, ``seeds_needed`` the seeds of each loss that it would take to find a
    difference of this size (:func:`seeds_needed`). ``why_not`` says why there is no interval ("" else).
    """

    n: str
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    test: str = ""
    pairs: int | None = None
    p: float | None = None
    tests: int | None = None
    p_adjusted: float | None = None
    seeds_needed: float | None = None
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
    return [c for family in families(comparisons, of=lambda c: c.group) for c in _adjusted(family)]


def _adjusted(family: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of one architecture and recipe with p-values adjusted for the number of their tests."""
    p_values = [c.difference.p for c in family if c.difference and c.difference.p is not None]
    adjusted = iter(holm(p_values))
    found = []
    for c in family:
        if (d := c.difference) and d.p is not None:
            needed = seeds_needed(d.mean / (d.sd or math.inf), ALPHA / len(p_values), paired=d.pairs is not None)
            d = replace(d, tests=len(p_values), p_adjusted=next(adjusted), seeds_needed=needed)
        found.append(replace(c, difference=d))
    return found


def mean_interval(values: Sequence[float]) -> Inference:
    """Mean, sample standard deviation and 95 % interval of independent values."""
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return Inference(str(n), mean, why_not="one seed: no spread can be given")
    sd = statistics.stdev(values)
    if sd < _NO_SPREAD:
        return Inference(str(n), mean, sd, why_not="all seeds ended at the same top-1: no interval can be given")
    half = _half_width(n - 1) * sd / math.sqrt(n)
    return Inference(str(n), mean, sd, mean - half, mean + half)


def paired_test(values: Sequence[float], baseline: Sequence[float]) -> Inference:
    """Student's t-test of the differences between values that belong together, in the same order."""
    differences = [value - other for value, other in zip(values, baseline, strict=True)]
    n, mean, sd = len(differences), statistics.fmean(differences), statistics.stdev(differences)
    found = Inference(f"{n} pairs", mean, sd, test="paired t-test", pairs=n)
    if sd < _NO_SPREAD:
        return replace(found, test="", why_not="all pairs differ by the same: no test can be made")
    return _t_test(found, sd / math.sqrt(n), n - 1)


def welch_test(values: Sequence[float], baseline: Sequence[float]) -> Inference:
    """Welch's t-test of two independent samples, with Satterthwaite's degrees of freedom."""
    n, mean = f"{len(values)} and {len(baseline)}", statistics.fmean(values) - statistics.fmean(baseline)
    variances = [statistics.variance(sample) for sample in (values, baseline)]
    parts = [variance / len(sample) for variance, sample in zip(variances, (values, baseline), strict=True)]
    error = math.sqrt(sum(parts))
    if error < _NO_SPREAD:
        return Inference(n, mean, why_not="no spread in either group: no test can be made")
    freedom = sum(parts) ** 2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, (values, baseline), strict=True))
    return _t_test(Inference(n, mean, math.sqrt(sum(variances) / 2), test="Welch's t-test"), error, freedom)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def seeds_needed(effect: float, alpha: float, *, paired: bool) -> float:
    """How many seeds of each loss a two-sided t-test takes to find a difference with :data:`POWER`.

    ``effect`` is the true difference in standard deviations: of the paired differences, or of one loss's values (equal
    in both losses), ``alpha`` the level of the test. Infinity for more than :data:`MOST_SEEDS`.
    """
    low, high = 2, MOST_SEEDS + 1
    while low < high:
        middle = (low + high) // 2
        if power(effect, middle, alpha, paired=paired) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low if low <= MOST_SEEDS else math.inf


def power(effect: float, seeds: int, alpha: float, *, paired: bool) -> float:
    """The probability that the test of :func:`seeds_needed` with so many seeds of each loss has a p below ``alpha``."""
    from scipy.special import nctdtr, stdtrit

    freedom = seeds - 1 if paired else 2 * (seeds - 1)
    shift = abs(effect) * math.sqrt(seeds if paired else seeds / 2)
    critical = float(stdtrit(freedom, 1 - alpha / 2))
    missed = float(nctdtr(freedom, shift, critical))
    # SciPy gives NaN for values too small to be told from 0. Results on the wrong side count less than 1e-6 from 5 on.
    wrong_side = float(nctdtr(freedom, shift, -critical)) if shift < 5 else 0.0
    return 1 - (0.0 if math.isnan(missed) else missed) + wrong_side


def _compare(group: Group, groups: Sequence[Group]) -> Comparison:
    values = list(group.top_1_by_seed.values())
    if not values:
        return Comparison(group, None, None)
    mean = mean_interval(values)
    if group.loss == BASELINE:
        return Comparison(group, mean, None)
    candidates = [other for other in groups if other.loss == BASELINE and _same_but_for_the_loss(group, other)]
    if not any(other.finished for other in candidates):
        why = f"no finished run of {BASELINE} with the same options"
        return Comparison(group, mean, None, why)
    if len(candidates) > 1:
        return Comparison(group, mean, None, f"several kinds of {BASELINE}")
    return Comparison(group, mean, _difference(group, candidates[0]))


def _difference(group: Group, baseline: Group) -> Inference:
    ours, theirs = group.top_1_by_seed, baseline.top_1_by_seed
    common = [seed for seed in ours if seed in theirs]
    if len(common) >= 2:
        paired = paired_test([ours[seed] for seed in common], [theirs[seed] for seed in common])
        if len(common) < max(len(ours), len(theirs)):
            return replace(paired, n=f"{paired.n} of {len(ours)} and {len(theirs)} seeds")
        return paired
    values, others = list(ours.values()), list(theirs.values())
    if len(values) < 2 or len(others) < 2:
        points = statistics.fmean(values) - statistics.fmean(others)
        return Inference(f"{len(values)} and {len(others)}", points, why_not="one seed: no test can be made")
    return welch_test(values, others)


def _same_but_for_the_loss(group: Group, other: Group) -> bool:
    return (group.architecture, group.recipe, group.shared_options) == (
        other.architecture,
        other.recipe,
        other.shared_options,
    )


def _half_width(freedom: float) -> float:
    """Half of the interval, in standard errors."""
    from scipy.special import stdtrit  # a fifth of a second, which a table without spread does not need

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _t_test(found: Inference, error: float, freedom: float) -> Inference:
    """The inference with the interval and the p-value that its mean's standard error gives."""
    from scipy.special import stdtr

    half = _half_width(freedom) * error
    p = 2 * float(stdtr(freedom, -abs(found.mean / error)))
    return replace(found, low=found.mean - half, high=found.mean + half, p=p)
