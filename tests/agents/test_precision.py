"""Products in bfloat16: of rounded factors, summed in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.agents.modules import Architecture
from ddpg_jax.agents.networks import mlp_actor, mlp_critic
from ddpg_jax.agents.precision import bfloat16_dot

OBS, ACTION, HIDDEN = 5, 3, Architecture((12, 10))
S = np.linspace(-1.0, 1.0, OBS, dtype=np.float32)
A = np.array([0.5, -0.25, 1.0], np.float32)


def _rounded(x):
    return np.asarray(jnp.asarray(x).astype(jnp.bfloat16).astype(jnp.float32), np.float64)


def test_bfloat16_rounds_the_factors_and_sums_in_float32():
    """1 + 2^-9 rounds to 1 in bfloat16's 8 bits; 256 + 1 would not be 257 in a bfloat16 sum."""
    assert bfloat16_dot(jnp.array([1.0 + 2.0**-9]), jnp.array([[1.0]])) == 1.0
    assert bfloat16_dot(jnp.array([256.0, 1.0]), jnp.ones((2, 1))) == 257.0


@pytest.mark.parametrize("lanes", [(), (4,)])
def test_bfloat16_products_and_their_gradients_equal_those_of_rounded_factors(lanes):
    rng = np.random.default_rng(0)
    x, kernel, g = (rng.normal(size=shape).astype(np.float32) for shape in ((*lanes, 7), (7, 5), (*lanes, 5)))
    dot = jax.vmap(bfloat16_dot, (0, None)) if lanes else bfloat16_dot
    out, pull = jax.vjp(dot, x, kernel)
    d_x, d_kernel = pull(jnp.asarray(g))
    assert out.dtype == d_x.dtype == d_kernel.dtype == jnp.float32
    np.testing.assert_allclose(out, _rounded(x) @ _rounded(kernel), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(d_x, _rounded(g) @ _rounded(kernel).T, rtol=2**-7, atol=1e-3)
    expected = _rounded(x).T @ _rounded(g) if lanes else np.outer(_rounded(x), _rounded(g))
    np.testing.assert_allclose(d_kernel, expected, rtol=2**-7, atol=1e-2)


def test_a_bfloat16_network_keeps_its_parameters_in_float32_and_differs_by_rounding_only():
    full, half = (
        mlp_critic(OBS, ACTION, HIDDEN._replace(precision=precision)) for precision in ("float32", "bfloat16")
    )
    params = half.init(jax.random.key(5))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    exact, rounded = full.apply(params, (), S, A), half.apply(params, (), S, A)
    assert rounded.dtype == jnp.float32
    assert 0 < abs(float(exact[0] - rounded[0])) < 0.02


def test_gradients_of_a_bfloat16_network_need_no_outer_products():
    """The gradient of a kernel is one product over the batch, not a kernel for each sample that is then summed."""
    network = mlp_actor(OBS, ACTION, Architecture((64,), precision="bfloat16"))
    params, batch = network.init(jax.random.key(6)), jnp.ones((32, OBS))

    def loss(params):
        return jnp.mean(jax.vmap(network.apply, (None, None, 0))(params, (), batch))

    shapes = {v.aval.shape for eqn in jax.make_jaxpr(jax.grad(loss))(params).eqns for v in eqn.outvars}
    assert (32, 64) in shapes
    assert not [shape for shape in shapes if len(shape) > 2]
