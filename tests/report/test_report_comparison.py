"""Intervals and tests against scipy.stats, and which groups are compared how."""

from __future__ import annotations

import math

import numpy as np
import pytest
from run_folders import make_run, read_runs
from scipy import integrate, stats

from ffcv_imagenet.report import main
from ffcv_imagenet.report.comparison import (
    compare,
    holm,
    mean_interval,
    paired_test,
    power,
    seeds_needed,
    welch_test,
)
from ffcv_imagenet.report.groups import group_runs
from ffcv_imagenet.report.planning import plan_from_runs, plan_from_sd
from ffcv_imagenet.report.table import table, to_csv

SAMPLES = [
    ([76.1, 76.5], [75.9, 76.0]),
    ([76.1, 76.5, 76.2], [75.9, 76.0, 76.4]),
    ([0.1, 99.0, 40.0, 3.0, 55.5], [0.2, 98.0, 41.0, 2.0, 50.5]),
    ([70.001, 70.002, 70.003], [70.0, 70.004, 69.999]),
]


@pytest.mark.parametrize(("values", "others"), SAMPLES)
def test_interval_and_tests_equal_scipy(values, others):
    got = mean_interval(values)
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (got.low, got.high) == pytest.approx(expected)
    assert (got.mean, got.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))

    for test, reference in (
        (paired_test(values, others), stats.ttest_rel(values, others)),
        (welch_test(values, others), stats.ttest_ind(values, others, equal_var=False)),
    ):
        assert test.p == pytest.approx(reference.pvalue, rel=1e-9)
        assert (test.low, test.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))
        assert test.mean == pytest.approx(np.mean(values) - np.mean(others))


def test_welch_with_samples_of_different_sizes_equals_scipy():
    values, others = [76.1, 76.5, 76.2, 77.9], [75.9, 76.0]
    assert welch_test(values, others).p == pytest.approx(stats.ttest_ind(values, others, equal_var=False).pvalue)
    assert welch_test(values, others).n == "4 and 2"


def test_without_spread_nothing_is_inferred():
    assert mean_interval([70.0]).why_not == "one seed: no spread can be given"
    for got in (
        mean_interval([70.1, 70.1]),
        paired_test([70.3, 80.3], [70.1, 80.1]),
        welch_test([3.0, 3.0], [1.0, 1.0]),
    ):
        assert (got.low, got.high, got.p) == (None, None, None)
        assert got.why_not


@pytest.mark.parametrize("p_values", [[], [0.03], [0.01, 0.04, 0.03], [0.5, 0.6, 0.7], [0.001, 0.001, 0.9, 0.02]])
def test_adjusted_p_values_reject_what_the_step_down_procedure_rejects(p_values):
    for alpha in (0.0101, 0.0301, 0.0501, 0.0601, 0.2, 0.999):
        rejected = set()
        for rank, index in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[index] > alpha / (len(p_values) - rank):
                break
            rejected.add(int(index))
        assert {i for i, p in enumerate(holm(p_values)) if p <= alpha} == rejected
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def comparison(root, loss="maxsup"):
    (found,) = [c for c in compare(group_runs(read_runs(root))) if c.group.loss == loss]
    return found


def make_runs(root, loss, top_1, seeds=None, **options):
    for index, value in enumerate(top_1):
        seed = index if seeds is None else seeds[index]
        make_run(root, f"{loss}{index}", loss=loss, seed=seed, top_1=(0.1, 0.2, 0.3, value), **options)


