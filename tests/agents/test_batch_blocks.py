"""Blocks of batch normalisation, one batch of both pairs: updates against NumPy, projections and moments by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_flash import actor_step, blocks_of, critic_step, flat, forward, learner_of
from numpy_reference import Adam
from smoothed import CLIP, KEY, SIGMA, assert_close, noise_of

from ddpg_jax.agents.batch_blocks import project
from ddpg_jax.agents.modules import Architecture
from ddpg_jax.agents.networks import mlp_actor, mlp_critic
from ddpg_jax.agents.slots import LearnAux, Network
from ddpg_jax.agents.sphere import UNIT
from ddpg_jax.agents.targets import JOINT, SEPARATE
from ddpg_jax.config.load import load_config
from ddpg_jax.errors import ConfigError
from ddpg_jax.types import BATCH, PAIR

FLASH = {
    "name": "fasttd3",
    "architecture": "flash",
    "hidden": (5, 5),
    "critic_hidden": (6, 6),
    "normalize_observations": False,
    "scale_rewards": True,
    "return_limit": 5.0,
    "v_min": -2.0,
    "v_max": 3.0,
    "num_atoms": 11,
    "tau": 0.1,
    "actor_learning_rate": 3e-3,
    "critic_learning_rate": 1e-2,
    "learning_rate_schedule": "cosine",
    "learning_rate_end": 0.5,
    "updates_per_step": 1 / 1024,
    "weight_decay": "none",
    "critic_weight_decay": 0.0,
    "actor_weight_decay": 0.0,
    "target_noise": SIGMA,
    "target_noise_clip": CLIP,
}
SHAPE = Architecture((6, 6), kind="flash")


def cosine(rate, steps):
    return lambda t: rate * (0.5 + 0.25 * (1 + np.cos(np.pi * t / steps)))


@pytest.mark.slow
@pytest.mark.parametrize("joint", [True, False])
def test_three_rounds_equal_numpy(joint, make_tiny, make_batches):
    """Twin critics on scaled rewards, running moments, projections, rates that fall, targets after each step."""
    agent, batches = make_tiny(**FLASH, joint_batch=joint), make_batches(6)
    config = load_config(algorithm=FLASH | {"joint_batch": joint})
    updates = config.updates_owed(config.total_steps)
    assert 6 < updates < 20
    state = agent.init(KEY)
    state = state._replace(stats=state.stats._replace(reward=jnp.float32(2.0)))
    it, atoms = learner_of(state), np.linspace(-2, 3, 11)
    adams = {
        "actor": Adam(flat(it.actor), cosine(3e-3, updates // 2)),
        "critic": [Adam(flat(net), cosine(1e-2, updates)) for net in it.critics],
    }
    for first in range(0, 6, 2):
        state, metrics, td_error = agent.update(
            state, jax.tree.map(lambda x, first=first: x[first : first + 2], batches), KEY
        )
        for u in range(2):
            data = [np.asarray(x[first + u], np.float64) for x in batches.data[:5]]
            data[2] = data[2] / 2
            it, loss, errors = critic_step(it, data, noise_of(first + u), atoms, adams, 0.1, joint=joint)
            np.testing.assert_allclose(metrics["critic_loss"][u], loss, atol=1e-5)
            np.testing.assert_allclose(td_error[u], errors, atol=1e-5)
        it, loss = actor_step(it, data[0], atoms, adams, joint=joint)
        np.testing.assert_allclose(metrics["actor_loss"][1], loss, atol=1e-5)
        assert_close(learner_of(state), it)
    assert not metrics["rejected"].any()


def test_a_network_that_acts_equals_numpy():
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=3).astype(np.float32), np.array([0.5, -0.9], np.float32)
    for network, inputs, last in (
        (mlp_actor(3, 2, SHAPE), (obs,), np.tanh),
        (mlp_critic(3, 2, SHAPE, outputs=4), (obs, action), lambda x: x),
    ):
        params = jax.jit(network.init)(jax.random.key(1))
        moments = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.2, 2, x.shape), jnp.float32), network.moments())
        by_numpy = [
            tuple(np.asarray(moments[f"BatchNorm_{i}"][name], np.float64) for name in ("mean", "var")) for i in range(5)
        ]
        expected, _ = forward(blocks_of(params["params"]), np.concatenate(inputs)[None].astype(np.float64), by_numpy)
        np.testing.assert_allclose(jax.jit(network.apply)(params, moments, *inputs), last(expected[0]), atol=1e-5)


def test_projection_by_hand():
    """Of (3, 0) and (0, 4) together the length is 5, and sqrt(2) afterwards; other layers of that name are left."""
    params = {
        "BatchNorm_0": {"scale": jnp.array([3.0, 0.0]), "bias": jnp.array([0.0, 4.0])},
        "RMSNorm_0": {"scale": jnp.array([[3.0, 4.0], [0.0, 0.5]])},
        "LayerNorm_0": {"scale": jnp.array([3.0, 4.0])},
        "UnitDense_0": {UNIT: jnp.array([[3.0, 0.0], [4.0, 2.0]])},
        "bias": jnp.array([7.0]),
    }
    found, root = project(params), 2**0.5
    np.testing.assert_allclose(found["BatchNorm_0"]["scale"], [0.6 * root, 0], rtol=1e-6)
    np.testing.assert_allclose(found["BatchNorm_0"]["bias"], [0, 0.8 * root], rtol=1e-6)
    np.testing.assert_allclose(found["RMSNorm_0"]["scale"], [[0.6 * root, 0.8 * root], [0, root]], rtol=1e-6)
    np.testing.assert_array_equal(found["LayerNorm_0"]["scale"], [3, 4])
    np.testing.assert_allclose(found["UnitDense_0"][UNIT], [[0.6, 0], [0.8, 1]], rtol=1e-6)
    np.testing.assert_array_equal(found["bias"], [7])


def test_it_begins_where_it_is_projected_to():
    params = jax.jit(mlp_critic(3, 2, SHAPE, outputs=3).init)(jax.random.key(2))
    assert_close(params, project(params))
    kernels = [params["params"][f"UnitDense_{i}"][UNIT].shape for i in range(6)]
    assert kernels == [(5, 6), (6, 24), (24, 6), (6, 24), (24, 6), (6, 3)]


def centred():
    """A critic that takes the mean of the batch away, over both axes, or over that of the samples alone."""

    def learn(axes):
        def learn(params, moments, encoded, action):
            mean = jax.lax.pmean(encoded + action, axes)
            return encoded + action - mean, LearnAux(mean, jnp.ones(1, bool))

        return learn

    def network(axes):
        return Network(lambda key: (), lambda: (), lambda p, m, h, a: h + a - m, learn(axes))

    return network(BATCH), network((BATCH, PAIR))


def test_pairs_by_hand():
    """Pairs 1, 2 and next 11, 16: means 1.5 apart, 7.5 together; for the actor by the moments that are kept."""
    alone, together = centred()
    zero = jnp.zeros((2, 1))
    for pairing, critic, mean in ((SEPARATE, alone, 1.5), (JOINT, together, 7.5)):

        def judged(now, after, pairing=pairing, critic=critic):
            return pairing.in_critic_loss(critic, (), jnp.ones(1), (now, zero[0]), lambda: (after, zero[0]))

        axes = 0, LearnAux(None, 0, 0)
        outputs, aux = jax.vmap(judged, out_axes=axes, axis_name=BATCH)(
            jnp.array([[1.0], [2.0]]), jnp.array([[11.0], [16.0]])
        )
        np.testing.assert_allclose(outputs[:, 0], [1 - mean, 2 - mean])
        np.testing.assert_allclose(aux.moments, [mean])
        assert aux.active.shape == (2, 1)
        by = jax.vmap(
            lambda now, pairing=pairing, critic=critic: pairing.in_actor_loss(critic, (), jnp.ones(1), (now, zero[0])),
            axis_name=BATCH,
        )(jnp.array([[1.0], [2.0]]))
        np.testing.assert_allclose(by[:, 0], [-0.5, 0.5] if pairing is SEPARATE else [0, 1])


def test_no_gradient_goes_through_the_next_action():
    _, together = centred()

    def loss(action):
        def judged(now, after):
            pair, other = (now, jnp.zeros(1)), (after, action)
            return JOINT.in_critic_loss(together, (), (), pair, lambda: other)[0].sum()

        return jax.vmap(judged, axis_name=BATCH)(jnp.ones((2, 1)), jnp.ones((2, 1))).sum()

    assert jax.grad(loss)(jnp.ones(1)) == 0


@pytest.mark.slow
def test_other_algorithms_learn_with_it(make_tiny, make_batches):
    for settings in (
        {"name": "td3", "architecture": "flash", "joint_batch": True},
        {"name": "ddpg", "normalization": "batch", "action_layer": 1, "joint_batch": True},
    ):
        tiny = make_tiny(**settings, hidden=(6, 6))
        state = tiny.init(KEY)
        after, metrics, _ = tiny.update(state, make_batches(4), KEY)
        assert np.isfinite(metrics["critic_loss"]).all()
        changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), state.params, after.params)
        assert all(jax.tree.leaves(changed))
        one = jax.tree.map(lambda x: x[0], make_batches(1))
        assert all(np.isfinite(value) for value in jax.jit(tiny.agent.diagnose)(after, one).values())


def refused(**algorithm):
    with pytest.raises(ConfigError) as caught:
        load_config(algorithm=algorithm)
    return str(caught.value)


def test_what_does_not_go_together_is_refused():
    assert "joint_batch has no effect where nothing takes moments" in refused(joint_batch=True)
    assert "joint_batch has no effect" in refused(joint_batch=True, architecture="simba")
    assert "joint_batch has no effect" in refused(joint_batch=True, memory={"hidden": 4})
    assert "joint_batch is not possible with make_networks" in refused(joint_batch=True, make_networks="m:f")
    assert "joint_batch is not possible with encoder" in refused(
        joint_batch=True, architecture="flash", encoder={"kind": "small"}
    )
    assert 'architecture="flash" is not possible with memory' in refused(architecture="flash", memory={"hidden": 4})
    assert 'architecture="flash" is not possible with several' in refused(
        architecture="flash", encoder={"target_copies": 2}
    )
    assert "return_limit=5.0 has no effect without scale_rewards" in refused(return_limit=5.0)
    for name, value in (("hidden", [6, 5]), ("normalization", "batch"), ("action_layer", 1), ("activation", "elu")):
        assert f"{name}={value!r}" in refused(architecture="flash", **{name: value})
