"""A norm of many arrays as one of one vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.xla.norm import global_norm


@pytest.mark.parametrize("size", [100, 300])
def test_the_norm_is_that_of_all_numbers(size):
    rng = np.random.default_rng(0)
    tree = {"kernel": rng.normal(size=(size, size)), "bias": rng.normal(size=size)}
    tree = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
    expected = np.linalg.norm(np.concatenate([np.ravel(x) for x in tree.values()]))
    np.testing.assert_allclose(global_norm(tree), expected, rtol=1e-5)
    for bad in (np.nan, np.inf, -np.inf, 1e30):  # whose square is no float32
        assert not np.isfinite(global_norm(tree | {"bias": tree["bias"].at[3].set(bad)}))
