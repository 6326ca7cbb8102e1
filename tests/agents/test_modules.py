"""Layers: their first parameters, their norms, residual blocks, and which hidden units answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_reference import dense_layers

from ddpg_jax.agents.modules import Architecture, orthogonal, uniform_init
from ddpg_jax.agents.networks import ensemble, mlp_actor, mlp_critic
from ddpg_jax.agents.slots import LearnAux
from ddpg_jax.types import BATCH

OBS, ACTION, HIDDEN = 5, 3, Architecture((12, 10))
S = np.linspace(-1.0, 1.0, OBS, dtype=np.float32)
A = np.array([0.5, -0.25, 1.0], np.float32)


def _assert_uniform(leaf, limit):
    """Inside ±limit, and drawn from all of it rather than from a part."""
    assert np.abs(leaf).max() <= limit
    assert leaf.min() < 0 < leaf.max()
    if leaf.size >= 30:
        assert np.abs(leaf).max() > 0.9 * limit
        np.testing.assert_allclose(np.std(leaf), limit / np.sqrt(3), rtol=0.2)


@pytest.mark.parametrize("final_scale", [None, 3e-3])
@pytest.mark.parametrize("action_layer", [0, 1])
def test_fan_in_bounds_weights_and_biases(final_scale, action_layer):
    """U(±1/sqrt(fan_in)), and U(±final_scale) for the last layer where it is given."""
    shape = Architecture((40, 30), final=None if final_scale is None else uniform_init(final_scale))
    critic = mlp_critic(OBS, ACTION, shape, action_layer=action_layer, outputs=4)
    for network, fan_ins in [
        (mlp_actor(OBS, 4, shape), (OBS, 40, 30)),
        (critic, (OBS + ACTION, 40, 30) if action_layer == 0 else (OBS, 40 + ACTION, 30)),
    ]:
        layers = dense_layers(network.init(jax.random.key(3)))
        limits = [fan_in**-0.5 for fan_in in fan_ins[:-1]] + [final_scale or fan_ins[-1] ** -0.5]
        assert [len(kernel) for kernel, _ in layers] == list(fan_ins)
        for (kernel, bias), limit in zip(layers, limits, strict=True):
            _assert_uniform(kernel, limit)
            _assert_uniform(bias, limit)


def test_lecun_normal_has_zero_biases_and_keeps_the_final_scale():
    network = mlp_actor(200, 4, Architecture((100,), initializer="lecun_normal", final=uniform_init(3e-3)))
    (kernel, bias), (last_kernel, last_bias) = dense_layers(network.init(jax.random.key(0)))
    np.testing.assert_allclose(np.std(kernel), 200**-0.5, rtol=0.05)
    assert np.abs(kernel).max() > 200**-0.5  # not uniform
    assert not bias.any()
    _assert_uniform(last_kernel, 3e-3)
    assert last_bias.any()


def test_truncated_normal_is_that_of_tflearn():
    """Deviation 0.02 before both tails are cut at twice of it, after which it is 0.0176; zero biases."""
    network = mlp_actor(200, 4, Architecture((500,), initializer="truncated_normal", final=uniform_init(3e-3)))
    (kernel, bias), (last_kernel, _) = dense_layers(network.init(jax.random.key(0)))
    assert 0.0395 < np.abs(kernel).max() <= 0.04
    np.testing.assert_allclose(np.std(kernel), 0.8796 * 0.02, rtol=0.01)
    assert not bias.any()
    _assert_uniform(last_kernel, 3e-3)


def _normed(x, axis, scale=1.0, bias=0.0, epsilon=1e-6):
    mean, deviation = x.mean(axis, keepdims=True), np.sqrt(x.var(axis, keepdims=True) + epsilon)
    return (x - mean) / deviation * scale + bias


def _stirred(params, key=9):
    """The parameters with noise: no scale stays 1, no bias 0."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(key), len(leaves))
    return jax.tree.unflatten(
        structure, [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


def _part(params, name):
    return {key: np.asarray(value, np.float64) for key, value in params["params"][name].items()}


def _product(params, i, x):
    layer = _part(params, f"Dense_{i}")
    return x @ layer["kernel"] + layer["bias"]


@pytest.mark.parametrize("action_layer", [0, 1])
def test_layer_norm_stands_between_product_and_activation(call, action_layer):
    network = mlp_critic(OBS, ACTION, HIDDEN._replace(normalization="layer"), action_layer=action_layer)
    params = _stirred(network.init(jax.random.key(1)))
    x = np.asarray(S, np.float64)
    for i in range(2):
        x = np.concatenate([x, A]) if i == action_layer else x
        x = np.maximum(_normed(_product(params, i, x), -1, **_part(params, f"LayerNorm_{i}")), 0)
    assert call(network.apply, params, (), S, A) == pytest.approx(_product(params, 2, x), abs=1e-5)


def test_simba_is_an_embedding_residual_blocks_and_a_last_norm(call):
    network = mlp_actor(OBS, ACTION, Architecture((6, 6), kind="simba"))
    params = _stirred(network.init(jax.random.key(1)))
    x = _product(params, 0, np.asarray(S, np.float64))
    for block in range(2):
        wide = _product(params, 2 * block + 1, _normed(x, -1, **_part(params, f"LayerNorm_{block}")))
        assert wide.shape == (24,)
        x = x + _product(params, 2 * block + 2, np.maximum(wide, 0))
    expected = np.tanh(_product(params, 5, _normed(x, -1, **_part(params, "LayerNorm_2"))))
    np.testing.assert_allclose(call(network.apply, params, (), S), expected, atol=1e-5)


BATCHED = HIDDEN._replace(normalization="batch")


def _learned(network, params, moments, *inputs):
    """Outputs `[B, ...]` and trace of a batch."""
    axes, out = (None, None, *[0] * len(inputs)), (0, LearnAux(None, 0))
    return jax.jit(jax.vmap(network.learn, axes, out, axis_name=BATCH))(params, moments, *inputs)


def test_batch_norm_learns_by_the_batch_and_acts_by_its_running_moments():
    """Observation and hidden layers of the actor; a hundredth of the batch's moments goes into the running ones."""
    network = mlp_actor(OBS, ACTION, BATCHED)
    params, moments = _stirred(network.init(jax.random.key(1))), network.moments()
    obs = np.random.default_rng(0).normal(size=(16, OBS)) * 3 + 1
    output, trace = _learned(network, params, moments, jnp.asarray(obs, jnp.float32))

    x, expected = obs, {}
    for i in range(3):
        expected[f"BatchNorm_{i}"] = {"mean": 0.01 * x.mean(0), "var": 0.99 + 0.01 * x.var(0)}
        x = _normed(x, 0, **_part(params, f"BatchNorm_{i}"), epsilon=1e-5)
        x = _product(params, i, x if i == 0 else np.maximum(x, 0))
    np.testing.assert_allclose(output, np.tanh(x), atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), dict(trace.moments), expected)

    x = obs[0]
    for i in range(3):
        mean, var = (np.asarray(trace.moments[f"BatchNorm_{i}"][name], np.float64) for name in ("mean", "var"))
        part = _part(params, f"BatchNorm_{i}")
        x = (x - mean) / np.sqrt(var + 1e-5) * part["scale"] + part["bias"]
        x = _product(params, i, x if i == 0 else np.maximum(x, 0))
    acted = network.apply(params, trace.moments, jnp.asarray(obs[0], jnp.float32))
    np.testing.assert_allclose(acted, np.tanh(x), atol=1e-5)


@pytest.mark.parametrize(("action_layer", "norms"), [(0, [OBS]), (1, [OBS, 12])])
def test_batch_norm_of_a_critic_ends_where_the_action_enters(action_layer, norms):
    network = ensemble(mlp_critic(OBS, ACTION, BATCHED, action_layer=action_layer), 2)
    moments = network.moments()
    assert [moments[f"BatchNorm_{i}"]["var"].shape for i in range(len(norms))] == [(2, size) for size in norms]
    assert len(moments) == len(norms)
    obs, action = jnp.asarray(np.random.default_rng(1).normal(size=(8, OBS)), jnp.float32), jnp.zeros((8, ACTION))
    output, trace = _learned(network, network.init(jax.random.key(0)), moments, obs, action)
    assert (output.shape, trace.active.shape) == ((8, 2, 1), (8, 2, 22))
    np.testing.assert_allclose(trace.moments["BatchNorm_0"]["mean"], 0.01 * np.stack([obs.mean(0)] * 2), atol=1e-6)


def test_a_hidden_unit_answers_where_its_activation_is_not_zero():
    network = mlp_actor(2, 1, Architecture((2, 1)))
    layers = {
        "Dense_0": {"kernel": jnp.array([[1.0, -1.0], [0.0, 0.0]]), "bias": jnp.zeros(2)},
        "Dense_1": {"kernel": jnp.array([[1.0], [1.0]]), "bias": jnp.array([-5.0])},
        "Dense_2": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)},
    }
    for obs, active in (([2.0, 9.0], [True, False, False]), ([-6.0, 0.0], [False, True, True])):
        output, trace = network.learn({"params": layers}, (), jnp.array(obs))
        assert trace.active.tolist() == active
        assert trace.moments == ()
        np.testing.assert_array_equal(output, network.apply({"params": layers}, (), jnp.array(obs)))


@pytest.mark.parametrize("shape", [(3, 3, 2, 5), (40, 7), (7, 40), (12, 12)])
def test_orthogonal_kernels_are_those_of_jax_but_for_rounding(shape):
    key = jax.random.key(3)
    found = np.asarray(jax.jit(orthogonal(1.5), static_argnums=1)(key, shape))
    expected = jax.nn.initializers.orthogonal(1.5)(jax.random.clone(key), shape)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    flat = found.reshape(-1, shape[-1]).astype(np.float64)
    gram = flat.T @ flat if flat.shape[0] >= flat.shape[1] else flat @ flat.T
    np.testing.assert_allclose(gram, 2.25 * np.eye(len(gram)), atol=2e-6)
