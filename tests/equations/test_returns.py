"""Returns against numbers worked by hand, and n-step folding against a loop over rows."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpg_jax.equations.returns import bootstrapped_return, fold_steps

GAMMA = 0.5
REWARD = np.array([1.0, 2.0, 4.0], np.float32)


@pytest.mark.parametrize(
    ("reward", "discount", "value", "expected"),
    [(1.0, 0.5, 10.0, 6.0), (-2.0, 0.0, 1e6, -2.0), (0.0, 1.0, -3.0, -3.0), (1.5, 0.25, -4.0, 0.5)],
)
def test_bootstrapped_return_by_hand(call, reward, discount, value, expected):
    assert call(bootstrapped_return, *map(jnp.float32, (reward, discount, value))) == expected


@pytest.mark.parametrize(
    ("terminated", "truncated", "available", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], 3, (1 + 1 + 1, 0.125, 2)),  # the whole window
        ([0, 0, 0], [0, 0, 0], 2, (1 + 1, 0.25, 1)),  # the write head
        ([0, 0, 0], [0, 0, 0], 1, (1, 0.5, 0)),
        ([0, 1, 0], [0, 0, 0], 3, (1 + 1, 0, 1)),  # a terminal successor is worth nothing
        ([0, 0, 0], [0, 1, 0], 3, (1 + 1, 0.25, 1)),  # a time limit is not terminal
        ([0, 1, 0], [0, 1, 0], 3, (1 + 1, 0, 1)),  # both at once: terminal
        ([0, 0, 1], [1, 0, 0], 3, (1, 0.5, 0)),  # what follows an end belongs to another episode
        ([0, 1, 0], [0, 0, 0], 1, (1, 0.5, 0)),  # what lies beyond the write head is not read
        ([1, 0, 0], [0, 0, 0], 3, (1, 0, 0)),
    ],
)
def test_fold_steps_by_hand(call, terminated, truncated, available, expected):
    flags = jnp.array(terminated, bool), jnp.array(truncated, bool)
    result = call(fold_steps, jnp.asarray(REWARD), *flags, jnp.int32(available), jnp.float32(GAMMA))
    assert tuple(map(float, result)) == expected


def _fold_by_loop(rows, available, gamma):
    total, discount, last = 0.0, 1.0, 0
    for i, (reward, terminated, truncated) in enumerate(rows[:available]):
        total, discount, last = total + discount * reward, discount * gamma, i
        if terminated:
            return total, 0.0, last
        if truncated:
            break
    return total, discount, last


@cache
def _compiled():
    return jax.jit(fold_steps)


@st.composite
def _windows(draw):
    """Four windows of n rows; whole rewards and dyadic gammas make float32 exact."""
    n = draw(st.integers(1, 5))
    flag = st.sampled_from([False, False, True])
    row = st.tuples(st.integers(-8, 8), flag, flag)
    windows = draw(st.lists(st.lists(row, min_size=n, max_size=n), min_size=4, max_size=4))
    available = draw(st.lists(st.integers(1, n), min_size=4, max_size=4))
    return windows, available, draw(st.sampled_from([0.0, 0.5, 0.75, 1.0]))


@given(_windows())
def test_fold_steps_equals_a_loop_on_host_and_device(drawn):
    windows, available, gamma = drawn
    expected = np.array([_fold_by_loop(*one, gamma) for one in zip(windows, available, strict=True)]).T
    rows = np.array(windows, np.float32).reshape(2, 2, -1, 3)  # any axes may lead
    args = rows[..., 0], rows[..., 1] > 0, rows[..., 2] > 0, np.array(available, np.int32).reshape(2, 2)
    host = fold_steps(*args, gamma)
    device = _compiled()(*map(jnp.asarray, args), jnp.float32(gamma))
    for ours, on_device, right in zip(host, device, expected, strict=True):
        assert isinstance(ours, np.ndarray)
        assert isinstance(on_device, jax.Array)
        assert ours.dtype == on_device.dtype
        np.testing.assert_array_equal(ours.reshape(-1), right)
        np.testing.assert_array_equal(on_device, ours)
