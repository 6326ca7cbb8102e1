"""The categorical projection by hand, and what it conserves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpg_jax.equations.distributional import cross_entropy, mean, project, symexp, two_hot

ATOMS = jnp.array([-1.0, 0.0, 1.0])
P = jnp.array([0.25, 0.5, 0.25])


@pytest.mark.parametrize(
    ("reward", "discount", "expected"),
    [
        (0.0, 1.0, [0.25, 0.5, 0.25]),  # nothing moves
        (0.5, 0.5, [0.0, 0.5, 0.5]),  # atoms to 0, 0.5 and 1; the middle one is halved
        (0.25, 0.0, [0.0, 0.75, 0.25]),  # terminal: all mass at 0.25
        (5.0, 1.0, [0.0, 0.0, 1.0]),  # above the support
        (-5.0, 0.5, [1.0, 0.0, 0.0]),  # below it
        (1.0, 1.0, [0.0, 0.25, 0.75]),  # in part above it
    ],
)
def test_projection_by_hand(call, reward, discount, expected):
    found = call(project, ATOMS, P, jnp.float32(reward), jnp.float32(discount))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@given(
    st.sampled_from([2, 3, 10, 51, 60]),  # each is compiled
    st.floats(-100, 100, width=32),
    st.floats(1, 100, width=32),
    st.floats(-50, 50, width=32),
    st.floats(0, 1, width=32),
    st.integers(0, 2**31),
)
def test_mass_is_conserved_and_so_is_the_mean_inside_the_support(count, low, width, reward, discount, seed):
    atoms = jnp.linspace(low, low + width, count)
    probabilities = jnp.asarray(np.random.default_rng(seed).dirichlet(np.ones(count)), jnp.float32)
    found = np.asarray(project(atoms, probabilities, jnp.float32(reward), jnp.float32(discount)), np.float64)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(), 1, atol=1e-4)
    moved = np.clip(reward + discount * np.asarray(atoms, np.float64), atoms[0], atoms[-1])
    expected = float((np.asarray(probabilities, np.float64) * moved).sum())
    np.testing.assert_allclose((found * np.asarray(atoms, np.float64)).sum(), expected, atol=2e-4 * (width + abs(low)))


def test_mean_and_cross_entropy_by_hand(call):
    logits = jnp.log(jnp.array([0.25, 0.25, 0.5]))
    np.testing.assert_allclose(call(mean, ATOMS, logits), 0.25, rtol=1e-6)
    np.testing.assert_allclose(call(cross_entropy, P, logits), 0.75 * np.log(4) + 0.25 * np.log(2), rtol=1e-6)


def test_cross_entropy_is_least_where_prediction_is_target():
    gradient = jax.grad(cross_entropy, argnums=1)(P, jnp.log(P))
    np.testing.assert_allclose(gradient, np.zeros(3), atol=1e-7)
    assert np.abs(jax.grad(cross_entropy, argnums=1)(P, jnp.zeros(3))).max() > 0.05


def test_two_hot_by_hand(call):
    """A quarter of the way from 1 to 3; at a place; beyond the ends."""
    places = jnp.array([-2.0, 1.0, 3.0])
    for x, expected in ((1.5, [0, 0.75, 0.25]), (1.0, [0, 1, 0]), (-9.0, [1, 0, 0]), (9.0, [0, 0, 1])):
        np.testing.assert_array_equal(call(two_hot, places, jnp.float32(x)), expected)


def test_the_symmetric_logarithm_is_undone(call):
    x = jnp.array([-50.0, -0.5, 0.0, 1e-6, 7.0])
    np.testing.assert_allclose(call(symexp, jnp.sign(x) * jnp.log1p(jnp.abs(x))), x, rtol=1e-5)
