"""Stacks, held actions and ends of agents that see pictures, against lists of pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counted import counted, decisions

from ddpg_jax.config.load import load_config
from ddpg_jax.envs.device.own import make_device_env
from ddpg_jax.envs.device.pendulum import pendulum
from ddpg_jax.envs.device.pixels import pixels
from ddpg_jax.envs.factory import device_env
from ddpg_jax.envs.pictures import View, draw_pendulum, to_gray
from ddpg_jax.errors import ConfigError, EnvironmentFault


def play(env, steps):
    """The first observation, and the reports of some steps."""

    def one(state, t):
        return env.step(state, jnp.zeros(env.spec.action_size), jax.random.fold_in(jax.random.key(1), t))

    @jax.jit
    def run():
        state, obs = env.reset(jax.random.key(0))
        return obs, jax.lax.scan(one, state, jnp.arange(steps))[1]

    return jax.tree.map(np.asarray, run())


@pytest.mark.parametrize("draw_each", [False, True])
@pytest.mark.parametrize(("stack", "repeat"), [(1, 1), (3, 2), (2, 3)])
@pytest.mark.parametrize(("ends", "limit"), [(7, 100), (100, 7), (1, 9)])
def test_an_episode_is_that_of_a_list_of_pictures(draw_each, stack, repeat, ends, limit):
    env = pixels(counted(ends, limit), "counted", View(4, False, stack, repeat, draw_each))
    rows = decisions(min(ends, limit), repeat, draw_each)
    count = len(rows)
    shown = repeat if draw_each else 1
    assert env.spec.obs_shape == (stack, 4, 4, 3 * shown)
    assert (env.spec.obs_dtype, env.spec.stack) == ("uint8", stack)
    assert env.max_episode_steps == -(-limit // repeat)
    obs, report = play(env, 2 * count)
    history = [[10] * shown] * stack
    np.testing.assert_array_equal(obs[:, 0, 0, ::3], history)
    assert (obs == obs[:, :1, :1]).all()
    np.testing.assert_array_equal(obs[0, 0, 0], [10, 20, 30] * shown)
    for t in range(2 * count):  # two episodes, as the second begins anew
        numbers, reward = rows[t % count]
        history = [*history[1:], numbers]
        np.testing.assert_array_equal(report.next_obs[t, :, 0, 0, ::3], history)
        assert report.reward[t] == reward
        done = t % count == count - 1
        assert report.terminated[t] == (done and ends <= limit)
        assert report.truncated[t] == (done and limit <= ends)
        if done:
            history = [[10] * shown] * stack
        np.testing.assert_array_equal(report.obs[t, :, 0, 0, ::3], history)


def test_grey_pictures_of_pendulum_are_those_of_its_observations():
    bare = pendulum(5)
    env = pixels(bare, "jax:pendulum", View(20, gray=True, stack=2))
    assert env.spec.obs_shape == (2, 20, 20, 1)
    _, seen = play(env, 12)
    _, told = play(bare, 12)
    for name in ("next_obs", "obs"):
        expected = np.stack([to_gray(draw_pendulum(obs, 20)) for obs in getattr(told, name)])
        newest = getattr(seen, name)[:, -1]
        assert np.abs(newest.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(seen.reward, told.reward)  # held for one step, the keys stay what they are
    np.testing.assert_array_equal(seen.truncated, told.truncated)
    assert seen.truncated.sum() == 2


def test_held_actions_have_keys_of_their_own():
    def step(state, action, key):
        return state, jax.random.uniform(key, (1,)), 0.0, False

    env = make_device_env(
        lambda key: ((), jnp.zeros(1)),
        step,
        action_low=[-1.0],
        action_high=[1.0],
        max_episode_steps=9,
        draw=lambda obs, size: jnp.full((size, size, 3), 255 * obs[0]).astype(jnp.uint8),
    )
    _, report = play(pixels(env, "drawn", View(2, stack=1, repeat=3, draw_each=True)), 2)
    assert len(np.unique(report.next_obs[..., 0, 0, ::3])) == 6


def test_a_configuration_shows_pictures():
    seen = {"size": 12, "gray": True, "stack": 2, "repeat": 4, "draw": "each"}
    for name, limit in (("pendulum", 50), ("cartpole-swingup", 250), ("reacher", 25), ("hidden-pendulum", 50)):
        env = device_env(load_config(env={"id": f"jax:{name}", "pixels": seen}))
        assert (env.spec.obs_shape, env.max_episode_steps) == ((2, 12, 12, 4), limit)


def test_who_cannot_draw_is_refused():
    config = load_config(env={"id": "jax:recall", "pixels": {}})
    with pytest.raises(EnvironmentFault, match=r"jax:recall' cannot draw itself.*; jax:pendulum, .*draw=\.\.\."):
        device_env(config)
    env = counted()._replace(draw=lambda obs, size: jnp.zeros((size, 3), jnp.uint8))
    with pytest.raises(EnvironmentFault, match=r"draws uint8\[4, 3\]: expected uint8\[4, 4, 3\]"):
        pixels(env, "odd", View(4))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"env": {"id": "jax:pendulum", "pixels": {"camera": 1}}}, "camera.*has no cameras: leave it out"),
        ({"env": {"id": "jax:pendulum", "pixels": {"draw": "each"}}}, '"each" has no effect with env.pixels.repeat=1'),
        ({"env": {"pixels": {}, "wrappers": ["HideVelocities"]}}, "'HideVelocities' has no effect with env.pixels"),
        ({"env": {"pixels": {}}, "replay": {"kind": "hindsight"}}, "finds no goals in pictures"),
    ],
)
def test_what_has_no_effect_beside_pictures_is_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        load_config(**values)
