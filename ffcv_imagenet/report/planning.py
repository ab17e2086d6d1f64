"""How many seeds a comparison takes, estimated before the runs are made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ffcv_imagenet.report.comparison import ALPHA, MOST_SEEDS, POWER, Comparison, seeds_needed
from ffcv_imagenet.report.groups import BASELINE, families


def plan_from_runs(difference: float, comparisons: Iterable[Comparison]) -> str:
    """A line per architecture and recipe: the seeds that finding ``difference`` (in percentage points) would take.

    The spread is that of the runs: the standard deviation over seeds within the groups, and that of the differences
    between a loss and the baseline on the same seeds, each pooled over the losses. With k losses and a baseline there
    will be k tests, and Holm's method asks up to 5 % / k of each.
    """
    lines = [_heading(difference)]
    for family in families(comparisons, of=lambda c: c.group):
        group = family[0].group
        lines.append(f"  {group.architecture}, recipe {group.recipe}: {_family(difference, family)}")
    return "\n".join(lines)


def plan_from_sd(difference: float, sd: float) -> str:
    """The same for one test of two losses whose top-1 has the standard deviation ``sd`` over seeds."""
    seeds = _seeds(difference, sd, 1, paired=False)
    return f"{_heading(difference)}\n  {seeds} (sd over seeds {sd:g} as given, 1 test)"


def needed_text(seeds: float) -> str:
    """A number of seeds in words."""
    return f"more than {MOST_SEEDS}" if math.isinf(seeds) else f"{seeds:.0f}"


def _heading(difference: float) -> str:
    return (
        f"To find a true difference of {difference:g} points with a probability of {POWER:.0%} "
        f"(two-sided t-test at {ALPHA:.0%} divided by the number of tests), it takes:"
    ).replace("%", " %")


def _family(difference: float, family: Sequence[Comparison]) -> str:
    tests = max(1, len({c.group.loss for c in family} - {BASELINE}))
    within = [(m.sd, len(c.group.repeats) - 1) for c in family if (m := c.mean) and m.sd is not None]
    paired = [(d.sd, d.pairs - 1) for c in family if (d := c.difference) and d.pairs and d.sd is not None]
    if not any(sd for sd, _ in within):
        return "not known, since no loss has a spread over two seeds or more"
    parts = []
    for pairs, spread, what in ((False, within, "sd over seeds"), (True, paired, "sd of the differences")):
        if any(sd for sd, _ in spread):
            freedom = sum(n for _, n in spread)
            sd = math.sqrt(sum(n * s**2 for s, n in spread) / freedom)
            same = ", the same ones for both" if pairs else ""
            count = f"{freedom} degree{'s' if freedom > 1 else ''} of freedom"
            parts.append(f"{_seeds(difference, sd, tests, paired=pairs)}{same} ({what} {sd:.3g}, {count})")
    return f"{' or '.join(parts)}; {tests} test{'s' if tests > 1 else ''}"


def _seeds(difference: float, sd: float, tests: int, *, paired: bool) -> str:
    return f"{needed_text(seeds_needed(difference / sd, ALPHA / tests, paired=paired))} seeds of each loss"
