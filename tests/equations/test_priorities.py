"""Priorities and weights against numbers worked by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.equations.priorities import Prioritization, annealed_beta, fading, importance_weight, priority

RULE = Prioritization(alpha=0.5, beta=0.4, beta_end=1.0, epsilon=0.25, updates=200)


def on_both(call, fn, values, expected, dtype="float32"):
    np.testing.assert_allclose(call(fn, jnp.asarray(values, dtype)), expected, rtol=1e-6)
    np.testing.assert_allclose(fn(np.asarray(values, dtype)), expected, rtol=1e-6)


def test_priority_by_hand(call):
    on_both(call, lambda td: priority(td, RULE), [2.0, -0.75, 0.0, -2.0], [1.5, 1.0, 0.5, 1.5])


def test_priorities_are_finite_whatever_the_errors(call):
    on_both(call, lambda td: priority(td, RULE), [np.nan, np.inf, -np.inf, 3e38], [1e15] * 4)


def test_without_alpha_all_priorities_are_exactly_one(call):
    rule, errors = RULE._replace(alpha=0.0, epsilon=1e-6), [0.0, -3.0, 1e20, np.nan]
    assert np.asarray(call(lambda td: priority(td, rule), jnp.float32(errors))).tolist() == [1] * 4
    traced = call(lambda td, alpha: priority(td, rule._replace(alpha=alpha)), jnp.float32(errors), jnp.float32(0))
    assert np.asarray(traced).tolist() == [1] * 4


@pytest.mark.parametrize(("beta", "expected"), [(1.0, [0.25, 1, 1, 0.5]), (0.5, [0.5, 1, 1, 0.5**0.5]), (0.0, [1] * 4)])
def test_importance_weight_by_hand(call, beta, expected):
    """Of priorities 4, 1, 1, 2, N·P is 2, 1/2, 1/2, 1."""
    on_both(call, lambda p: importance_weight(p, beta), [4.0, 1.0, 1.0, 2.0], expected)


def test_the_largest_weight_is_that_of_its_own_batch(call):
    on_both(call, lambda p: importance_weight(p, 1.0), [[4.0, 2.0], [1.0, 4.0]], [[0.5, 1], [1, 0.25]])


def test_weights_are_those_of_the_definition():
    p = np.random.default_rng(0).exponential(size=(3, 16))
    weight = (100 * p / 123.4) ** -0.7  # N and the sum may be any
    np.testing.assert_allclose(importance_weight(p, 0.7), weight / weight.max(-1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize(("made", "expected"), [(0, 0.4), (20, 0.46), (100, 0.7), (200, 1.0), (10**6, 1.0)])
def test_beta_is_linear_and_then_stays(call, made, expected):
    on_both(call, lambda made: annealed_beta(made, RULE), made, expected, "int32")


def test_a_run_without_updates_has_a_beta_too():
    assert annealed_beta(np.asarray(0), RULE._replace(updates=0)) == 0.4
    assert annealed_beta(jnp.int32(0), RULE._replace(updates=2**40)) == jnp.float32(0.4)


def test_what_age_leaves_by_hand(call):
    rule = RULE._replace(fade=0.5, fade_floor=0.2)
    on_both(call, lambda age: fading(age, rule), [0.0, 1.0, 2.0, 3.0, 400.0], [1, 0.5, 0.25, 0.2, 0.2])
    assert rule.fades
    assert not RULE.fades
