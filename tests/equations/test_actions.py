"""From [-1, 1] to an environment's units, with NumPy and with jax.numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ddpg_jax.equations.actions import to_units

SIZE = 8
EPS, TINY = np.finfo(np.float32).eps, np.finfo(np.float32).smallest_normal
BOUNDS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
INSIDE = st.floats(-1, 1, width=32, allow_subnormal=False)

mapped = jax.jit(to_units)


@settings(max_examples=400)
@given(arrays(np.float32, SIZE, elements=BOUNDS), arrays(np.float32, SIZE, elements=BOUNDS), st.data())
def test_the_map_is_affine_exact_at_the_ends_and_always_inside(a, b, data):
    assume((a != b).all())
    low, high = np.minimum(a, b), np.maximum(a, b)
    ones = np.ones(SIZE, np.float32)
    np.testing.assert_array_equal(mapped(-ones, low, high), low)
    np.testing.assert_array_equal(mapped(ones, low, high), high)
    action = data.draw(arrays(np.float32, SIZE, elements=INSIDE))
    got = np.asarray(mapped(action, low, high))
    assert got.dtype == np.float32
    assert ((low <= got) & (got <= high)).all()
    exact = to_units(*(x.astype(np.float64) for x in (action, low, high)))
    assert exact.dtype == np.float64
    largest = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    assert (np.abs(got - exact) <= 2 * EPS * largest + TINY).all()


@pytest.mark.parametrize("xp", [np, jnp])
def test_asymmetric_and_unequal_bounds_by_hand(xp):
    low, high = xp.asarray([-2.0, 0, 10]), xp.asarray([2.0, 8, 11])
    table = {-1.0: [-2, 0, 10], 0.0: [0, 4, 10.5], 0.5: [1, 6, 10.75], 1.0: [2, 8, 11], -0.25: [-0.5, 3, 10.375]}
    for action, units in table.items():
        np.testing.assert_array_equal(to_units(xp.full(3, action), low, high), np.array(units, np.float32))
    for action, bound in ((-4.0, low), (4.0, high)):
        np.testing.assert_array_equal(to_units(xp.full(3, action), low, high), bound)
