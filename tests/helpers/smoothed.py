"""The noise on the target's actions that tests of updates against NumPy share, and how near both must come."""

import jax
import numpy as np

from ddpg_jax.rng import run_keys, stream_key

KEY = run_keys([3])[0]
SIGMA, CLIP = 0.3, 0.4


def noise_of(step):
    """Of eight samples with two actions, `[8, 2]`."""
    keys = jax.random.split(stream_key(KEY, "critic", step), 8)
    drawn = jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
    return np.clip(SIGMA * np.asarray(drawn, np.float64), -CLIP, CLIP)


def assert_close(found, expected):
    """To 1e-5, leaf by leaf."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)
