"""The linear recurrence: both orders and the plain loop agree, in their gradients too."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from ddpg_jax.xla.recurrence import in_parallel, linear_recurrence, one_after_another

H = 3


def _drawn(seed, n):
    """Factors inside the unit circle, inputs, and which states are kept: two of three."""
    rng = np.random.default_rng(seed)
    modulus, phase = rng.uniform(0.3, 0.99, H), rng.uniform(-np.pi, np.pi, H)
    factor = modulus * np.cos(phase), modulus * np.sin(phase)
    inputs = rng.normal(size=(n, H)), rng.normal(size=(n, H))
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (factor, inputs, rng.random(n) < 2 / 3))


def _loop(factor, inputs, keep):
    """The recurrence in NumPy's complex numbers."""
    factor, inputs = (np.asarray(a, np.complex128) + 1j * np.asarray(b) for a, b in (factor, inputs))
    state, states = np.zeros(H, complex), []
    for now, kept in zip(inputs, np.asarray(keep), strict=True):
        state = (factor * state if kept else 0) + now
        states.append(state)
    return np.real(states), np.imag(states)


@pytest.mark.parametrize("function", [linear_recurrence, one_after_another, in_parallel])
@settings(max_examples=5)
@given(seed=st.integers(0, 2**16))
def test_both_orders_are_the_recurrence(function, seed):
    arguments = _drawn(seed, 13)
    found, expected = jax.jit(function)(*arguments), _loop(*arguments)
    for part, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(part, wanted, atol=1e-5)


@pytest.mark.parametrize("function", [one_after_another, in_parallel])
def test_what_is_forgotten_leaves_no_trace(function):
    """Not even a rounding: what stands before a state that is not kept has no bit in what comes after."""
    factor, inputs, keep = _drawn(0, 13)
    keep = keep.at[6].set(0.0)
    changed = jax.tree.map(lambda x: x.at[:6].add(1e6), inputs)
    for a, b in zip(function(factor, inputs, keep), function(factor, changed, keep), strict=True):
        np.testing.assert_array_equal(a[6:], b[6:])
        assert (a[:6] != b[:6]).all()


@pytest.mark.parametrize("n", [1, 2, 13])
def test_the_gradient_written_here_is_that_of_the_plain_loop(n):
    """Of a batch, whose rows forget at different steps, by one factor for all."""
    factor, _, _ = _drawn(0, n)
    rows = [_drawn(seed, n)[1:] for seed in range(1, 5)]
    inputs, keep = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

    def loss(function, factor, inputs):
        states = jax.vmap(function, (None, 0, 0))(factor, inputs, keep)
        weights = jnp.cos(jnp.arange(4 * n * H, dtype=jnp.float32)).reshape(4, n, H)
        return jnp.sum(weights * states[0] + weights[::-1] * states[1] ** 2)

    def gradient(function):
        return jax.jit(jax.grad(lambda factor, inputs: loss(function, factor, inputs), (0, 1)))(factor, inputs)

    for found, expected in zip(
        *map(jax.tree.leaves, map(gradient, (linear_recurrence, one_after_another))), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