def test_the_same_seeds_are_paired_whatever_their_order(tmp_path):
    make_runs(tmp_path, "baseline", (0.70, 0.72, 0.75), seeds=(0, 1, 2))
    make_runs(tmp_path, "maxsup", (0.76, 0.71, 0.74), seeds=(2, 0, 1))
    difference = comparison(tmp_path).difference
    expected = stats.ttest_rel([71, 74, 76], [70, 72, 75])
    assert (difference.test, difference.n) == ("paired t-test", "3 pairs")
    assert difference.p == pytest.approx(expected.pvalue)
    assert (difference.tests, difference.p_adjusted) == (1, difference.p)
    (row,) = [row for row in table(read_runs(tmp_path)) if row.loss == "maxsup"]
    assert (row.difference_points, row.p) == pytest.approx((difference.mean, difference.p))
    assert (row.difference_low, row.difference_high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


@pytest.mark.parametrize(("ours", "theirs"), [((0, 1, 5), (0, 1, 2)), ((0, 1), (0, 1, 2)), ((7, 1, 0), (1, 0))])
def test_a_missing_seed_leaves_the_others_paired_and_says_so(tmp_path, ours, theirs):
    top_1 = {0: 0.70, 1: 0.72, 2: 0.75, 5: 0.9, 7: 0.9}
    make_runs(tmp_path, "baseline", [top_1[seed] for seed in theirs], seeds=theirs)
    make_runs(tmp_path, "maxsup", [top_1[seed] + 0.01 * (1 + seed) for seed in ours], seeds=ours)
    difference = comparison(tmp_path).difference
    assert (difference.test, difference.pairs) == ("paired t-test", 2)
    assert difference.n == f"2 pairs of {len(ours)} and {len(theirs)} seeds"
    assert difference.mean == pytest.approx(1.5)
    assert difference.p == pytest.approx(stats.ttest_1samp([1, 2], 0).pvalue)


def test_the_runs_of_a_repeated_seed_enter_as_their_mean(tmp_path):
    make_runs(tmp_path, "baseline", (0.70, 0.72, 0.75))
    make_runs(tmp_path, "maxsup", (0.70, 0.72, 0.74, 0.76), seeds=(0, 0, 1, 2))
    found = comparison(tmp_path)
    assert (found.mean.n, found.mean.mean) == ("3", pytest.approx((71 + 74 + 76) / 3))
    assert found.difference.n == "3 pairs"
    assert found.difference.p == pytest.approx(stats.ttest_rel([71, 74, 76], [70, 72, 75]).pvalue)


@pytest.mark.parametrize("seeds", [(3, 4, 5), (0, 4, 5)])
def test_other_seeds_are_tested_with_welch(tmp_path, seeds):
    make_runs(tmp_path, "baseline", (0.70, 0.72, 0.75))
    make_runs(tmp_path, "maxsup", (0.71, 0.74, 0.76), seeds=seeds)
    difference = comparison(tmp_path).difference
    assert (difference.test, difference.n) == ("Welch's t-test", "3 and 3")
    assert difference.p == pytest.approx(stats.ttest_ind([71, 74, 76], [70, 72, 75], equal_var=False).pvalue)


def test_the_tests_of_one_family_are_adjusted_together(tmp_path):
    for arch in ("resnet18", "resnet50"):
        make_runs(tmp_path / arch, "baseline", (0.70, 0.72, 0.75), arch=arch)
        make_runs(tmp_path / arch, "maxsup", (0.71, 0.74, 0.76), arch=arch)
    make_runs(tmp_path / "resnet50", "zipf", (0.69, 0.75, 0.74))
    rows = {(row.architecture, row.loss): row for row in table(read_runs(tmp_path))}
    alone = rows["resnet18", "maxsup"]
    assert (alone.tests, alone.p_adjusted) == (1, alone.p)
    both = [rows["resnet50", loss] for loss in ("maxsup", "zipf")]
    assert [row.tests for row in both] == [2, 2]
    assert [row.p_adjusted for row in both] == pytest.approx(holm([row.p for row in both]))
    assert alone.p_adjusted < both[0].p_adjusted
    assert rows["resnet50", "baseline"].tests is None
    assert {"tests", "pairs", "p_adjusted", "seeds_needed"} <= set(to_csv(rows.values()).splitlines()[0].split(","))


def integrated_power(effect, n, alpha, paired):
    """The same by integration over the chi distribution of the estimated standard deviation."""
    freedom, shift = (n - 1, effect * math.sqrt(n)) if paired else (2 * n - 2, effect * math.sqrt(n / 2))
    critical = stats.t.ppf(1 - alpha / 2, freedom) / math.sqrt(freedom)
    spread = np.linspace(*stats.chi.ppf([1e-12, 1 - 1e-12], freedom), 20_001)
    rejected = stats.norm.sf(critical * spread - shift) + stats.norm.cdf(-critical * spread - shift)
    return integrate.simpson(stats.chi.pdf(spread, freedom) * rejected, x=spread)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 11])
@pytest.mark.parametrize("effect", [0.2, 0.5, 1.0, 3.0, 8.0])
def test_the_seeds_needed_are_the_fewest_that_have_the_power(effect, alpha, paired):
    for n in (2, 3, 10, 200, 1000):
        expected = integrated_power(effect, n, alpha, paired)
        assert power(effect, n, alpha, paired=paired) == pytest.approx(expected, abs=1e-6)
    needed = seeds_needed(effect, alpha, paired=paired)
    assert needed == seeds_needed(-effect, alpha, paired=paired)
    assert integrated_power(effect, needed, alpha, paired) >= 0.8
    assert needed == 2 or integrated_power(effect, needed - 1, alpha, paired) < 0.8


def test_known_numbers_of_seeds():
    """A textbook's: 34 pairs and 64 per group for half a standard deviation (Cohen 1988; statsmodels says the same)."""
    assert seeds_needed(0.5, 0.05, paired=True) == 34
    assert seeds_needed(0.5, 0.05, paired=False) == 64
    assert seeds_needed(1e6, 0.05, paired=True) == 2
    assert seeds_needed(0.01, 0.05, paired=True) == math.inf
    assert seeds_needed(0.0, 0.05, paired=False) == math.inf


