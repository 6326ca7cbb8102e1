"""Target parameters follow by exact numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.equations.polyak import soft_update

ONLINE = {"w": [[1.0, -2.0], [4.0, 0.5]], "b": [8.0]}
TARGET = {"w": [[3.0, 2.0], [0.0, 0.5]], "b": [-4.0]}


@pytest.mark.parametrize(
    ("tau", "expected"),
    [
        (0.25, {"w": [[2.5, 1.0], [1.0, 0.5]], "b": [-1.0]}),  # 1/4 of the way
        (1.0, ONLINE),
        (0.0, TARGET),
    ],
)
def test_soft_update_moves_each_leaf_by_tau(call, tau, expected):
    online, target = ({k: jnp.array(v) for k, v in tree.items()} for tree in (ONLINE, TARGET))
    result = call(soft_update, online, target, jnp.float32(tau))
    assert set(result) == {"w", "b"}
    for name, leaf in result.items():
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(leaf, np.array(expected[name], np.float32))


def test_soft_update_takes_a_number_and_converges_geometrically():
    target = jnp.array([1.0])
    for _ in range(10):
        target = soft_update(jnp.zeros(1), target, 0.1)
    np.testing.assert_allclose(target, [0.9**10], rtol=1e-6)
