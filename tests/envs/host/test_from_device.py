"""Environments written in JAX on the host loop: the same episodes of the same seeds and actions, in any process."""

from functools import partial

import gymnasium
import jax
import numpy as np
import pytest

import ddpg_jax.envs.device.backends as backends
from ddpg_jax.envs.device.memory_tasks import tmaze
from ddpg_jax.envs.device.pendulum import pendulum
from ddpg_jax.envs.host.from_device import IDS, FromDevice
from ddpg_jax.envs.host.make import describe, make_env, portable, unknown_id
from ddpg_jax.envs.host.traits import traits
from ddpg_jax.envs.host.vector import VectorEnv, evaluation_seeds
from ddpg_jax.envs.host.workers import SubprocVectorEnv


def episode(env, seed, actions):
    """Observations, rewards and flags of an episode, as one array `[T, ...]`."""
    rows = [(*env.reset(seed=seed)[0], 0, 0, 0)]
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        rows.append((*obs, reward, terminated, truncated))
        if terminated or truncated:
            break
    return np.array(rows)


def test_an_episode_is_that_of_the_environment_under_keys_of_the_seed():
    inner, env = pendulum(30), FromDevice(pendulum(30))
    actions = np.random.default_rng(0).uniform(-2, 2, (30, 1)).astype(np.float32)
    seed = 7 + (5 << 32)
    rows = episode(env, seed, actions)
    key = jax.random.fold_in(jax.random.key(7), 5)
    state, obs = jax.jit(inner.reset)(jax.random.fold_in(key, 0))
    np.testing.assert_array_equal(rows[0, :3], obs)
    step_key, step = jax.random.fold_in(key, 1), jax.jit(inner.step)
    for t, action in enumerate(actions):
        state, report = jax.device_get(step(state, action / 2, jax.random.fold_in(step_key, t)))
        np.testing.assert_allclose(rows[t + 1, :3], report.next_obs, atol=1e-6)  # also of the last step
        np.testing.assert_allclose(rows[t + 1, 3], report.reward, atol=1e-5)
        assert tuple(rows[t + 1, 4:]) == (report.terminated, report.truncated) == (False, t == 29)


@pytest.mark.parametrize("identifier", IDS)
def test_an_episode_repeats(identifier):
    one, other = (make_env(identifier, None, {}) for _ in range(2))
    one.action_space.seed(0)
    actions = np.stack([one.action_space.sample() for _ in range(60)])
    first = episode(one, 3, actions)
    seed = next(seed for seed in range(4, 20) if one.reset(seed=seed)[0][0] != first[0, 0])
    second = episode(one, seed, actions)
    np.testing.assert_array_equal(second, episode(other, seed, actions))
    np.testing.assert_array_equal(first, episode(one, 3, actions))
    np.testing.assert_array_equal(first[:5], episode(one, 3, actions[:4]))  # it is left amid an episode
    np.testing.assert_array_equal(second, episode(one, seed, actions))
    assert one.observation_space.contains(one.reset()[0])
    assert len({tuple(one.reset()[0]) for _ in range(20)}) > 1  # without a seed it goes on


def test_ours_have_the_spaces_and_limits_of_their_twins():
    twins = dict(zip(IDS, ("recall", "tmaze", "hidden-pendulum", "cartpole-swingup", "reacher"), strict=True))
    for identifier, name in twins.items():
        env, twin = make_env(identifier, None, {}), backends.make_named_env(f"jax:{name}", None, {})
        assert describe(env) == twin.spec
        assert env.unwrapped.max_episode_steps == twin.max_episode_steps
        assert traits(env).limited
        assert unknown_id(identifier) is None
    assert "did you mean ddpg_jax/TMaze-v0" in unknown_id("ddpg_jax/TMaze-v1")


@pytest.mark.parametrize(("limit", "length"), [(None, 200), (7, 7), (230, 230)])
def test_a_time_limit_may_be_shorter_or_longer(limit, length):
    env = make_env("ddpg_jax/HiddenPendulum-v0", limit, {"mass": [1, 1]})
    rows = episode(env, 0, np.zeros((300, 1), np.float32))
    assert len(rows) == length + 1
    assert tuple(rows[-1, 4:]) == (False, True)


def test_arguments_are_those_of_the_task():
    env = make_env("ddpg_jax/TMaze-v0", None, {"corridor": 4})
    cue = env.reset(seed=0)[0][0]
    rows = episode(env, 0, np.array([[1, 0]] * 4 + [[1, cue]] * 5, np.float32))
    assert tuple(rows[-1, 3:]) == (1, True, False)
    assert len(rows) == 6


def test_gymnasium_knows_them_too():
    env = gymnasium.make("ddpg_jax/TMaze-v0", corridor=3)
    assert episode(env, 0, np.ones((9, 2), np.float32))[-1, 4]


def test_bytes_and_bounds_are_those_of_the_environment():
    env = FromDevice(tmaze()._replace(spec=tmaze().spec._replace(obs_shape=(4, 4, 1), obs_dtype="uint8")))
    assert (env.observation_space.dtype, env.observation_space.shape) == (np.uint8, (4, 4, 1))


def test_worker_processes_step_them_too():
    make, seeds = partial(make_env, "ddpg_jax/TMaze-v0", None, {"corridor": 3}), evaluation_seeds(2)
    actions = np.random.default_rng(0).uniform(0, 1, (9, 1, 2, 2)).astype(np.float32)
    here = VectorEnv(make, (1, 2), seeds)
    there = SubprocVectorEnv(
        portable(make, "ddpg_jax/TMaze-v0"), (1, 2), seeds, spec=here.spec, workers=1, timeout=60.0
    )
    try:
        np.testing.assert_array_equal(here.reset(), there.reset())
        for action in actions:
            for mine, theirs in zip(here.step(action), there.step(action), strict=True):
                np.testing.assert_array_equal(mine, theirs)
    finally:
        there.close()
