"""SimbaV2: the network by hand in NumPy, weights on their spheres after every step, and learning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpg_jax.agents.modules import Architecture
from ddpg_jax.agents.networks import ensemble, mlp_actor, mlp_critic
from ddpg_jax.agents.optimizers import project_after, skippable
from ddpg_jax.agents.sphere import UNIT, project, unit

OBS, ACTION, WIDTH = 3, 2, 6
S, A = np.array([0.3, -1.2, 2.0], np.float32), np.array([0.5, -0.9], np.float32)
SHAPE = Architecture((WIDTH, WIDTH), kind="simba_v2")


def to_unit(x, axis=-1):
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


def stirred(params):
    """Parameters that no factor is the same of, nor any bias 0."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [leaf + rng.uniform(0.1, 0.3, leaf.shape).astype(np.float32) for leaf in leaves])


def by_hand(params, inputs):
    """Layers and scales in their order, in float64; the columns of the weights need not have length 1."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    layer, scale = (lambda i: p[f"UnitDense_{i}"][UNIT]), (lambda i: p[f"Scale_{i}"]["factors"])
    x = to_unit(to_unit(np.concatenate([*inputs, [3.0]])) @ layer(0) * scale(0))
    for block in range(2):
        wide = x @ layer(2 * block + 1) * scale(2 * block + 1)
        assert wide.shape == (4 * WIDTH,)
        inside = to_unit((np.maximum(wide, 0) + 1e-8) @ layer(2 * block + 2))
        share = scale(2 * block + 2) * (1 / 3) * np.sqrt(WIDTH)
        x = to_unit((1 - share) * x + share * inside)
    return x @ layer(5) * scale(5) @ layer(6) + p["bias"]


def test_networks_are_those_computed_by_hand():
    actor, critic = mlp_actor(OBS, ACTION, SHAPE), mlp_critic(OBS, ACTION, SHAPE, outputs=4)
    for network, inputs, last in ((actor, (S,), np.tanh), (critic, (S, A), lambda x: x)):
        params = stirred(network.init(jax.random.key(1)))
        expected = last(by_hand(params, inputs))
        np.testing.assert_allclose(jax.jit(network.apply)(params, (), *inputs), expected, rtol=1e-5, atol=1e-6)


def test_they_begin_on_the_spheres_and_with_the_published_scales():
    params = jax.jit(mlp_critic(OBS, ACTION, SHAPE).init)(jax.random.key(2))["params"]
    kernels = [leaf[UNIT] for name, leaf in params.items() if name.startswith("UnitDense")]
    assert [kernel.shape for kernel in kernels] == [(6, 6), (6, 24), (24, 6), (6, 24), (24, 6), (6, 6), (6, 1)]
    for kernel in kernels:
        np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1.0, rtol=1e-6)
    scales = [float(params[f"Scale_{i}"]["factors"][0]) for i in range(6)]
    block = [(2 / WIDTH) ** 0.5 / 2, WIDTH**-0.5]
    assert scales == pytest.approx([(2 / WIDTH) ** 0.5, *block, *block, 1.0])
    assert params["bias"].tolist() == [0.0]


def test_after_each_step_weights_have_length_1_and_all_else_is_as_the_optimiser_says():
    critics = ensemble(mlp_critic(OBS, ACTION, SHAPE), 2)
    params = jax.jit(critics.init)(jax.random.key(0))
    plain, held = skippable(optax.sgd(0.5)), project_after(skippable(optax.sgd(0.5)), project)

    @jax.jit
    def step(params):
        gradient = jax.grad(lambda p: jnp.sum(jnp.square(critics.apply(p, (), S, A) - 3.0)))(params)
        return tuple(
            optax.apply_updates(params, opt.update(gradient, opt.init(params), params)[0]) for opt in (plain, held)
        )

    free, found = step(params)
    for name, layer in found["params"].items():
        if name.startswith("UnitDense"):
            np.testing.assert_allclose(np.linalg.norm(layer[UNIT], axis=1), 1.0, rtol=1e-5)
            np.testing.assert_allclose(
                layer[UNIT], to_unit(np.asarray(free["params"][name][UNIT]), 1), rtol=1e-4, atol=1e-5
            )
        else:
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), layer, free["params"][name])
    moved = max(
        float(np.abs(np.linalg.norm(free["params"][f"UnitDense_{i}"][UNIT], axis=1) - 1).max()) for i in range(7)
    )
    assert moved > 1e-3  # without the projection they leave their spheres


def test_what_has_no_direction_stays_0_and_has_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(unit(x)))(jnp.zeros(3))
    assert value == 0.0
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_agents_learn_with_it_and_their_weights_keep_their_length(make_tiny, make_batches):
    tiny = make_tiny(name="td3", architecture="simba_v2", hidden=(WIDTH, WIDTH))
    key = jax.random.key(0)
    state = tiny.init(key)
    after, metrics, _ = tiny.update(state, make_batches(4), key)
    assert np.isfinite(metrics["critic_loss"]).all()
    for network in (after.params.actor, after.params.critic):
        for name, layer in network["params"].items():
            if name.startswith("UnitDense"):
                np.testing.assert_allclose(np.linalg.norm(layer[UNIT], axis=-2), 1.0, rtol=1e-5)
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), state.params, after.params)
    assert all(jax.tree.leaves(changed))
