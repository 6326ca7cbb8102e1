"""Shares of variance: two small tables by hand, and many settings of which one field matters."""

import numpy as np
import pytest

from ddpg_jax.runs.importance import epsilon_squared, importance


def test_shares_are_those_computed_by_hand():
    # Ranks 1.5, 1.5, 3.5, 3.5: all between the groups of the first, nothing between those of the second.
    scores = np.array([0.0, 0.0, 7.0, 7.0])
    assert epsilon_squared(np.array([0, 0, 1, 1]), scores) == 1.0
    assert epsilon_squared(np.array([0, 1, 0, 1]), scores) == 0.0
    # Ranks 1, 2, 3, 4, 6, 5; means 2 and 5: within 2 + 2 of 17.5 in all, so 1 - (4 / 4) / (17.5 / 5).
    assert epsilon_squared(np.array([0, 0, 0, 1, 1, 1]), np.array([1.0, 2, 3, 4, 9, 8])) == pytest.approx(1 - 1 / 3.5)


@pytest.mark.parametrize("groups", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["all equal", "all different"])
def test_groups_that_say_nothing_explain_nothing(groups):
    assert epsilon_squared(np.array(groups), np.array([1.0, 2.0, 3.0, 4.0])) == 0.0


def entry(score, step=100, **values):
    return {"values": values, "interquartile_mean": score, "step": step}


def test_a_field_that_matters_stands_first():
    rng = np.random.default_rng(0)
    rates, sizes = 10 ** rng.uniform(-5, -2, 64), rng.integers(0, 2, 64)
    entries = [
        entry(-((np.log10(rate) + 3) ** 2) + 0.1 * rng.normal(), rate=float(rate), hidden=[64 * 4**size] * 2)
        for rate, size in zip(rates, map(int, sizes), strict=True)
    ]
    found = importance(entries)
    assert list(found) == ["rate", "hidden"]
    assert found["rate"] > 0.6
    assert found["hidden"] < 0.1


def test_only_settings_of_equal_length_are_compared_and_few_say_nothing():
    many = [entry(float(i), name=i % 2, only_some=1) if i % 3 else entry(float(i), name=i % 2) for i in range(8)]
    early = [entry(-100.0 * (i % 2), step=10, name=i % 2) for i in range(20)]
    assert importance([*many, *early, entry(None, name=0)]) == importance(many)
    assert importance(many[:7]) == {}
