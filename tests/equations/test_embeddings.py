"""Embeddings against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.equations.embeddings import avg_l1_norm, contrast


def test_the_mean_size_is_one(call):
    np.testing.assert_allclose(call(avg_l1_norm, jnp.array([1.0, -2.0, 3.0])), [0.5, -1.0, 1.5])
    np.testing.assert_array_equal(call(avg_l1_norm, jnp.zeros(3)), 0)


def test_the_gradient_by_hand():
    """Of x0/m with m = (|x0| + |x1|)/2: by x0 it is 1/m - x0/(2 m^2), by x1 -x0·sign(x1)/(2 m^2)."""
    gradient = jax.grad(lambda x: avg_l1_norm(x)[0])(jnp.array([1.0, -3.0]))
    np.testing.assert_allclose(gradient, [1 / 2 - 1 / 8, 1 / 8], rtol=1e-6)


def test_contrast_by_hand():
    """Of three samples at right angles, the first says its own, the second that of the third, the third nothing new."""
    said = jnp.array([[5.0, 0, 0], [0, 0, 2.0], [1.0, 1.0, 1.0]])
    found = jax.vmap(lambda one, own: contrast(one, own, 0.5, "batch"), axis_name="batch")(said, 3 * jnp.eye(3))
    e = np.exp(2)
    np.testing.assert_allclose(found, [-np.log(e / (e + 2)), -np.log(1 / (e + 2)), np.log(3)], rtol=1e-5)