def test_power_is_that_of_simulated_tests():
    generator = np.random.default_rng(0)
    samples = generator.normal(1.0, 1.0, (20_000, 6))
    rejected = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert power(1.0, 6, 0.05, paired=True) == pytest.approx(rejected.mean(), abs=4 * 0.5 / math.sqrt(20_000))


def test_a_difference_says_how_many_seeds_it_would_take(tmp_path):
    make_runs(tmp_path, "baseline", (0.70, 0.72, 0.75))
    make_runs(tmp_path, "maxsup", (0.71, 0.72, 0.77))
    make_runs(tmp_path, "zipf", (0.74, 0.75, 0.79), seeds=(3, 4, 5))
    paired, welch = (comparison(tmp_path, loss).difference for loss in ("maxsup", "zipf"))
    assert paired.seeds_needed == seeds_needed(1 / np.std([1, 0, 2], ddof=1), 0.025, paired=True)
    sd = math.sqrt((np.var([70, 72, 75], ddof=1) + np.var([74, 75, 79], ddof=1)) / 2)
    assert welch.seeds_needed == seeds_needed(welch.mean / sd, 0.025, paired=False)


def test_a_plan_takes_the_spread_of_the_runs(tmp_path, capsys):
    make_runs(tmp_path, "baseline", (0.700, 0.702, 0.705))
    make_runs(tmp_path, "maxsup", (0.711, 0.712, 0.717))
    make_runs(tmp_path, "zipf", (0.74,))
    sd = math.sqrt((np.var([70, 70.2, 70.5], ddof=1) + np.var([71.1, 71.2, 71.7], ddof=1)) / 2)
    unpaired = seeds_needed(0.5 / sd, 0.025, paired=False)
    paired = seeds_needed(0.5 / np.std([1.1, 1.0, 1.2], ddof=1), 0.025, paired=True)
    text = plan_from_runs(0.5, compare(group_runs(read_runs(tmp_path))))
    assert text.splitlines()[1:] == [
        f"  resnet50, recipe rn50_16_epochs: {unpaired} seeds of each loss (sd over seeds {sd:.3g}, 4 degrees of "
        f"freedom) or {paired} seeds of each loss, the same ones for both (sd of the differences 0.1, 2 degrees of "
        "freedom); 2 tests"
    ]
    main([str(tmp_path), "--plan=0.5"])
    assert text in capsys.readouterr().out


def test_a_plan_takes_a_given_spread(tmp_path, capsys):
    main(["--plan=0.5", "--sd=1"])
    out = capsys.readouterr().out
    assert out == plan_from_sd(0.5, 1) + "\n"
    assert "64 seeds of each loss (sd over seeds 1 as given, 1 test)" in out
    make_run(tmp_path, "a")
    main([str(tmp_path), "--plan=0.01", "--sd=1"])
    assert "more than 1000 seeds of each loss" in capsys.readouterr().out
    main([str(tmp_path), "--plan=0.01"])
    assert "not known, since no loss has a spread over two seeds or more" in capsys.readouterr().out


@pytest.mark.parametrize("seeds", [(0,), (0, 0)])
@pytest.mark.parametrize("single", ["baseline", "maxsup"])
def test_too_few_seeds_give_a_difference_without_a_test(tmp_path, single, seeds):
    other = "maxsup" if single == "baseline" else "baseline"
    make_runs(tmp_path, single, (0.70,) * len(seeds), seeds=seeds)
    make_runs(tmp_path, other, (0.71, 0.73))
    difference = comparison(tmp_path).difference
    assert abs(difference.mean) == pytest.approx(2)
    assert (difference.p, difference.low) == (None, None)
    assert difference.why_not == "one seed: no test can be made"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"lr__lr": 0.5}, "no finished run of baseline with the same options"),
        ({"state": "failed"}, "no finished run of baseline with the same options"),
        ({"arch": "resnet18"}, "no finished run of baseline with the same options"),
        ({"world_size": 8}, "no finished run of baseline with the same options"),
        ({"loss__alpha_start": 0.5}, ""),
        ({"data__num_workers": 1}, ""),
    ],
)
def test_only_a_baseline_with_the_same_options_is_compared_with(tmp_path, options, why):
    make_runs(tmp_path, "baseline", (0.70, 0.72), **options)
    make_runs(tmp_path, "maxsup", (0.71, 0.74))
    found = comparison(tmp_path)
    assert found.why_no_difference == why
    assert (found.difference is None) == bool(why)


def test_two_baselines_are_not_chosen_between(tmp_path):
    make_runs(tmp_path / "a", "baseline", (0.70, 0.72), loss__alpha_start=0.0)
    make_runs(tmp_path / "b", "baseline", (0.70, 0.72), loss__alpha_start=1.0)
    make_runs(tmp_path, "maxsup", (0.71, 0.74))
    assert comparison(tmp_path).why_no_difference == "several kinds of baseline"
