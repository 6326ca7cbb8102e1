"""Episodes played again: equal to the bit, or begun anew for any of the three reasons alone."""

import gymnasium
import numpy as np
import pytest

from ddpg_jax.envs.host.vector import VectorEnv, training_seeds
from ddpg_jax.training.host.episodes import EpisodeLog, replay_episodes

SHAPE = (2, 1)


class Still(gymnasium.Env):
    """Nothing is to be seen and nothing to be had, until it ends."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length):
        self.length, self.t = length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 0.0, self.t == self.length, False, {}


def lanes_of(make):
    return VectorEnv(make, SHAPE, training_seeds((3, 4), 1))


def pendulum():
    return lanes_of(lambda: gymnasium.make("Pendulum-v1"))


def played(lanes, steps):
    """The journal's state, the observations to act on next and the returns, after so many steps."""
    journal, returns = EpisodeLog(SHAPE), np.zeros(SHAPE)
    obs = lanes.reset().copy()
    for action in np.random.default_rng(0).uniform(-1, 1, (steps, *SHAPE, 1)).astype(np.float32):
        step = lanes.step(action)
        journal.on_step(action, step.terminated | step.truncated)
        returns += step.reward
        obs = step.obs.copy()
    return journal.state(1), obs, returns


def test_what_repeats_itself_is_where_it_was():
    state, obs, returns = played(pendulum(), 5)
    seen, again = replay_episodes(pendulum(), state, obs, returns)
    assert not again.any()
    np.testing.assert_array_equal(seen, obs)


@pytest.mark.parametrize("which", ["observation", "reward"])
def test_a_lane_that_differs_in_one_bit_is_begun_anew(which):
    state, obs, returns = played(pendulum(), 5)
    other, others = obs.copy(), returns.copy()
    if which == "observation":
        other[1, 0, 2] = np.nextafter(other[1, 0, 2], np.float32(9))
    else:
        others[1, 0] = np.nextafter(others[1, 0], 9.0)
    seen, again = replay_episodes(pendulum(), state, other, others)
    assert again.tolist() == [[False], [True]]
    np.testing.assert_array_equal(seen[0], obs[0])
    np.testing.assert_array_equal(seen[1], pendulum().reset(np.ones(SHAPE, np.int64))[1])


@pytest.mark.parametrize(("length", "differs"), [(9, False), (5, True), (3, True)])
def test_a_lane_that_ends_where_it_did_not_is_begun_anew(length, differs):
    state, obs, returns = played(lanes_of(lambda: Still(9)), 5)
    _, again = replay_episodes(lanes_of(lambda: Still(length)), state, obs, returns)
    assert again.tolist() == [[differs], [differs]]
