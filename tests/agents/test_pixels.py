"""Agents that see pictures: one update against NumPy, what teaches the encoder, copies, and shapes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_pixels import STRIDES, adam_for_each, drqv2_update, networks_of, shifted

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.load import load_config
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.rng import run_keys, stream_key
from ddpg_jax.types import Batch, EnvSpec, Transition

K, SIZE, B, A = 2, 17, 4, 2
SPEC = EnvSpec((K, SIZE, SIZE, 1), "uint8", (-2.0, -1.0), (2.0, 3.0), stack=K)
TINY = {"kind": "drqv2", "channels": 3, "features": 5, "shift": 2}
DRQV2 = {"name": "drqv2", "hidden": [6, 6], "batch_size": B, "tau": 0.1, "encoder": TINY}


def agent_of(algorithm, **exploration):
    return make_agent(load_config(algorithm=algorithm, exploration=exploration), SPEC)


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 3, B, *SPEC.obs_shape), np.uint8)
    numbers = rng.normal(size=(2, 3, B)).astype(np.float32)
    action = rng.uniform(-1, 1, (3, B, A)).astype(np.float32)
    discount = np.where(rng.random((3, B)) < 0.25, 0, 0.9).astype(np.float32)
    data = Transition(pictures[0], action, numbers[0], discount, pictures[1])
    return jax.tree.map(jnp.asarray, Batch(data, np.ones((3, B), np.float32), np.zeros((3, B), np.int32)))


def one_batch(batches, u):
    return jax.tree.map(lambda x: x[u : u + 1], batches)


def seen_by_numpy(batch, key, step, pad):
    """The batch as NumPy shifts it, by the offsets of the stream."""
    keys = jax.random.split(stream_key(key, "augment", step), B)
    pairs = jax.vmap(jax.random.split)(keys)

    def each(pictures, which):
        offsets = jax.vmap(lambda k: jax.random.randint(k, (1, 2), 0, 2 * pad + 1)[0])(pairs[:, which])
        return np.stack([shifted(x, o, pad) for x, o in zip(np.asarray(pictures), np.asarray(offsets), strict=True)])

    data = jax.tree.map(lambda x: np.asarray(x[0]), batch.data)
    numbers = [np.asarray(x, np.float64) for x in (data.action, data.reward, data.discount)]
    return each(data.obs, 0), *numbers, each(data.next_obs, 1)


def noise_of(name, key, step, sigma, clip):
    keys = jax.random.split(stream_key(key, name, step), B)
    drawn = jax.vmap(lambda k: jax.random.normal(k, (A,)))(keys)
    return np.clip(sigma * np.asarray(drawn, np.float64), -clip, clip)


def test_three_updates_of_drqv2_equal_numpy(batches):
    """Shifts, encoder, trunks, twin heads, scheduled noise that is cut, Adam and the targets, in float64."""
    agent = agent_of(
        DRQV2 | {"actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "updates_per_step": 0.5, "noise_clip": 0.4},
        sigma=1.0,
        sigma_end=0.5,
        schedule="linear",
        schedule_steps=8,
    )
    key, update = run_keys([0])[0], jax.jit(agent.update)
    state = jax.jit(agent.init)(key)
    nets, targets = networks_of(state.params), networks_of(state.target_params)
    adams = adam_for_each(nets, 3e-3)
    for u in range(3):
        sigmas, batch = [1.0 - 0.5 * 2 * (u + i) / 8 for i in range(2)], one_batch(batches, u)
        noises = [noise_of(name, key, u + i, sigmas[i], 0.4) for i, name in enumerate(("critic", "actor"))]
        nets, targets, expected, errors = drqv2_update(
            nets, targets, seen_by_numpy(batch, key, u, 2), *noises, adams, STRIDES["drqv2"], 0.1
        )
        state, metrics, td_error = update(state, batch, key)
        found = networks_of(state.params)
        chex.assert_trees_all_close(found, nets, atol=1e-4, rtol=0)
        of_critics = {name: net for name, net in networks_of(state.target_params).items() if name.startswith("critic")}
        chex.assert_trees_all_close(of_critics, {name: targets[name] for name in of_critics}, atol=1e-4, rtol=0)
        chex.assert_trees_all_close({k: float(metrics[k][0]) for k in expected}, expected, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(td_error[0], errors, atol=1e-4)
        assert float(metrics["rejected"][0]) == 0


SMALL = {"kind": "small", "channels": 4, "features": 5, "shift": 2}


def first_update(algorithm, batches, **exploration):
    agent = agent_of(algorithm, **exploration)
    key = run_keys([0])[0]
    state = jax.jit(agent.init)(key)
    return agent, state, *jax.jit(agent.update)(state, one_batch(batches, 0), key)


@pytest.mark.slow
def test_the_actor_teaches_a_shared_encoder_nothing(batches):
    """Another rate of the actor changes the actor, and no bit of encoder and critics; the critics' rate changes all."""
    td3 = {"name": "td3", "policy_delay": 1, "hidden": [6], "batch_size": B, "encoder": SMALL}
    _, before, slow, *_ = first_update(td3 | {"actor_learning_rate": 1e-4}, batches)
    _, _, fast, *_ = first_update(td3 | {"actor_learning_rate": 1e-2}, batches)
    chex.assert_trees_all_equal((slow.params.encoder, slow.params.critic), (fast.params.encoder, fast.params.critic))
    for old, a, b in zip(
        *map(jax.tree.leaves, (before.params.actor, slow.params.actor, fast.params.actor)), strict=True
    ):
        assert (old != a).any()
        assert (a != b).any()
    for old, new in zip(*map(jax.tree.leaves, (before.params.encoder, slow.params.encoder)), strict=True):
        assert (old != new).any()
    moved = jax.tree.map(lambda t, p: (t != p).any(), before.target_params.encoder, slow.target_params.encoder)
    assert all(map(bool, jax.tree.leaves(moved)))  # the target of a shared encoder follows


