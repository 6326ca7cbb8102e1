"""Last layers by their weights transposed, against the plain product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_reference import dense_layers

from ddpg_jax.agents.modules import Architecture
from ddpg_jax.agents.networks import ensemble, mlp_critic

OBS, ACTION, HIDDEN = 5, 3, Architecture((12, 10))


@pytest.mark.parametrize("outputs", [1, 3, 31, 32, 51])
def test_the_last_layer_is_a_product_with_its_weights_and_so_is_its_gradient(outputs):
    network = ensemble(mlp_critic(OBS, ACTION, HIDDEN, outputs=outputs), 2)
    params = network.init(jax.random.key(0))
    states, actions = (np.random.default_rng(0).normal(size=(7, n)).astype(np.float32) for n in (OBS, ACTION))
    weights = np.random.default_rng(1).normal(size=(7, 2, outputs)).astype(np.float32)

    def total(params):
        found = jax.vmap(lambda s, a: network.apply(params, (), s, a))(states, actions)
        return jnp.sum(found * weights), found

    (_, found), gradient = jax.value_and_grad(total, has_aux=True)(params)
    for m in range(2):
        of_one = jax.tree.map(lambda x, m=m: x[m], params)
        kernels = dense_layers(of_one)
        hidden = np.concatenate([states, actions], -1)
        for kernel, bias in kernels[:-1]:
            hidden = np.maximum(hidden @ np.asarray(kernel) + np.asarray(bias), 0)
        expected = hidden @ np.asarray(kernels[-1][0]) + np.asarray(kernels[-1][1])
        np.testing.assert_allclose(found[:, m], expected, rtol=1e-5, atol=1e-6)
        d_kernel, d_bias = dense_layers(jax.tree.map(lambda x, m=m: x[m], gradient))[-1]
        np.testing.assert_allclose(d_kernel, hidden.T @ weights[:, m], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(d_bias, weights[:, m].sum(0), rtol=1e-5, atol=1e-5)
