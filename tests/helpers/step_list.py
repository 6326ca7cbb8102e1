"""A plain list of steps, from which windows are taken by their definition; every ring is held against it."""

from typing import NamedTuple

import numpy as np

from ddpg_jax.types import EnvSpec, Step

VECTORS = EnvSpec((3,), "float32", (-1.0, -2.0), (1.0, 3.0))
IMAGES = EnvSpec((2, 2, 1), "uint8", (-1.0,), (1.0,))
GAMMA, CARRY = 0.5, 2


class Experience(NamedTuple):
    """Steps of all lanes, leaves `[T, S, E, ...]`, and the states before them."""

    obs: np.ndarray
    action: np.ndarray
    step: Step
    carry: np.ndarray

    def at(self, t):
        return self.obs[t], self.action[t], Step(*(x[t] for x in self.step))


def experience(spec, steps, num_seeds, num_envs, end_rate, *, seed=0, carry_size=CARRY):
    """Every number different; rewards are whole, so that sums are exact. Half of the ends are terminations."""
    rng, lead = np.random.default_rng(seed), (steps, num_seeds, num_envs)
    if spec.obs_dtype == "uint8":
        obs, next_obs = rng.integers(0, 256, (2, *lead, *spec.obs_shape), np.uint8)
    else:
        obs, next_obs = rng.normal(size=(2, *lead, *spec.obs_shape)).astype(np.float32)
    action = rng.uniform(-1, 1, (*lead, spec.action_size)).astype(np.float32)
    reward = rng.integers(-8, 9, lead).astype(np.float32)
    end, terminal = rng.random((2, *lead)) < [[[[end_rate]]], [[[0.5]]]]
    carry = rng.normal(size=(*lead, carry_size)).astype(np.float32)
    # what is acted on next is never stored: the replay must not take it for the successor
    step = Step(np.full_like(obs, 99), next_obs, reward, end & terminal, end & ~terminal)
    return Experience(obs, action, step, carry)


class StepList:
    """The steps of a run up to one of them, of which the last `places` are stored."""

    def __init__(self, data, stop, places):
        self.data, self.stop, self.places, self.oldest = data, stop, places, max(0, stop - places)

    def row(self, s, e, t):
        data = self.data
        step = Step(*(x[t, s, e] for x in data.step))
        return {"obs": data.obs[t, s, e], "action": data.action[t, s, e]} | {
            name: getattr(step, name) for name in ("next_obs", "reward", "terminated", "truncated")
        }

    def begins(self, s, e, t):
        """Whether an episode begins with a step, or the one before is not stored."""
        before = self.data.step.terminated[t - 1, s, e] or self.data.step.truncated[t - 1, s, e]
        return bool(t == self.oldest or before)

    def fold(self, s, e, t, n_step):
        """`(reward, discount, time of the last row)` of the transition of n rows from time t on."""
        reward, discount = 0.0, 1.0
        for i in range(t, min(t + n_step, self.stop)):
            row = self.row(s, e, i)
            reward, discount = reward + discount * row["reward"], discount * GAMMA
            if row["terminated"] or row["truncated"]:
                break
        return reward, 0.0 if row["terminated"] else discount, i

    def assert_window(self, data, s, e, t, whole, n_step):
        """Every number of a window, leaves `[N or W, ...]`, that begins at a time; rows beyond the last count not."""
        window, stored = data.obs, min(whole + n_step - 1, self.stop - t)
        rows = [self.row(s, e, t + i) for i in range(stored)]
        for name in ("obs", "action", "reward", "next_obs"):
            values = getattr(window, name)
            assert len(values) == whole + n_step - 1
            np.testing.assert_array_equal(values[:stored], [row[name] for row in rows], err_msg=name)
        begins = [self.begins(s, e, t + i) for i in range(stored)]
        np.testing.assert_array_equal(window.first[:stored], begins)
        before = {"action": 0.0, "reward": 0.0} if begins[0] else self.row(s, e, t - 1)
        np.testing.assert_array_equal(
            window.action_before, np.broadcast_to(before["action"], window.action_before.shape)
        )
        assert window.reward_before == before["reward"]
        folded = [self.fold(s, e, t + i, n_step) for i in range(whole)]
        np.testing.assert_array_equal(data.reward, [reward for reward, _, _ in folded])
        np.testing.assert_array_equal(data.discount, [discount for _, discount, _ in folded])
        np.testing.assert_array_equal(window.last, [last - t for _, _, last in folded])
        np.testing.assert_array_equal(data.action, [row["action"] for row in rows[:whole]])
        assert data.next_obs == ()


def add_steps(ring, data, start, stop):
    """Adds steps to a ring of the host, and the states before them where it keeps some."""
    for t in range(start, stop):
        if ring.keeps_next:
            ring.keep(data.carry[t])
        ring.add(*data.at(t))
