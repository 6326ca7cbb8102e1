"""Networks of one sample: their first parameters, where the action enters, and ensembles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.agents.modules import Architecture, uniform_init
from ddpg_jax.agents.networks import ensemble, identity, mlp_actor, mlp_critic
from ddpg_jax.agents.precision import bfloat16_dot
from ddpg_jax.agents.slots import LearnAux
from ddpg_jax.types import BATCH

OBS, ACTION, HIDDEN = 5, 3, Architecture((12, 10))
S = np.linspace(-1.0, 1.0, OBS, dtype=np.float32)
A = np.array([0.5, -0.25, 1.0], np.float32)


def _layers(params):
    """`[(kernel, bias)]` of the dense layers, in order."""
    return [(layer["kernel"], layer["bias"]) for _, layer in sorted(params["params"].items())]


def _shapes(params):
    return [(kernel.shape, bias.shape) for kernel, bias in _layers(params)]


def _forward(params, x, late=None, late_layer=0, activation=lambda x: np.maximum(x, 0)):
    layers = _layers(params)
    for i, (kernel, bias) in enumerate(layers):
        x = np.concatenate([x, late]) if late is not None and i == late_layer else x
        x = x @ np.asarray(kernel) + np.asarray(bias)
        x = activation(x) if i < len(layers) - 1 else x
    return x


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
        layers = _layers(network.init(jax.random.key(3)))
        limits = [fan_in**-0.5 for fan_in in fan_ins[:-1]] + [final_scale or fan_ins[-1] ** -0.5]
        assert [len(kernel) for kernel, _ in layers] == list(fan_ins)
        for (kernel, bias), limit in zip(layers, limits, strict=True):
            _assert_uniform(kernel, limit)
            _assert_uniform(bias, limit)


def test_lecun_normal_has_zero_biases_and_keeps_the_final_scale():
    network = mlp_actor(200, 4, Architecture((100,), initializer="lecun_normal", final=uniform_init(3e-3)))
    (kernel, bias), (last_kernel, last_bias) = _layers(network.init(jax.random.key(0)))
    np.testing.assert_allclose(np.std(kernel), 200**-0.5, rtol=0.05)
    assert np.abs(kernel).max() > 200**-0.5  # not uniform
    assert not bias.any()
    _assert_uniform(last_kernel, 3e-3)
    assert last_bias.any()


def test_identity_encoder_has_no_parameters():
    encoder = identity()
    assert encoder.init(jax.random.key(0)) == ()
    assert encoder.apply((), (), S) is S


@pytest.mark.parametrize(
    ("activation", "reference"),
    [
        ("relu", lambda x: np.maximum(x, 0)),
        ("tanh", np.tanh),
        ("elu", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
        ("silu", lambda x: x / (1 + np.exp(-x))),
    ],
)
def test_actor_is_tanh_of_the_layers(call, activation, reference):
    network = mlp_actor(OBS, ACTION, HIDDEN._replace(activation=activation))
    params = network.init(jax.random.key(1))
    expected = np.tanh(_forward(params, S, activation=reference))
    np.testing.assert_allclose(call(network.apply, params, (), jnp.asarray(S)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("action_layer", "shapes"),
    [
        (0, [((8, 12), (12,)), ((12, 10), (10,)), ((10, 2), (2,))]),
        (1, [((5, 12), (12,)), ((15, 10), (10,)), ((10, 2), (2,))]),
    ],
)
def test_action_enters_the_critic_at_its_layer(call, action_layer, shapes):
    network = mlp_critic(OBS, ACTION, HIDDEN, action_layer=action_layer, outputs=2)
    params = network.init(jax.random.key(2))
    assert _shapes(params) == shapes
    expected = _forward(params, S, late=A, late_layer=action_layer)
    np.testing.assert_allclose(call(network.apply, params, (), S, A), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("action_layer", [0, 1])
def test_action_enters_the_critic_nowhere_else(action_layer):
    """Without the weights of the action in its own layer, no output and no other layer depends on it."""
    network = mlp_critic(OBS, ACTION, HIDDEN, action_layer=action_layer)
    params = network.init(jax.random.key(2))
    kernel = params["params"][f"Dense_{action_layer}"]["kernel"]
    assert (network.apply(params, (), S, A) != network.apply(params, (), S, -A)).all()
    params["params"][f"Dense_{action_layer}"]["kernel"] = kernel.at[-ACTION:].set(0.0)
    np.testing.assert_array_equal(network.apply(params, (), S, A), network.apply(params, (), S, -A))


@pytest.mark.parametrize("action_layer", [-1, 2])
def test_action_layer_must_be_a_hidden_layer(action_layer):
    with pytest.raises(ValueError, match=f"action_layer={action_layer} is not one of the 2 hidden layers"):
        mlp_critic(OBS, ACTION, HIDDEN, action_layer=action_layer)


def test_ensemble_members_differ_and_equal_the_single_network():
    single = mlp_critic(OBS, ACTION, HIDDEN, outputs=2)
    network = ensemble(single, 3)
    params = network.init(jax.random.key(4))
    outputs = network.apply(params, (), S, A)
    assert outputs.shape == (3, 2)
    for m in range(3):
        member = jax.tree.map(lambda leaf, m=m: leaf[m], params)
        np.testing.assert_allclose(outputs[m], single.apply(member, (), S, A), rtol=1e-6)
        np.testing.assert_allclose(outputs[m], _forward(member, S, late=A), rtol=1e-5, atol=1e-6)
    for leaf in jax.tree.leaves(params):
        assert len({np.asarray(leaf[m]).tobytes() for m in range(3)}) == 3


# --- bfloat16


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


# --- Normalised layers, residual blocks, hidden units that answer


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
        kernels = _layers(of_one)
        hidden = np.concatenate([states, actions], -1)
        for kernel, bias in kernels[:-1]:
            hidden = np.maximum(hidden @ np.asarray(kernel) + np.asarray(bias), 0)
        expected = hidden @ np.asarray(kernels[-1][0]) + np.asarray(kernels[-1][1])
        np.testing.assert_allclose(found[:, m], expected, rtol=1e-5, atol=1e-6)
        d_kernel, d_bias = _layers(jax.tree.map(lambda x, m=m: x[m], gradient))[-1]
        np.testing.assert_allclose(d_kernel, hidden.T @ weights[:, m], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(d_bias, weights[:, m].sum(0), rtol=1e-5, atol=1e-5)
