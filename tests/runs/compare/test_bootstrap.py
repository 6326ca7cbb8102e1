"""Statistics of several runs: against rliable, by hand, and where they must not depend on something."""

import json
from pathlib import Path

import numpy as np
import pytest

from ddpg_jax.runs.compare import bootstrap
from ddpg_jax.runs.compare.bootstrap import (
    CURVE_REPETITIONS,
    draw_runs,
    estimate_centre,
    estimate_gap,
    performance_profile,
    probability_of_improvement,
    resample_curve,
    steps_to_reach,
)

ORACLE = json.loads((Path(__file__).parent / "oracle.json").read_text())
"""What rliable 1.2 made of fixed scores, and how (`make_oracle.py`)."""


def tasks(matrix):
    """The columns of `[runs, tasks]`, and names for their draws."""
    columns = list(np.array(matrix).T)
    return columns, [f"task {i}" for i in range(len(columns))]


def assert_is(estimate, expected):
    """The point to rounding; the interval to 2% of its width, as both were drawn."""
    value, low, high = expected
    assert estimate.value == pytest.approx(value, abs=1e-12)
    assert estimate.interval == pytest.approx((low, high), abs=0.02 * (high - low))


@pytest.mark.parametrize("name", ORACLE["groups"])
def test_centre_and_gap_are_those_of_rliable(name):
    expected = ORACLE["groups"][name]
    scores, names = tasks(expected["scores"])
    assert_is(estimate_centre(scores, names), expected["iqm"])
    assert_is(estimate_gap(scores, names), expected["gap"])


@pytest.mark.parametrize("name", ORACLE["groups"])
def test_the_profile_is_that_of_rliable(monkeypatch, name):
    """Ends of its interval are multiples of a run's share, and most are equal; those between two may be either."""
    monkeypatch.setattr(bootstrap, "CURVE_REPETITIONS", bootstrap.TABLE_REPETITIONS)
    expected = ORACLE["groups"][name]
    scores, names = tasks(expected["scores"])
    band = performance_profile(scores, np.array(ORACLE["thresholds"]), names)
    centre, low, high = map(np.array, expected["profile"])
    np.testing.assert_allclose(band.centre, centre, atol=1e-12)
    one = 1 / sum(map(len, scores))
    np.testing.assert_allclose(band.low, low, atol=one + 1e-12)
    np.testing.assert_allclose(band.high, high, atol=one + 1e-12)
    equal = np.isclose([band.low, band.high], [low, high], atol=1e-12)
    assert equal.mean() >= 0.75


@pytest.mark.parametrize("name", ORACLE["pairs"])
def test_the_probability_of_improvement_is_that_of_rliable(name):
    expected = ORACLE["pairs"][name]
    first, _ = tasks(expected["first"])
    second, _ = tasks(expected["second"])
    names = [(f"first {i}", f"second {i}") for i in range(len(first))]
    assert_is(probability_of_improvement(first, second, names), expected["p"])
    turned = probability_of_improvement(second, first, [(y, x) for x, y in names])
    value, low, high = expected["p"]
    assert_is(turned, (1 - value, 1 - high, 1 - low))


@pytest.mark.parametrize(
    ("first", "second", "probability"),
    [
        ([[1.0, 2.0]], [[0.0]], 1.0),
        ([[1.0, 2.0]], [[2.0]], 0.25),  # one is worse, one ties
        ([[5.0, 5.0, 5.0]], [[5.0, 5.0]], 0.5),
        ([[1.0], [0.0, 3.0, 3.0]], [[0.0], [2.0]], (1 + 2 / 3) / 2),  # tasks count alike, whatever their runs
    ],
)
def test_the_probability_of_improvement_by_hand(first, second, probability):
    names = [("x", "y")] * len(first)
    found = probability_of_improvement([np.array(x) for x in first], [np.array(y) for y in second], names)
    assert found.value == pytest.approx(probability)
    assert found.interval is None


def test_tasks_may_have_unequal_numbers_of_runs():
    scores = [np.array([0.0, 1.0, 2.0, 3.0]), np.array([10.0, 11.0, 12.0, 13.0, 14.0, 15.0])]
    found = estimate_centre(scores, ["a", "b"])
    assert found.value == pytest.approx(np.sort(np.concatenate(scores))[2:-2].mean())
    low, high = found.interval
    assert 3.0 < low < found.value < high < 12.0


def test_runs_are_drawn_within_their_task():
    """Where all runs of a task are equal, nothing varies, however far the tasks are apart."""
    scores = [np.full(4, 0.0), np.full(4, 1000.0)]
    assert estimate_centre(scores, ["a", "b"]) == (500.0, (500.0, 500.0))


def test_fewer_than_three_seeds_have_no_interval():
    pair, names = [np.array([1.0, 2.0])], ["a"]
    assert estimate_centre(pair, names) == (1.5, None)
    assert estimate_gap(pair, names).interval is None
    assert performance_profile(pair, np.array([1.5]), names)[1:] == (None, None)
    assert estimate_centre([np.arange(3.0)], names).interval is not None


def test_draws_depend_on_their_name_alone():
    first = draw_runs(5, 100, "a")
    assert first.shape == (100, 5)
    np.testing.assert_array_equal(first, draw_runs(5, 100, "a"))
    assert (first != draw_runs(5, 100, "b")).any()
    assert set(np.unique(draw_runs(3, 1000, "a"))) == {0, 1, 2}


def test_a_run_is_drawn_with_its_whole_curve(monkeypatch):
    """So curves that are parallel stay parallel in every resample; and the size of a piece changes nothing."""
    runs = np.random.default_rng(0).normal(size=6)
    drawn = resample_curve(np.stack([runs, runs + 5, runs - 3]), "x")
    assert drawn.shape == (CURVE_REPETITIONS, 3)
    np.testing.assert_allclose(drawn[:, 1] - drawn[:, 0], 5)
    np.testing.assert_allclose(drawn[:, 2] - drawn[:, 0], -3)
    assert drawn[:, 0].std() > 0.1
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 1)
    np.testing.assert_array_equal(drawn, resample_curve(np.stack([runs, runs + 5, runs - 3]), "x"))


def test_steps_to_reach_a_level_by_hand():
    steps = np.array([10, 20, 30, 40])
    curves = np.array([[0.0, 5.0, 3.0, 7.0], [1.0, 1.0, 1.0, 1.0]])
    found = steps_to_reach(steps, curves, np.array([-1.0, 1.0, 5.0, 6.0, 8.0]))
    never = np.inf
    np.testing.assert_array_equal(found, [[10, 20, 20, 40, never], [10, 10, never, never, never]])
