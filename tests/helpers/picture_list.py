"""A plain list of stacks of pictures, as environments give them; rings that keep each once are held against it."""

from typing import NamedTuple

import numpy as np

from ddpg_jax.types import EnvSpec, Step

GAMMA = 0.5


def picture_spec(stack, shape=(2, 3, 1)):
    return EnvSpec((stack, *shape), "uint8", (-1.0, -2.0), (1.0, 3.0), stack=stack)


class Stacked(NamedTuple):
    """Steps of all lanes, leaves `[T, S, E, ...]`; which episode each is of, from 0, and how far into it."""

    obs: np.ndarray
    action: np.ndarray
    step: Step
    episode: np.ndarray
    since: np.ndarray
    cuts: np.ndarray

    def at(self, t):
        return self.obs[t], self.action[t], Step(*(x[t] for x in self.step))


def stacked(spec, ends, cuts=None):
    """Steps whose pictures are all different, the ends given, bool `[T, 2, S, E]` terminated and truncated.

    Args:
      spec: with a stack.
      ends: what the environments report.
      cuts: where an episode is cut after its step was added, bool `[T, S, E]`: the next begins another one.
    """
    steps, _, *lanes = ends.shape
    cuts = np.zeros((steps, *lanes), bool) if cuts is None else cuts
    made, rng = 0, np.random.default_rng(0)

    def picture():
        nonlocal made
        made += 1
        size = int(np.prod(spec.obs_shape[1:]))
        return np.frombuffer(made.to_bytes(size, "little"), np.uint8).reshape(spec.obs_shape[1:])

    obs = np.zeros((steps, *lanes, *spec.obs_shape), np.uint8)
    next_obs, then = np.zeros_like(obs), np.zeros_like(obs)
    episode, since = np.zeros((2, steps, *lanes), int)
    for s, e in np.ndindex(*lanes):
        seen, number, age = [picture()] * spec.stack, 0, 0
        for t in range(steps):
            obs[t, s, e], episode[t, s, e], since[t, s, e] = seen, number, age
            seen, age = [*seen[1:], picture()], age + 1
            next_obs[t, s, e] = seen
            if ends[t, :, s, e].any() or cuts[t, s, e]:
                seen, number, age = [picture()] * spec.stack, number + 1, 0
            then[t, s, e] = seen
    action = rng.uniform(-1, 1, (steps, *lanes, spec.action_size)).astype(np.float32)
    reward = rng.integers(-8, 9, (steps, *lanes)).astype(np.float32)  # whole, so that sums are exact
    return Stacked(obs, action, Step(then, next_obs, reward, ends[:, 0], ends[:, 1]), episode, since, cuts)


class PictureList:
    """The steps up to one of them, of which the last `places` are stored, and what is said of them."""

    def __init__(self, data, stop, places, stack, cut_last=True):
        self.data, self.stop, self.places, self.stack = data, stop, places, stack
        self.oldest = max(0, stop - places)
        cuts = data.cuts.copy()
        cuts[stop - 1] &= cut_last
        self.truncated = data.step.truncated | (cuts & ~data.step.terminated)
        self.starts = range(max(0, stop - (places - stack)), stop)

    def is_lost(self, s, e, t):
        """Whether the observation at a time shows the first picture of an episode that is too long ago."""
        kept = -(-self.places // 8) + 1
        episodes_since = self.data.episode[self.stop - 1, s, e] - self.data.episode[t, s, e]
        return self.data.since[t, s, e] < self.stack and episodes_since >= kept

    def transition(self, s, e, t, n_step):
        """`(obs, action, reward, discount, next_obs)` from a time on, by the definition."""
        data, reward, discount = self.data, 0.0, 1.0
        for i in range(t, min(t + n_step, self.stop)):
            reward, discount = reward + discount * data.step.reward[i, s, e], discount * GAMMA
            if data.step.terminated[i, s, e] or self.truncated[i, s, e]:
                break
        terminal = data.step.terminated[i, s, e]
        return (
            data.obs[t, s, e],
            data.action[t, s, e],
            reward,
            0.0 if terminal else discount,
            data.step.next_obs[i, s, e],
        )

    def assert_transitions(self, batch, ages, n_step):
        """Batches of all seeds, `[S, n]`, of which entry i is lane `i % E` at an age of `ages[i // E]`; and weights."""
        num_seeds, num_envs = self.data.since.shape[1:]
        for s in range(num_seeds):
            for i, age in enumerate(np.repeat(ages, num_envs)):
                e, t = i % num_envs, self.oldest + age
                lost = self.is_lost(s, e, t)
                assert batch.weight[s, i] == (0.0 if lost else 1.0), (s, e, t)
                expected = self.transition(s, e, t, n_step)
                for name, value in zip(("obs", "action", "reward", "discount", "next_obs"), expected, strict=True):
                    if not (lost and "obs" in name):
                        np.testing.assert_array_equal(getattr(batch.data, name)[s, i], value, err_msg=f"{name} of {t}")


def add_steps(ring, data, start, stop):
    """Adds steps to a ring of the host, and cuts episodes where they are cut."""
    for t in range(start, stop):
        ring.add(*data.at(t))
        if data.cuts[t].any():
            ring.cut(data.cuts[t])
