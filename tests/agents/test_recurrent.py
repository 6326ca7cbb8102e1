"""Agents with memory: what acts step by step is what learns from windows; a window across an end is two windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import tiny_config

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.agents.recurrent import carry_size
from ddpg_jax.envs.memory import init_kept, recall, remember
from ddpg_jax.rng import run_keys
from ddpg_jax.types import Batch, EnvSpec, Transition, Window

SPEC = EnvSpec((3,), "float32", (-1.0, -1.0), (1.0, 1.0))
STEPS = 6
SMALL = {"hidden": 5, "length": STEPS, "obs_embedding": 4, "action_embedding": 3, "reward_embedding": 2}
ALGORITHMS = {
    "ddpg": {"name": "ddpg"},
    "td3": {"name": "td3", "policy_delay": 1, "ascend": "min"},
    "d4pg": {"name": "d4pg", "v_min": -5, "v_max": 5, "num_atoms": 5, "n_step": 1},
}


def built(name="td3", cell="lstm", memory=(), **changes):
    """An agent, and its state after nothing was learned."""
    settings = SMALL | {"cell": cell} | dict(memory)
    config = tiny_config(algorithm=ALGORITHMS[name] | {"memory": settings, "batch_size": 2} | changes)
    agent = make_agent(config, SPEC)
    return agent, agent.init(run_keys([3])[0])


def history(steps=STEPS, ends=(), seed=0):
    """A window of an environment, `[N]`; an episode begins at the first step and after each of `ends`."""
    draw = np.random.default_rng(seed)
    obs, following = draw.normal(size=(2, steps, 3)).astype(np.float32)
    first = np.array([t == 0 or t - 1 in ends for t in range(steps)])
    following[:-1] = np.where(first[1:, None], following[:-1], obs[1:])
    action, reward = draw.uniform(-1, 1, (steps, 2)).astype(np.float32), draw.normal(size=steps).astype(np.float32)
    zeros = np.zeros(2, np.float32), np.float32(0)
    return Window(obs, action, reward, following, first, *zeros, np.arange(steps, dtype=np.int32))


def batch_of(*windows, discount=0.9):
    """A batch `[1, B]` of windows, from every step of which is learned."""
    joined = jax.tree.map(lambda *x: jnp.stack(x)[None], *windows)
    data = Transition(joined, joined.action, joined.reward, jnp.full(joined.reward.shape, discount), ())
    ones = jnp.ones(joined.reward.shape[:2])
    return Batch(data, ones, jnp.zeros(ones.shape, jnp.int32))


def lived(agent, state, window, ask):
    """What `ask(state, seen)` says at each step of a window that is lived through, `[N, ...]`, and what is kept."""

    def step(kept, row):
        seen = recall(kept, row.obs[None], row.first[None])
        answer = jax.vmap(ask, (None, 0))(state, seen)[0]
        return remember(agent, state, seen, row.action[None], row.reward[None]), answer

    rows = window._replace(action_before=(), reward_before=())
    kept, answers = jax.jit(lambda: jax.lax.scan(step, init_kept(agent.memory, 1, 2), rows))()
    return np.asarray(answers), kept


def acted(agent, state, window):
    """Values `[N]`, and what is kept at the end."""
    return lived(agent, state, window, agent.value)


def test_every_step_of_a_window_holds_the_actor_back():
    windows = history(seed=1), history(ends=(2,), seed=2)
    agent, state = built()
    before = np.arctanh(
        np.stack([lived(agent, state, window, agent.policy)[0] for window in windows]).astype(np.float64)
    )
    losses = [
        jax.jit(built(action_penalty=weight)[0].update)(state, batch_of(*windows), run_keys([3])[0])[1]["actor_loss"]
        for weight in (0.0, 2.0)
    ]
    np.testing.assert_allclose(losses[1] - losses[0], 2.0 * np.mean(before**2), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cell"), [("td3", "lru"), ("ddpg", "lstm"), ("d4pg", "gru")])
def test_what_learns_from_windows_sees_what_acts_step_by_step(name, cell):
    """The actor's loss is minus the mean value of the policy's own actions, which acting finds one by one."""
    agent, state = built(name, cell, normalize_observations=True)
    state = agent.observe(state, jnp.asarray(history(40, seed=5).obs))
    windows = [history(ends=(2,), seed=seed) for seed in (0, 1)]
    still = state._replace(opt_state=jax.tree.map(jnp.copy, state.opt_state))
    values = np.concatenate([acted(agent, state, window)[0] for window in windows])
    frozen, _ = built(name, cell, normalize_observations=True, critic_learning_rate=1e-30)
    metrics = jax.jit(frozen.update)(still, batch_of(*windows), run_keys([3])[0])[1]
    np.testing.assert_allclose(metrics["actor_loss"][0], -values.mean(), rtol=1e-5)


@pytest.mark.parametrize("cell", [pytest.param("lstm", marks=pytest.mark.slow), "lru"])
def test_a_window_across_an_end_is_two_windows(cell):
    """Errors of a window of two episodes are those of the episodes alone."""
    whole = history(ends=(2,))
    agent, state = built("ddpg", cell, {"priority_of_largest": 0.0})
    short, _ = built("ddpg", cell, {"priority_of_largest": 0.0, "length": 3})

    def part(start):
        cut = jax.tree.map(lambda x: x[start : start + 3] if np.ndim(x) else x, whole._replace(action_before=0))
        return cut._replace(action_before=whole.action_before, last=np.arange(3, dtype=np.int32))

    errors = jax.jit(agent.update)(state, batch_of(whole, whole), run_keys([3])[0])[2][0]
    parts = jax.jit(short.update)(state, batch_of(part(0), part(3)), run_keys([3])[0])[2][0]
    np.testing.assert_allclose(errors, np.full(2, parts.mean()), rtol=1e-5)


def test_what_came_before_an_episode_changes_nothing():
    agent, state = built()
    one, other = history(ends=(2,)), history(ends=(2,), seed=9)
    mixed = jax.tree.map(
        lambda a, b: np.concatenate([b[:3], a[3:]]) if np.ndim(a) and len(a) == STEPS else a, one, other
    )
    a, b = (acted(agent, state, window)[0] for window in (one, mixed))
    np.testing.assert_array_equal(a[3:], b[3:])
    assert (a[:3] != b[:3]).all()


def test_steps_of_the_burn_in_are_remembered_and_not_learned_from():
    """Their rewards change nothing but what the cell sees of them, which is cut off here."""
    agent, state = built("ddpg", memory={"burn_in": 2, "length": STEPS - 2, "reward_embedding": 0})
    window = history()
    other = window._replace(reward=window.reward + np.array([5, 5, 0, 0, 0, 0], np.float32))
    loud = window._replace(reward=window.reward + np.array([0, 0, 0, 0, 0, 5], np.float32))
    update = jax.jit(agent.update)
    same, changed, moved = (update(state, batch_of(w, w), run_keys([3])[0])[0].params for w in (window, other, loud))
    jax.tree.map(np.testing.assert_array_equal, same, changed)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(moved), strict=True))


def test_a_window_goes_on_from_a_state_that_was_kept():
    """With what was remembered before it, half a history tells what the whole one does; from zeros it does not."""
    agent, state = built("ddpg", "gru", {"keep_every": 1})
    whole = history(2 * STEPS)
    early = jax.tree.map(lambda x: x[:STEPS] if np.ndim(x) and len(x) == 2 * STEPS else x, whole)
    kept = acted(agent, state, early)[1]
    flat = jax.vmap(agent.memory.flatten)(kept.carry)[0]
    assert flat.shape == (carry_size(agent),)
    half = jax.tree.map(lambda x: x[STEPS:] if np.ndim(x) and len(x) == 2 * STEPS else x, whole)
    half = half._replace(
        action_before=whole.action[STEPS - 1],
        reward_before=whole.reward[STEPS - 1],
        last=np.arange(STEPS, dtype=np.int32),
    )
    values = acted(agent, state, whole)[0][STEPS:].mean()
    frozen = built("ddpg", "gru", {"keep_every": 1}, critic_learning_rate=1e-30)[0]
    for carry, close in ((flat, True), (jnp.zeros_like(flat), False)):
        batch = batch_of(half._replace(carry=carry), half._replace(carry=carry))
        loss = jax.jit(frozen.update)(state, batch, run_keys([3])[0])[1]["actor_loss"][0]
        assert np.isclose(loss, -values, rtol=1e-5) == close


def test_the_encoder_has_a_rate_of_its_own():
    """A tenth of the rate is a tenth of Adam's first step, and the other layers' is as it was."""
    (agent, state), (slow, _) = built("ddpg"), built("ddpg", memory={"learning_rate": 1e-4})
    batch = batch_of(history(), history(seed=1))
    news = [jax.jit(a.update)(state, batch, run_keys([3])[0])[0].params.critic for a in (agent, slow)]
    steps = [jax.tree.map(lambda new, old: new - old, each, state.params.critic) for each in news]
    jax.tree.map(np.testing.assert_array_equal, steps[0]["body"], steps[1]["body"])
    rate = tiny_config().algorithm.critic_learning_rate
    for one, other in zip(*(jax.tree.leaves(step["memory"]) for step in steps), strict=True):
        np.testing.assert_allclose(other, one * (1e-4 / rate), rtol=1e-3, atol=1e-9)
