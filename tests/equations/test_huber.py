"""The Huber loss against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.equations.huber import huber


@pytest.mark.parametrize(("threshold", "expected"), [(1.0, [0.0, 0.125, 0.5, 2.5]), (2.0, [0.0, 0.125, 0.5, 4.0])])
def test_huber_by_hand(call, threshold, expected):
    for sign in (1, -1):
        found = call(lambda x: huber(x, threshold), sign * jnp.array([0.0, 0.5, 1.0, 3.0]))
        np.testing.assert_array_equal(found, expected)


def test_no_error_pulls_harder_than_the_threshold():
    slopes = jax.vmap(jax.grad(huber))(jnp.array([-5.0, -0.5, 0.0, 0.25, 1e20]))
    np.testing.assert_array_equal(slopes, [-1, -0.5, 0, 0.25, 1])
