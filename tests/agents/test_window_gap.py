"""How far Q of windows is from Q of whole episodes, by hand and against what an update sees of windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import tiny_config

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.agents.recurrent import Carry
from ddpg_jax.agents.window_gap import values_of_windows, window_gap
from ddpg_jax.envs.memory import init_kept, recall, remember
from ddpg_jax.rng import run_keys
from ddpg_jax.types import Agent, Batch, EnvSpec, Memory, Recalled, Seen, Transition, Window

STEPS = 7
SPEC = EnvSpec((3,), "float32", (-1.0, -1.0), (1.0, 1.0))
ALGORITHMS = {
    "ddpg": {"name": "ddpg"},
    "td3": {"name": "td3", "policy_delay": 1, "ascend": "min"},
    "d4pg": {"name": "d4pg", "v_min": -5, "v_max": 5, "num_atoms": 5, "n_step": 1},
}


def fading() -> Agent:
    """Critics remember c ← c/2 + o and say Q = (c/2 + o)·(1 + m); the actor's m counts steps."""

    def carry():
        return Carry(jnp.zeros(()), jnp.zeros(()))

    def update(state, recalled):
        m, c = jax.tree.map(lambda x: jnp.where(recalled.seen.first, 0.0, x), recalled.carry)
        return Carry(m + 1, c / 2 + recalled.seen.obs)

    def value(state, recalled):
        m, c = update(state, recalled)
        return c * m

    none = dict.fromkeys(Agent._fields)
    return Agent(**none | {"value": value, "memory": Memory(carry, carry, update, jnp.stack)})


def told(*obs):
    """An episode with these observations."""
    zeros = jnp.zeros(len(obs))
    return Seen(jnp.asarray(obs, jnp.float32), zeros, zeros, jnp.arange(len(obs)) == 0)


def gaps(episodes, lengths, warmed):
    seen = jax.tree.map(lambda *x: jnp.stack(x), *episodes)
    return jax.jit(lambda: window_gap(fading(), None, seen, jnp.asarray(lengths), warmed))()


def test_values_by_hand():
    whole, windows = values_of_windows(fading(), None, told(4, 2, 0, 8), (0, 1, 2, 3))
    assert whole.tolist() == [4, 8, 6, 36]
    assert windows.tolist() == [[4, 4, 0, 32], [4, 8, 3, 32], [4, 8, 6, 34], [4, 8, 6, 36]]


def test_differences_by_hand():
    """Of step 0 no window knows less, nor of step 1 if it is a step long, and so on."""
    found = gaps([told(4, 2, 0, 8)], [4], (0, 1, 2, 3))
    np.testing.assert_allclose(found, [(4 + 6 + 4) / 3 / 36, (3 + 4) / 2 / 36, 2 / 36, np.nan], rtol=1e-6)


def test_what_is_told_after_an_end_does_not_count():
    """The first episode ends after two steps; the differences of both count alike, and so does the largest Q."""
    found = gaps([told(-40, 2, 900, 900), told(4, 2, 0, 8)], [2, 4], (0, 1, 2))
    np.testing.assert_allclose(found, [(40 + 4 + 6 + 4) / 4 / 40, (3 + 4) / 2 / 40, 2 / 40], rtol=1e-6)


def test_nothing_differs_where_all_is_zero():
    assert gaps([told(0, 0, 0)], [3], (0, 1)).tolist() == [0, 0]


def built(name, cell, **memory):
    settings = {"hidden": 5, "cell": cell, "obs_embedding": 4, "action_embedding": 3, "reward_embedding": 2} | memory
    config = tiny_config(algorithm=ALGORITHMS[name] | {"memory": settings, "batch_size": 2})
    agent = make_agent(config, SPEC)
    return agent, agent.init(run_keys([3])[0])


def played(agent, state):
    """An episode in which the policy acts: what it was told, and what it did, `[T, A]`."""
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(STEPS, 3)).astype(np.float32), draw.normal(size=STEPS).astype(np.float32)

    def step(kept, row):
        obs, reward, first = row
        view = recall(kept, obs[None], first[None])
        action = jax.vmap(agent.policy, (None, 0))(state, view)
        return remember(agent, state, view, action, reward[None]), (jax.tree.map(lambda x: x[0], view.seen), action[0])

    start = init_kept(agent.memory, 1, 2)
    return jax.jit(lambda: jax.lax.scan(step, start, (*rows, np.arange(STEPS) == 0))[1])()


def window(seen, action, start, length):
    """Steps of an episode as a replay has them; rewards are those that were told afterwards, and the last is not."""
    part = slice(start, start + length)
    reward = jnp.append(seen.reward[1:], 0.0)[part]
    zeros = jnp.zeros_like(seen.obs[part])
    last = jnp.arange(length, dtype=jnp.int32)
    return Window(
        seen.obs[part], action[part], reward, zeros, seen.first[part], seen.action[start], seen.reward[start], last
    )


@pytest.mark.parametrize(
    ("name", "cell"),
    [("ddpg", "lru"), *(pytest.param(*each, marks=pytest.mark.slow) for each in [("td3", "lstm"), ("d4pg", "gru")])],
)
def test_windows_are_those_of_an_update(name, cell):
    """An update that learns from one step, after a burn-in of two, reports the Q of two steps since zeros."""
    agent, state = built(name, cell, length=1, burn_in=2)
    seen, action = played(agent, state)
    whole, windows = jax.jit(lambda: values_of_windows(agent, state, seen, (0, 2, STEPS - 1)))()
    step = 5
    one = jax.tree.map(lambda x: jnp.stack([x, x])[None], window(seen, action, step - 2, 3))
    data = Transition(one, one.action, one.reward, jnp.zeros((1, 2, 3)), ())
    batch = Batch(data, jnp.ones((1, 2)), jnp.zeros((1, 2), jnp.int32))
    found = jax.jit(agent.update)(state, batch, run_keys([3])[0])[1]["mean_q"][0]
    np.testing.assert_allclose(windows[1, step], found, rtol=1e-5)
    assert abs(windows[1, step] - whole[step]) > 1e-5
    assert abs(windows[0, step] - windows[1, step]) > 1e-5
    np.testing.assert_allclose(windows[2], whole, rtol=1e-6)  # as long as the whole history


@pytest.mark.parametrize("cell", ["lru", pytest.param("lstm", marks=pytest.mark.slow)])
def test_values_are_those_of_the_acting_agent(cell):
    agent, state = built("ddpg", cell, length=2)
    seen, _ = played(agent, state)
    carry, found = agent.memory.init(), []
    for t in range(STEPS):
        view = Recalled(jax.tree.map(lambda x, t=t: x[t], seen), carry)
        found.append(agent.value(state, view))
        carry = agent.memory.update(state, view)
    whole, _ = values_of_windows(agent, state, seen, (0,))
    np.testing.assert_allclose(whole, found, rtol=1e-5)
