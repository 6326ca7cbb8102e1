"""A whole update with memory: against NumPy in float64, against the memoryless one, and burn-in against kept states."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_memory import adams, in_numpy, memory_round

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.load import load_config
from ddpg_jax.rng import run_keys, stream_key
from ddpg_jax.types import Batch, EnvSpec, Recalled, Seen, Transition, Window

SPEC = EnvSpec((3,), "float32", (-1.0, -1.0), (1.0, 1.0))
OBS, ACTION, HIDDEN, SIZE = 3, 2, 5, 8
SMALL = {"hidden": HIDDEN, "obs_embedding": 6, "action_embedding": 4, "reward_embedding": 3}
RATES = {"actor_learning_rate": 3e-3, "critic_learning_rate": 1e-2}
KEY = run_keys([0])[0]


def built(memory, **algorithm):
    """An agent, its state at the start, and its update, compiled."""
    settings = {"hidden": (16,), "batch_size": SIZE, "memory": SMALL | memory, **RATES} | algorithm
    agent = make_agent(load_config(algorithm=settings), SPEC)
    return agent, jax.jit(agent.init)(KEY), jax.jit(agent.update)


def windows(updates, steps, ahead=0, seed=0, carry=0, ends=0.25):
    """Batches `[U, B]` of random windows `[N]`, N = steps + ahead, with random ends, weights and kept states."""
    rng = np.random.default_rng(seed)
    lead, n = (updates, SIZE), steps + ahead

    def normal(*shape):
        return jnp.asarray(rng.normal(size=lead + shape), jnp.float32)

    first = rng.random((*lead, n)) < ends
    last = np.broadcast_to(np.arange(steps), (*lead, steps)).copy()
    for _ in range(ahead):  # as far as the episode goes on
        further = np.minimum(last + 1, n - 1)
        last = np.where(np.take_along_axis(first, further, -1), last, further)
    action = jnp.asarray(rng.uniform(-1, 1, (*lead, n, ACTION)), jnp.float32)
    window = Window(
        normal(n, OBS),
        action,
        normal(n),
        normal(n, OBS),
        jnp.asarray(first),
        normal(ACTION),
        normal(),
        jnp.asarray(last, jnp.int32),
        normal(carry) if carry else (),
    )
    discount = jnp.asarray(np.where(rng.random((*lead, steps)) < 0.25, 0, 0.9), jnp.float32)
    data = Transition(window, action[:, :, :steps], normal(steps), discount, ())
    weight = jnp.asarray(rng.uniform(0.3, 1, lead), jnp.float32)
    return Batch(data, weight, jnp.zeros(lead, jnp.int32))


def smoothing_noise(step, steps, sigma=0.2, clip=0.5):
    """The noise that the update of this counter draws for each step of each sample."""
    keys = jax.random.split(stream_key(KEY, "critic", jnp.int32(step)), SIZE)
    each = jax.vmap(lambda key: jax.vmap(lambda k: jax.random.normal(k, (ACTION,)))(jax.random.split(key, steps)))
    return np.clip(sigma * np.asarray(jax.jit(each)(keys), np.float64), -clip, clip)


ALGORITHMS = {"ddpg": (1, 1), "td3": (2, 2)}
"""Critics, and their steps for one of the actor."""


@pytest.mark.parametrize(
    ("name", "memory", "ahead"),
    [
        pytest.param("ddpg", {"length": 5}, 0, marks=pytest.mark.slow),
        ("ddpg", {"length": 4, "burn_in": 2, "keep_every": 1, "learning_rate": 1e-3}, 2),
        pytest.param("td3", {"length": 5, "keep_every": 4, "priority_of_largest": 0.5}, 0, marks=pytest.mark.slow),
        pytest.param("td3", {"length": 4, "burn_in": 2}, 1, marks=pytest.mark.slow),
    ],
)
def test_updates_equal_back_propagation_through_time_in_numpy(name, memory, ahead):
    """Losses, sizes of gradients, errors, parameters and targets of two rounds, to 1e-5."""
    critics, delay = ALGORITHMS[name]
    agent, state, update = built(memory, name=name, tau=0.1)
    learned, burn_in = memory["length"], memory.get("burn_in", 0)
    kept = 4 * HIDDEN if memory.get("keep_every") else 0
    parts = slice(0, 2 * HIDDEN), slice(2 * HIDDEN, 4 * HIDDEN)
    settings = burn_in, memory.get("priority_of_largest", 0.9), parts

    def both(params):
        return in_numpy(params.actor), in_numpy(params.critic, critics)

    online, target = both(state.params), both(state.target_params)
    optimizers = adams(*online, (3e-3, 1e-2), memory.get("learning_rate"))
    for call in range(2):
        batches = windows(delay, learned + burn_in, ahead, seed=call, carry=kept)
        each = [jax.tree.map(lambda x, u=u: x[u], batches) for u in range(delay)]
        steps = range(call * delay, (call + 1) * delay)
        noises = [smoothing_noise(step, learned) * (name == "td3") for step in steps]
        state, metrics, td_error = update(state, batches, KEY)
        online, target, found, of_actor = memory_round(online, target, each, noises, optimizers, 0.1, settings)
        chex.assert_trees_all_close(both(state.params), online, atol=1e-5, rtol=0)
        chex.assert_trees_all_close(both(state.target_params), target, atol=1e-5, rtol=0)
        for u, (expected, errors) in enumerate(found):
            expected |= of_actor | {"rejected": 0.0}
            chex.assert_trees_all_close({k: float(m[u]) for k, m in metrics.items()}, expected, atol=1e-5, rtol=1e-5)
            np.testing.assert_allclose(td_error[u], errors, atol=1e-5, rtol=1e-5)
    assert kept in {0, agent.memory.flatten(agent.memory.init()).size}


def test_a_single_step_without_recurrence_is_the_memoryless_update():
    """Where the cell tells nothing and nothing is made of it, its branch alone is a first hidden layer."""
    width, h = SMALL["obs_embedding"], HIDDEN
    _, state, update = built({"length": 1}, hidden=(16,))
    plain = make_agent(
        load_config(algorithm={"hidden": (width, 16), "action_layer": 1, "batch_size": SIZE, **RATES}), SPEC
    )
    plain_state, plain_update = jax.jit(plain.init)(KEY), jax.jit(plain.update)

    def cut(params):
        """A cell of zeros gives h = 0, and weights of zero take no gradient to it."""
        body = params["body"]["params"]
        first = body["Dense_0"] | {"kernel": body["Dense_0"]["kernel"].at[..., :h, :].set(0.0)}
        cell = jax.tree.map(jnp.zeros_like, params["memory"]["cell"])
        return {
            "memory": params["memory"] | {"cell": cell},
            "body": {"params": body | {"Dense_0": first}},
        }

    def without_memory(params, axes=()):
        """The same network as layers of an MLP; with a leading axis for an ensemble."""
        body, shortcut = params["body"]["params"], params["memory"]["shortcut"]
        first = body["Dense_0"] | {"kernel": body["Dense_0"]["kernel"][..., h:, :]}
        lead = jax.tree.map(lambda x: jnp.broadcast_to(x, (*axes, *x.shape)), shortcut)
        return {"params": {"Dense_0": lead, "Dense_1": first, "Dense_2": body["Dense_1"]}}

    def all_without(params):
        return params._replace(actor=without_memory(params.actor), critic=without_memory(params.critic, (1,)))

    cut_params = state.params._replace(actor=cut(state.params.actor), critic=cut(state.params.critic))
    state = state._replace(params=cut_params, target_params=cut_params)
    plain_state = plain_state._replace(params=all_without(cut_params), target_params=all_without(cut_params))
    batches = windows(3, 1)
    window = batches.data.obs
    rows = Transition(*(x[:, :, 0] for x in (window.obs, *batches.data[1:4], window.next_obs)))
    state, metrics, td_error = update(state, batches, KEY)
    plain_state, expected, errors = plain_update(plain_state, batches._replace(data=rows), KEY)
    chex.assert_trees_all_close(all_without(state.params), plain_state.params, atol=1e-6)
    chex.assert_trees_all_close(all_without(state.target_params), plain_state.target_params, atol=1e-6)
    chex.assert_trees_all_close(metrics, expected, atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(td_error, errors, rtol=1e-5)
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.params.critic["memory"]["cell"]))
    assert (
        state.params.critic["memory"]["shortcut"]["kernel"] != cut_params.critic["memory"]["shortcut"]["kernel"]
    ).any()


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lru", "lstm", "gru"])
def test_burn_in_over_the_whole_history_is_the_kept_state(cell):
    """Under fixed weights, errors and gradients are equal, though the one begins from zeros at the first step."""
    burn_in, length = 4, 3
    still = {"name": "td3", "policy_delay": 1, "actor_learning_rate": 1e-12, "critic_learning_rate": 1e-12}
    _, state, from_zeros = built({"cell": cell, "length": length, "burn_in": burn_in}, **still)
    agent, _, from_kept = built({"cell": cell, "length": length, "keep_every": 1}, **still)
    batches = windows(1, burn_in + length, ends=0.0)
    window = batches.data.obs._replace(first=batches.data.obs.first.at[:, :, 0].set(True))
    batches = batches._replace(data=batches.data._replace(obs=window))

    def lived(window):
        """What is remembered before the steps that are learned from, step by step."""
        carry = agent.memory.init()
        for t in range(burn_in):
            seen = Seen(window.obs[t], window.action[t - 1], window.reward[t - 1], window.first[t])
            carry = agent.memory.update(state, Recalled(seen, carry))
        return agent.memory.flatten(carry)

    late = {name: getattr(window, name)[:, :, burn_in:] for name in ("obs", "action", "reward", "next_obs", "first")}
    last = window.last[:, :, burn_in:] - burn_in
    before = window.action[:, :, burn_in - 1], window.reward[:, :, burn_in - 1]
    kept = jax.jit(jax.vmap(jax.vmap(lived)))(window)
    half = Window(**late, action_before=before[0], reward_before=before[1], last=last, carry=kept)
    cut = [x[:, :, burn_in:] for x in batches.data[1:4]]
    _, metrics, errors = from_zeros(state, batches, KEY)
    _, expected, kept_errors = from_kept(state, batches._replace(data=Transition(half, *cut, ())), KEY)
    np.testing.assert_allclose(errors, kept_errors, rtol=1e-5)
    chex.assert_trees_all_close(metrics, expected, rtol=1e-5, atol=1e-6)
    forgotten = half._replace(carry=jnp.zeros_like(kept))
    _, other, _ = from_kept(state, batches._replace(data=Transition(forgotten, *cut, ())), KEY)
    assert abs(float(other["critic_grad_norm"][0] - metrics["critic_grad_norm"][0])) > 1e-3
