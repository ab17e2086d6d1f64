"""Intervals and tests against scipy.stats, and which groups are compared how."""

from __future__ import annotations

import numpy as np
import pytest
from run_folders import make_run
from scipy import stats

from ffcv_imagenet.report import compare, group_runs, load_runs, table
from ffcv_imagenet.report.comparison import holm, mean_interval, paired_test, welch_test

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
    (found,) = [c for c in compare(group_runs(load_runs([root]))) if c.group.loss == loss]
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
    assert difference.p_adjusted is None
    row = table(load_runs([tmp_path])).set_index("loss").loc["maxsup"]
    assert (row.difference_points, row.p) == pytest.approx((difference.mean, difference.p))
    assert (row.difference_low, row.difference_high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


@pytest.mark.parametrize("seeds", [(3, 4, 5), (0, 1, 5)])
def test_other_seeds_are_tested_with_welch(tmp_path, seeds):
    make_runs(tmp_path, "baseline", (0.70, 0.72, 0.75))
    make_runs(tmp_path, "maxsup", (0.71, 0.74, 0.76), seeds=seeds)
    difference = comparison(tmp_path).difference
    assert (difference.test, difference.n) == ("Welch's t-test", "3 and 3")
    assert difference.p == pytest.approx(stats.ttest_ind([71, 74, 76], [70, 72, 75], equal_var=False).pvalue)


def test_several_tests_are_adjusted_together(tmp_path):
    make_runs(tmp_path, "baseline", (0.70, 0.72, 0.75))
    make_runs(tmp_path, "maxsup", (0.71, 0.74, 0.76))
    make_runs(tmp_path, "zipf", (0.74, 0.75, 0.79))
    differences = [comparison(tmp_path, loss).difference for loss in ("maxsup", "zipf")]
    assert [d.p_adjusted for d in differences] == pytest.approx(holm([d.p for d in differences]))
    assert comparison(tmp_path, "baseline").difference is None


@pytest.mark.parametrize(
    ("seeds", "why"),
    [((0,), "one seed: no test can be made"), ((0, 0), "a seed was repeated: its runs are not independent")],
)
@pytest.mark.parametrize("single", ["baseline", "maxsup"])
def test_too_few_seeds_give_a_difference_without_a_test(tmp_path, single, seeds, why):
    other = "maxsup" if single == "baseline" else "baseline"
    make_runs(tmp_path, single, (0.70,) * len(seeds), seeds=seeds)
    make_runs(tmp_path, other, (0.71, 0.73))
    difference = comparison(tmp_path).difference
    assert abs(difference.mean) == pytest.approx(2)
    assert (difference.p, difference.low, difference.why_not) == (None, None, why)


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
