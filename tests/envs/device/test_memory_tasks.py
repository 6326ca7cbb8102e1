"""Recall and the T-maze: rewards by hand, and the best returns with memory and without, played in the environments."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.envs.device.backends import make_named_env
from ddpg_jax.envs.device.memory_tasks import recall, recall_bounds, tmaze, tmaze_bounds
from ddpg_jax.errors import EnvironmentFault

EPISODES = 4000
WITHIN = 0.03
"""More than three standard errors of a mean of so many returns, whose deviation is at most 1/2."""


def play(env, policy, episodes=EPISODES):
    """Returns and lengths of first episodes, `[N]`; `policy(first obs, obs, key) -> action`."""

    def one(key):
        state, first = env.reset(jax.random.fold_in(key, 0))

        def step(carry, t):
            state, obs, going, total, length = carry
            step_key, acting = jax.random.split(jax.random.fold_in(key, t + 1))
            state, report = env.step(state, policy(first, obs, acting), step_key)
            total += jnp.where(going, report.reward, 0.0)
            ended = report.terminated | report.truncated
            return (state, report.obs, going & ~ended, total, length + going.astype(jnp.int32)), None

        carry = state, first, jnp.array(True), jnp.zeros(()), jnp.zeros((), jnp.int32)
        (_, _, going, total, length), _ = jax.lax.scan(step, carry, jnp.arange(env.max_episode_steps))
        return going, total, length

    going, total, length = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), episodes))
    assert not going.any()
    return np.asarray(total), np.asarray(length)


# Recall


@pytest.mark.parametrize("length", [1, 2, 30])
def test_recall_pays_for_the_value_at_the_last_step(length):
    returns, lengths = play(recall(length), lambda first, obs, key: first[:1], 100)
    assert (lengths == length).all()
    np.testing.assert_allclose(returns, recall_bounds(length).with_memory, atol=1e-6)
    off = play(recall(length), lambda first, obs, key: first[:1] - 0.5 * jnp.sign(first[:1]), 100)[0]
    np.testing.assert_allclose(off, 0.75, atol=1e-6)


def test_what_recall_shows():
    env = recall(3)
    state, obs = env.reset(jax.random.key(0))
    rows = [obs]
    for t, terminated in enumerate((False, False, True)):
        state, report = env.step(state, jnp.ones(1), jax.random.key(t))
        rows.append(report.next_obs)
        assert (report.terminated, report.truncated) == (terminated, terminated)
    assert 0 < abs(rows[0][0]) < 1
    np.testing.assert_array_equal(np.stack(rows)[:, 1], [0, 0, 1, 0])
    np.testing.assert_array_equal(np.stack(rows)[1:, 0], 0)


@pytest.mark.parametrize("answer", [-0.75, -0.25, 0.0, 0.25, 0.75])
def test_no_answer_without_memory_is_better_than_0(answer):
    """At the last step all episodes look alike, so there are no other policies but draws among answers."""
    returns, _ = play(recall(5), lambda first, obs, key: jnp.full(1, answer))
    bound = recall_bounds(5).without_memory
    assert abs(returns.mean() - (bound - answer**2)) < WITHIN


def test_a_single_step_needs_no_memory():
    assert recall_bounds(1) == (1.0, 1.0)
    assert play(recall(1), lambda first, obs, key: obs[:1], 100)[0].mean() == pytest.approx(1)


# The T-maze


@pytest.mark.parametrize("corridor", [1, 4, 30])
def test_the_maze_is_solved_with_memory_and_half_of_it_without(corridor):
    env = tmaze(corridor)
    returns, lengths = play(env, lambda first, obs, key: jnp.stack([jnp.float32(1), obs[2] * first[0]]))
    np.testing.assert_array_equal(returns, tmaze_bounds().with_memory)
    assert (lengths == corridor + 1).all()
    returns, _ = play(env, lambda first, obs, key: jnp.stack([jnp.float32(1), obs[2]]))
    assert set(returns) == {0, 1}
    assert abs(returns.mean() - tmaze_bounds().without_memory) < WITHIN


def sees_the_cue(first, obs, key, forward, turn):
    """Without memory, but the cue of the first step says how to begin; in the corridor and at the end all is alike."""
    begin = jnp.where(obs[0] > 0, forward[0], forward[1])
    side = jnp.where(jax.random.uniform(key) < turn, 1.0, -1.0)
    return jnp.stack([jnp.where(obs[0] != 0, begin, forward[2]), side * obs[2]])


@pytest.mark.parametrize(
    ("forward", "turn"),
    [((1, 1, 1), 0.5), ((1, -1, 1), 1.0), ((1, 0.25, 1), 0.0), ((1, 1, 0.9), 1.0), ((1, -1, 0), 1.0)],
)
def test_no_policy_without_memory_is_better_than_half(forward, turn):
    """It may hide the cue in its position, as by waiting when it is -1, but cannot see that at the junction."""
    policy = partial(sees_the_cue, forward=jnp.array(forward, jnp.float32), turn=turn)
    returns, _ = play(tmaze(6), policy)
    assert returns.mean() < tmaze_bounds().without_memory + WITHIN


def test_what_the_maze_shows_and_costs():
    env = tmaze(2)
    state, obs = env.reset(jax.random.key(0))
    cue = float(obs[0])
    assert abs(cue) == 1
    np.testing.assert_array_equal(obs, [cue, 1, 0])
    rows = [((0.5, 0.5 * cue), [0, 1, 0], -0.375, False)]  # in the corridor a turn only costs
    rows += [((-1.0, 0), [0, 1, 0], -1, False), ((1.0, 0), [0, 1, 0], 0, False)]  # the wall is behind
    rows += [((1.0, 0), [0, 0, 1], 0, False), ((-1.0, 0.1 * cue), [0, 0, 1], 1, True)]  # any turn is a turn
    for t, (action, seen, reward, terminated) in enumerate(rows):
        state, report = env.step(state, jnp.array(action, jnp.float32), jax.random.key(t))
        np.testing.assert_array_equal(report.next_obs, seen)
        assert (report.reward, report.terminated, report.truncated) == (reward, terminated, False)
    assert report.obs[0] != 0
    assert report.obs[1] == 1


@pytest.mark.parametrize("turn", [0.0, -1.0])
def test_a_wrong_turn_and_none_are_worth_nothing(turn):
    returns, _ = play(tmaze(2), lambda first, obs, key: jnp.stack([jnp.float32(1), turn * first[0] * obs[2]]), 50)
    np.testing.assert_array_equal(returns, 0)


def test_who_stands_still_is_cut_by_the_time_limit():
    env = tmaze(30)
    assert env.max_episode_steps == 55
    returns, lengths = play(env, lambda first, obs, key: jnp.zeros(2), 8)
    assert (lengths == 55).all()
    np.testing.assert_allclose(returns, -55 / 30, atol=1e-5)


@pytest.mark.parametrize(
    ("identifier", "limit", "kwargs", "said"),
    [
        ("jax:recall", 29, {}, "length=30: expected at least 1 and.*at most 29"),
        ("jax:recall", None, {"length": 0}, "length=0"),
        ("jax:tmaze", 30, {}, "corridor=30: expected at least 1 and fewer than the 30 steps"),
        ("jax:tmaze", None, {"corridor": 0}, "corridor=0"),
        ("jax:hidden-pendulum", None, {"mass": [2, 1]}, r"mass=\[2, 1\]: expected two positive numbers"),
        ("jax:hidden-pendulum", None, {"length": [0, 1]}, r"length=\[0, 1\]"),
        ("jax:hidden-pendulum", None, {"mass": [1]}, r"mass=\[1\]"),
    ],
)
def test_what_cannot_be_solved_is_refused(identifier, limit, kwargs, said):
    with pytest.raises(EnvironmentFault, match=said):
        make_named_env(identifier, limit, kwargs)
