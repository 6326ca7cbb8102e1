"""Statistics over seeds by hand and against scipy."""

import json

import numpy as np
import pytest
from scipy import stats

from ddpg_jax.runs.statistics import (
    COVERAGE,
    bootstrap_interval,
    interquartile_mean,
    score_line,
    show_return,
    show_setting,
    summarize,
)


@pytest.mark.parametrize(
    ("scores", "mean"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0], 1.5),
        ([1.0, 2.0, 60.0], 21.0),  # a quarter of 3 is none
        ([-100.0, 1.0, 3.0, 100.0], 2.0),
        ([5.0, 1.0, 900.0, 3.0, 4.0], 4.0),  # one is left out at each end, wherever it stands
        ([8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0], 4.5),
    ],
)
def test_the_interquartile_mean_by_hand(scores, mean):
    assert interquartile_mean(np.array(scores)) == pytest.approx(mean)


def test_the_interquartile_mean_is_scipys():
    scores = np.random.default_rng(0).normal(size=(3, 10, 4))
    for axis in (0, 1, -1):
        np.testing.assert_allclose(interquartile_mean(scores, axis), stats.trim_mean(scores, 0.25, axis))
    np.testing.assert_allclose(interquartile_mean(scores), interquartile_mean(scores, 2))


def test_the_interval_is_scipys():
    scores = np.random.default_rng(1).normal(-150, 30, 12)
    for confidence in (0.8, 0.95):
        theirs = stats.bootstrap(
            (scores,), interquartile_mean, confidence_level=confidence, n_resamples=20000, method="percentile", rng=0
        ).confidence_interval
        np.testing.assert_allclose(bootstrap_interval(scores, confidence), theirs, atol=2.0)


def test_the_interval_of_two_seeds_is_both():
    """A quarter of the resamples are twice the one seed, a quarter twice the other."""
    assert bootstrap_interval(np.array([-200.0, -100.0])) == (-200.0, -100.0)


@pytest.mark.parametrize("seeds", [3, 5, 7])
def test_what_is_said_of_intervals_of_few_seeds_is_so(seeds):
    """Of 1000 draws the share that covers the centre is known within 3 points."""
    ends = [bootstrap_interval(scores) for scores in np.random.default_rng(4).normal(size=(1000, seeds))]
    covered = 100 * np.mean([low <= 0 <= high for low, high in ends])
    assert abs(covered - COVERAGE[seeds]) < 3.5
    assert f"covers {COVERAGE[seeds]}%" in summarize(np.zeros((seeds, 2)))["meaning"]


def test_intervals_of_many_seeds_are_what_they_are_called():
    assert summarize(np.zeros((8, 2)))["meaning"].endswith("their 95% bootstrap interval")


def test_the_interval_moves_and_scales_with_the_scores():
    scores = np.random.default_rng(2).normal(size=9)
    low, high = bootstrap_interval(scores)
    assert low < interquartile_mean(scores) < high
    assert bootstrap_interval(scores) == (low, high)
    assert bootstrap_interval(10 * scores + 3) == pytest.approx((10 * low + 3, 10 * high + 3))
    narrow = bootstrap_interval(scores, 0.5)
    assert low < narrow[0] < narrow[1] < high


def test_equal_scores_have_an_interval_of_no_width():
    assert bootstrap_interval(np.full(5, -120.0)) == (-120.0, -120.0)


def test_a_single_seed_has_no_interval():
    assert bootstrap_interval(np.array([1.0])) is None
    assert summarize(np.array([[1.0, 3.0]]))["interval"] is None


def test_the_summary_is_over_the_means_of_the_seeds():
    returns = np.array([[0.0, 2.0], [10.0, 20.0], [1.0, 3.0], [-500.0, -300.0], [4.0, 4.0]])
    summary = summarize(returns)
    assert summary["per_seed"] == [1.0, 15.0, 2.0, -400.0, 4.0]
    assert summary["mean"] == pytest.approx(-75.6)
    assert summary["median"] == 2.0
    assert summary["interquartile_mean"] == pytest.approx(7 / 3)
    assert summary["interval"] == bootstrap_interval(np.array(summary["per_seed"]), summary["confidence"])
    assert summary["returns"] == returns.tolist()
    assert json.loads(json.dumps(summary))["median"] == 2.0


@pytest.mark.parametrize(
    ("seeds", "line"),
    [
        (1, "return 0.0"),
        (2, "mean 0.5 [0.0, 1.0], the two seeds"),
        (3, "mean 1.0 [0.0, 2.0], median 1.0"),
        (4, "interquartile mean 1.5 [0.0, 3.0], median 1.5"),
    ],
)
def test_figures_of_few_seeds_are_called_what_they_are(seeds, line):
    summary = summarize(np.arange(seeds, dtype=float)[:, None])
    if summary["interval"] is not None:
        summary["interval"] = (0.0, seeds - 1.0)
    assert score_line(summary) == line
    assert ("range" in summary["meaning"]) == (seeds == 2)
    assert ("interquartile mean of" in summary["meaning"]) == (seeds > 3)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-1234.567, "-1234.6"), (100.04, "100.0"), (99.96, "99.96"), (-7.0, "-7.0"), (0.93514, "0.9351"), (0.0, "0.0")],
)
def test_a_small_return_is_shown_with_more_decimals(value, shown):
    assert show_return(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.9999, "0.9999"),
        (0.99, "0.99"),
        (0.995, "0.995"),
        (0.987654321, "0.9877"),
        (1 - 2**-40, "0.999999999999091"),
        (0.9, "0.9"),
        (1.0, "1"),
        (0.000312345, "0.000312"),
        (1e-9, "1e-09"),
        (-0.95, "-0.95"),
        (True, "True"),
        (20, "20"),
        ("min", "min"),
        ([64, 64], "[64, 64]"),
        (None, "none"),
    ],
)
def test_a_setting_near_one_is_not_shown_as_one(value, shown):
    assert show_setting(value) == shown
