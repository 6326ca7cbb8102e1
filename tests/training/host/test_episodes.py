"""Episodes played again: equal to the bit, or begun anew for any of the three reasons alone."""

import tracemalloc

import gymnasium
import numpy as np
import pytest

from ddpg_jax.envs.host.vector import VectorEnv, training_seeds
from ddpg_jax.training.host.episodes import EpisodeLog, PastEpisodes, replay_episodes

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
    replay = replay_episodes(pendulum(), state, obs, returns)
    assert not replay.again.any()
    np.testing.assert_array_equal(replay.obs, obs)


@pytest.mark.parametrize("which", ["observation", "reward"])
def test_a_lane_that_differs_in_one_bit_is_begun_anew(which):
    state, obs, returns = played(pendulum(), 5)
    other, others = obs.copy(), returns.copy()
    if which == "observation":
        other[1, 0, 2] = np.nextafter(other[1, 0, 2], np.float32(9))
    else:
        others[1, 0] = np.nextafter(others[1, 0], 9.0)
    seen, again, _ = replay_episodes(pendulum(), state, other, others)
    assert again.tolist() == [[False], [True]]
    np.testing.assert_array_equal(seen[0], obs[0])
    np.testing.assert_array_equal(seen[1], pendulum().reset(np.ones(SHAPE, np.int64))[1])


@pytest.mark.parametrize(("length", "differs"), [(9, False), (5, True), (3, True)])
def test_a_lane_that_ends_where_it_did_not_is_begun_anew(length, differs):
    state, obs, returns = played(lanes_of(lambda: Still(9)), 5)
    _, again, _ = replay_episodes(lanes_of(lambda: Still(length)), state, obs, returns)
    assert again.tolist() == [[differs], [differs]]


# Between two episodes.


class Counting(gymnasium.Env):
    """Pays the number of episodes that this instance has begun, or, forgetful, their seed's last digit."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, counts, length=4):
        self.counts, self.length, self.begun, self.t = counts, length, 0, 0

    def reset(self, *, seed=None, options=None):
        self.begun, self.t, self.digit = self.begun + 1, 0, seed % 10
        return np.array([self.digit, 0], np.float32), {}

    def step(self, action):
        self.t += 1
        reward = self.begun if self.counts else self.digit
        return np.array([self.digit, self.t], np.float32), float(reward), False, self.t == self.length, {}


def past_of(rows, length):
    """The last episodes out of steps, each so long."""
    tail = rows[len(rows) - int(np.max(length)) :]
    action, step = zip(*tail, strict=True)
    return PastEpisodes(
        np.broadcast_to(length, SHAPE), np.stack(action), *(np.stack([getattr(x, n) for x in step]) for n in FIELDS)
    )


FIELDS = ("reward", "next_obs")


def walked(lanes, steps):
    """As `played`, and the actions and steps themselves."""
    journal, returns, rows = EpisodeLog(SHAPE), np.zeros(SHAPE), []
    obs = lanes.reset()
    for action in np.random.default_rng(0).uniform(-1, 1, (steps, *SHAPE, 1)).astype(np.float32):
        rows.append((action, step := lanes.step(action)))
        done = step.terminated | step.truncated
        journal.on_step(action, done)
        returns, obs = np.where(done, 0.0, returns + step.reward), step.obs
    return journal.state(1), obs, returns, rows


@pytest.mark.parametrize("counts", [False, True])
def test_where_no_episode_is_in_progress_the_one_before_is_compared(counts):
    state, obs, returns, rows = walked(lanes_of(lambda: Counting(counts)), 12)
    assert (state["length"].tolist(), state["episode"].tolist()) == ([[0], [0]], [[3], [3]])
    fresh = lanes_of(lambda: Counting(counts))
    replay = replay_episodes(fresh, state, obs, returns, past_of(rows, 4))
    assert replay.unlike.tolist() == [[counts], [counts]]
    assert not replay.again.any()
    np.testing.assert_array_equal(replay.obs, obs)
    assert fresh.step(rows[0][0]).next_obs[..., 1].tolist() == [[1], [1]]  # all are at the beginning


def test_some_may_be_between_two_episodes_and_others_amid_one():
    def mixed():
        lengths = iter((4, 5))
        return lanes_of(lambda: Counting(False, next(lengths)))

    state, obs, returns, rows = walked(mixed(), 12)
    assert state["length"].tolist() == [[0], [2]]
    replay = replay_episodes(mixed(), state, obs, returns, past_of(rows, np.array([[4], [0]])))
    assert not (replay.unlike | replay.again).any()
    np.testing.assert_array_equal(replay.obs, obs)


@pytest.mark.parametrize("length", [3, 5])
def test_an_episode_that_ends_elsewhere_is_not_the_one_before(length):
    state, obs, returns, rows = walked(lanes_of(lambda: Counting(False)), 12)
    fresh = lanes_of(lambda: Counting(False, length))
    replay = replay_episodes(fresh, state, obs, returns, past_of(rows, 4))
    assert replay.unlike.all()
    assert not replay.again.any()
    np.testing.assert_array_equal(replay.obs, obs)
    assert fresh.step(rows[0][0]).next_obs[..., 1].tolist() == [[1], [1]]


# What is kept of long episodes.


def test_an_episode_takes_no_more_memory_than_its_actions():
    """What the actions are views of is not kept: a buffer of jax takes 3 kB."""
    log, steps, never, buffer = EpisodeLog((5, 1)), 5_000, np.zeros((5, 1), bool), np.zeros((8, 5, 1, 2), np.float32)
    tracemalloc.start()
    for t in range(steps):
        buffer[3] = t
        log.on_step(buffer[3], never)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / steps < 100  # 40 of them are the actions; there is room for at most twice as many
    state = log.state(2)
    assert state["length"].tolist() == [[steps]] * 5
    assert (state["actions"] == np.arange(steps)[:, None, None, None]).all()


def test_of_many_short_episodes_the_actions_of_the_last_are_kept():
    log, kept, chance = EpisodeLog((1, 2)), [], np.random.default_rng(0)
    for t in range(3000):
        action, done = np.full((1, 2, 1), t, np.float32), chance.random((1, 2)) < 0.02
        log.on_step(action, done)
        kept.append(action)
        if t % 501 == 500:
            state = log.state(1)
            np.testing.assert_array_equal(state["actions"], kept[len(kept) - int(state["length"].max()) :])
            other = EpisodeLog((1, 2))
            other.restore(state, np.zeros((1, 2), bool))
            log = other
    assert len(log._room) < 2000