@pytest.mark.slow
def test_encoders_of_its_own_are_taught_by_each_network(batches):
    ddpg = {"name": "ddpg", "hidden": [6], "batch_size": B, "normalization": "batch"}
    own = SMALL | {"kind": "ddpg", "shared": False, "features": 0, "shift": 0}
    agent, before, after, metrics, _ = first_update(ddpg | {"encoder": own}, batches)
    assert before.params.encoder == ()
    for which in ("actor", "critic"):
        old, new = (getattr(state.params, which)["first"] for state in (before, after))
        kernels = [x["kernel"] for x in old["first"].values()]
        assert kernels[0].shape[-4:] == (3, 3, K, 4)
        assert all((a != b).any() for a, b in zip(*map(jax.tree.leaves, (old, new)), strict=True))
    assert np.isfinite([float(x[0]) for x in metrics.values()]).all()
    obs = batches.data.obs[0, 0]
    assert agent.policy(after, obs).shape == (A,)
    assert agent.value(after, obs).shape == ()


@pytest.mark.slow
def test_copies_average_the_target_and_add_up_the_loss(batches):
    """Two equal copies of everything: the target is that of one, the loss and its gradient are those of one, twice."""
    agents = {}
    for copies in (1, 2):
        encoder = SMALL | {"target_copies": copies, "online_copies": copies, "shift": 1}
        agents[copies] = first_update(
            {"name": "drqv2", "hidden": [6], "batch_size": B, "noise_clip": 0.0, "encoder": encoder},
            flat(batches),
            sigma=0,
        )
    (_, _, _, one, error), (_, _, _, two, same) = agents[1], agents[2]
    np.testing.assert_allclose(two["critic_loss"], 2 * one["critic_loss"], rtol=1e-5)
    np.testing.assert_allclose(two["critic_grad_norm"], 2 * one["critic_grad_norm"], rtol=1e-4)
    np.testing.assert_allclose(two["mean_q"], one["mean_q"], rtol=1e-5)
    np.testing.assert_allclose(same, error, rtol=1e-5)
    np.testing.assert_allclose(two["actor_grad_norm"], one["actor_grad_norm"], rtol=2e-2)  # behind Adam's first step


def flat(batches):
    """Pictures of one colour each, which no shift changes."""
    data = batches.data
    one = [jnp.broadcast_to(x[..., :1, :1, :1], x.shape) for x in (data.obs, data.next_obs)]
    return batches._replace(data=data._replace(obs=one[0], next_obs=one[1]))


def test_pictures_that_do_not_fit_are_refused():
    with pytest.raises(EnvironmentFault, match=r"17 x 17 are too small .* raise env.pixels.size"):
        agent_of({"name": "drqv2", "encoder": {"kind": "strided", "kernel": 5}}, sigma=0.1)
    config = load_config(algorithm={"encoder": {}})
    with pytest.raises(EnvironmentFault, match=r"float32 of shape \(3,\) are not pictures"):
        make_agent(config, EnvSpec((3,), "float32", (-1.0,), (1.0,)))
    with pytest.raises(EnvironmentFault, match=r"are not vectors: give \[algorithm.encoder\]"):
        make_agent(load_config(), SPEC)
