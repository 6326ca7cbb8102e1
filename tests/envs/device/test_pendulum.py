"""Our Pendulum against gymnasium's, step by step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from scipy import stats

from ddpg_jax.envs.device import pendulum as module
from ddpg_jax.envs.device.autoreset import Episode
from ddpg_jax.envs.device.pendulum import Pendulum, observe, pendulum, wrap

PI = float(np.float32(np.pi))
"""The float32 next to pi, which lies above it; all angles here are float32 numbers on both sides."""


class Rows(NamedTuple):
    """Next observations `[N, 3]` and rewards `[N]`."""

    obs: np.ndarray
    reward: np.ndarray


def ours(angle, velocity, action):
    """One step of the whole `DeviceEnv` from each state; actions in [-1, 1]."""
    env = pendulum()

    def one(angle, velocity, action):
        episode = Episode(Pendulum(angle, velocity), jnp.zeros((), jnp.int32))
        return env.step(episode, action[None], jax.random.key(0))[1]

    step = jax.jit(jax.vmap(one))(*(np.asarray(x, np.float32) for x in (angle, velocity, action)))
    np.testing.assert_array_equal(step.obs, step.next_obs)  # nothing ends
    assert not (step.terminated | step.truncated).any()
    return Rows(np.asarray(step.next_obs), np.asarray(step.reward))


def theirs(angle, velocity, action):
    """The same by gymnasium, in float64, from the same float32 numbers."""
    env, rows = PendulumEnv(), []
    for numbers in zip(*(np.asarray(x, np.float32).astype(np.float64) for x in (angle, velocity, action)), strict=True):
        env.state = np.array(numbers[:2])
        obs, reward, terminated, truncated, _ = env.step(2.0 * np.array(numbers[2:]))
        assert not terminated
        assert not truncated
        rows.append((obs, reward))
    return Rows(*(np.array(column) for column in zip(*rows, strict=True)))


def assert_alike(angle, velocity, action):
    """Observations to 1e-5; rewards, up to 16.3 in size, to 1e-5 or that part of them, whichever is more."""
    one, other = ours(angle, velocity, action), theirs(angle, velocity, action)
    np.testing.assert_allclose(one.obs, other.obs, rtol=0, atol=1e-5)
    np.testing.assert_array_less(np.abs(one.reward - other.reward), 1e-5 * np.maximum(1, np.abs(other.reward)))
    return one


@pytest.mark.parametrize("widest", [np.pi, 10.0])
def test_a_thousand_random_steps_equal_those_of_gymnasium(widest):
    rng = np.random.default_rng(0)
    rows = assert_alike(*(rng.uniform(-x, x, 1000) for x in (widest, 8.0, 1.0)))
    assert (np.abs(rows.obs[:, 2]) == 8).sum() > 10  # the limit of speed was met
    assert rows.reward.min() < -14


def test_angles_are_wrapped_alike_at_the_bottom():
    """On both sides of +-pi, +-3·pi and +-5·pi, a few float32 numbers apart; the reward jumps there in neither."""
    exact = np.array([k * np.pi for k in (-5, -3, -1, 1, 3, 5)], np.float32)
    steps = [exact]
    for direction in (-np.inf, np.inf):
        near = exact
        for _ in range(3):
            near = np.nextafter(near, np.float32(direction))
            steps.append(near)
    steps += [exact - np.float32(1e-3), exact + np.float32(1e-3), np.zeros(6, np.float32)]
    angle = np.concatenate(steps)
    for velocity in (-8, -1, 0, 1, 8):
        rows = assert_alike(angle, np.full(angle.shape, velocity), np.linspace(-1, 1, len(angle)))
        assert (rows.reward[:-6] < -9.8).all()  # pi² = 9.87
        assert (rows.reward[-6:] > -6.5).all()


def test_a_wrapped_angle_differs_by_whole_turns():
    angle = np.concatenate([np.random.default_rng(1).uniform(-10, 10, 5000), [PI, -PI, 0, 3 * PI]]).astype(np.float32)
    wrapped = np.asarray(jax.jit(wrap)(angle))
    assert np.abs(wrapped).max() <= PI
    turns = (angle.astype(float) - wrapped) / (2 * np.pi)
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-6)
    assert set(np.round(turns)) == {-2, -1, 0, 1, 2}


def test_a_step_by_hand():
    """From angle pi/6 at velocity 1 with full torque to the left: 15·sin = 7.5, 3·2 = 6; both times 0.05 s."""
    rows = ours([np.pi / 6], [1.0], [-1.0])
    velocity = 1 + (7.5 - 6) * 0.05
    angle = np.pi / 6 + velocity * 0.05
    np.testing.assert_allclose(rows.obs[0], [np.cos(angle), np.sin(angle), 1.075], atol=1e-6)
    np.testing.assert_allclose(rows.reward[0], -((np.pi / 6) ** 2 + 0.1 + 0.001 * 4), atol=1e-6)


def test_the_upright_at_rest_costs_nothing_and_stays():
    rows = ours([0.0], [0.0], [0.0])
    np.testing.assert_array_equal(rows.obs, [[1, 0, 0]])
    assert rows.reward == 0


def test_two_hundred_steps_stay_beside_gymnasium():
    """From near the bottom, where errors do not grow; pushed to and fro, over the bottom many times."""
    actions = np.sign(np.sin(np.arange(200) / 3)) * np.random.default_rng(2).uniform(0.5, 1, 200)
    actions = actions.astype(np.float32)
    env, bare = pendulum(), PendulumEnv()
    step = jax.jit(env.step)
    episode = Episode(Pendulum(jnp.float32(3.0), jnp.float32(0.5)), jnp.zeros((), jnp.int32))
    bare.state = np.array([3.0, 0.5])
    signs = set()
    for t, action in enumerate(actions):
        episode, report = step(episode, action[None], jax.random.key(t))
        obs, reward, *_ = bare.step(2.0 * action[None].astype(float))
        np.testing.assert_allclose(report.next_obs, obs, atol=1e-3, err_msg=f"step {t}")
        np.testing.assert_allclose(report.reward, reward, rtol=1e-3, atol=1e-3)
        signs.add(np.sign(obs[1]))
        assert (bool(report.truncated), bool(report.terminated)) == (t == 199, False)
    assert signs == {-1, 1}
    assert episode.steps == 0
    assert not np.allclose(report.obs, report.next_obs)


def test_episodes_begin_uniformly():
    episodes, obs = jax.jit(jax.vmap(pendulum().reset))(jax.random.split(jax.random.key(3), 10_000))
    angle, velocity = np.asarray(episodes.state.angle), np.asarray(episodes.state.velocity)
    assert np.abs(angle).max() <= PI
    assert np.abs(velocity).max() <= 1
    assert stats.kstest(angle, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-3
    assert stats.kstest(velocity, "uniform", (-1, 2)).pvalue > 1e-3
    assert abs(np.corrcoef(angle, velocity)[0, 1]) < 0.05
    np.testing.assert_allclose(obs, np.stack([np.cos(angle), np.sin(angle), velocity], -1), atol=1e-6)
    assert (episodes.steps == 0).all()


@pytest.mark.parametrize("limit", [200, 3, 1])
def test_the_time_limit_cuts_and_does_not_terminate(limit):
    env = pendulum() if limit == 200 else pendulum(limit)
    assert env.max_episode_steps == limit

    def body(episode, key):
        following, step = env.step(episode, jnp.ones(1), key)
        return following, step

    first, _ = env.reset(jax.random.key(0))
    _, steps = jax.jit(lambda e: jax.lax.scan(body, e, jax.random.split(jax.random.key(1), 2 * limit + 1)))(first)
    assert not steps.terminated.any()
    np.testing.assert_array_equal(
        np.flatnonzero(steps.truncated), [limit - 1, 2 * limit - 1, 2 * limit][: 2 + (limit < 2)]
    )


def test_the_speed_is_clipped():
    for angle, action in ((np.pi / 2, 1.0), (-np.pi / 2, -1.0)):
        rows = ours([angle], [8.0 * action], [action])
        assert rows.obs[0, 2] == 8 * action
        moved = angle + 8 * action * 0.05  # with the clipped speed, not with the other
        np.testing.assert_allclose(rows.obs[0, :2], [np.cos(moved), np.sin(moved)], atol=1e-6)


def test_the_torque_is_clipped_where_actions_do_not_come_through_the_protocol():
    state = Pendulum(jnp.float32(0.3), jnp.float32(-0.2))
    for size in (2.0, -2.0):
        at, beyond = (module.step(state, jnp.array([size * k]), jax.random.key(0))[1:3] for k in (1, 3))
        jax.tree.map(np.testing.assert_array_equal, at, beyond)


def test_the_specification_is_that_of_gymnasium():
    space, actions = PendulumEnv().observation_space, PendulumEnv().action_space
    spec = pendulum().spec
    assert (spec.obs_shape, spec.obs_dtype) == (space.shape, space.dtype.name)
    assert (spec.action_low, spec.action_high) == (tuple(actions.low.tolist()), tuple(actions.high.tolist()))
    np.testing.assert_array_equal(observe(Pendulum(jnp.float32(0), jnp.float32(8)))[2], space.high[2])
