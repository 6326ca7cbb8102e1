"""Networks of one sample: where the action enters, and ensembles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_reference import dense_layers

from ddpg_jax.agents.modules import Architecture
from ddpg_jax.agents.networks import ensemble, identity, mlp_actor, mlp_critic

OBS, ACTION, HIDDEN = 5, 3, Architecture((12, 10))
S = np.linspace(-1.0, 1.0, OBS, dtype=np.float32)
A = np.array([0.5, -0.25, 1.0], np.float32)


def _shapes(params):
    return [(kernel.shape, bias.shape) for kernel, bias in dense_layers(params)]


def _forward(params, x, late=None, late_layer=0, activation=lambda x: np.maximum(x, 0)):
    layers = dense_layers(params)
    for i, (kernel, bias) in enumerate(layers):
        x = np.concatenate([x, late]) if late is not None and i == late_layer else x
        x = x @ np.asarray(kernel) + np.asarray(bias)
        x = activation(x) if i < len(layers) - 1 else x
    return x


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


def test_the_actor_is_held_back_by_what_its_tanh_is_taken_of(call):
    free, held = mlp_actor(OBS, ACTION, HIDDEN), mlp_actor(OBS, ACTION, HIDDEN, 0.5)
    params = free.init(jax.random.key(1))
    before = _forward(params, S)
    action, aux = call(held.learn, params, (), jnp.asarray(S))
    np.testing.assert_allclose(action, np.tanh(before), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(aux.penalty, 0.5 * np.mean(before**2), rtol=1e-5)
    assert call(free.learn, params, (), jnp.asarray(S))[1].penalty == ()


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
