"""Wrappers of our own that make a task of gymnasium partially observed, or remember what was observed.

Their twins for environments written in JAX are in `envs/device/wrappers.py`, under the same names. Whatever is drawn at
random comes from the seed of the episode, so that an episode repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from ddpg_jax.envs.components import (
    Kind,
    check_fraction,
    check_rates,
    check_sigma,
    find_components,
    kept_components,
    require_vector,
)
from ddpg_jax.rng import derive_seed
from ddpg_jax.types import HostArray

GymEnv: TypeAlias = "gymnasium.Env[Any, Any]"


class HideObservations(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Leaves components out of the observation; it is shorter by them.

    Args:
      env: the environment, whose observations are one vector.
      indices: of the components, from 0.

    Raises:
      ValueError: there is no such component, or none would be left.
    """

    def __init__(self, env: GymEnv, indices: Sequence[int]) -> None:
        super().__init__(env)
        box = _vector_space(env)
        self._kept = kept_components(box.shape, indices)
        dtype: Any = box.dtype
        self.observation_space = Box(box.low[self._kept], box.high[self._kept], dtype=dtype)

    def observation(self, observation: Any) -> Any:
        """What is left of an observation."""
        return observation[self._kept]


class HideVelocities(HideObservations):
    """Leaves the velocities out of the observation, as `envs/components.py` lists them by task.

    Args:
      env: the environment.

    Raises:
      ValueError: it is not listed there.
    """

    def __init__(self, env: GymEnv) -> None:
        super().__init__(env, _of_kind(env, "velocities"))


class HidePositions(HideObservations):
    """Leaves the positions and angles out of the observation, as `envs/components.py` lists them by task.

    Args:
      env: the environment.

    Raises:
      ValueError: it is not listed there.
    """

    def __init__(self, env: GymEnv) -> None:
        super().__init__(env, _of_kind(env, "positions"))


class _Disturbed(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Changes every observation by what it draws from a generator that each seeded reset makes anew."""

    def __init__(self, env: GymEnv) -> None:
        super().__init__(env)
        box = _vector_space(env)
        self._dtype: Any = box.dtype
        self._generator = np.random.default_rng()
        self.observation_space = Box(-np.inf, np.inf, box.shape, self._dtype)

    def reset(self, *, seed: int | None = None, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        if seed is not None:
            self._generator = np.random.default_rng(derive_seed(type(self).__name__, seed))
        return super().reset(seed=seed, **arguments)

    def observation(self, observation: Any) -> Any:
        """The observation, disturbed."""
        return self._disturb(observation).astype(self._dtype)

    def _disturb(self, obs: HostArray) -> HostArray:
        raise NotImplementedError


class NoisyObservations(_Disturbed):
    """Adds independent normal noise to every component of every observation.

    A second one around the same environment would draw the same numbers.

    Args:
      env: the environment, whose observations are one vector.
      sigma: standard deviation, in the units of the observation.

    Raises:
      ValueError: sigma is negative.
    """

    def __init__(self, env: GymEnv, sigma: float) -> None:
        super().__init__(env)
        self._sigma = check_sigma(sigma)

    def _disturb(self, obs: HostArray) -> HostArray:
        return obs + self._sigma * self._generator.standard_normal(obs.shape)


class DroppedObservations(_Disturbed):
    """Puts zeros in the place of whole observations, each with the same probability.

    Args:
      env: the environment, whose observations are one vector.
      probability: that an observation is dropped.

    Raises:
      ValueError: it is no probability.
    """

    def __init__(self, env: GymEnv, probability: float) -> None:
        super().__init__(env)
        self._probability = check_fraction("probability", probability)

    def _disturb(self, obs: HostArray) -> HostArray:
        return np.zeros_like(obs) if self._generator.random() < self._probability else obs


class MemoryTraces(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Appends exponential averages of what was observed and done in the episode: a memory that is not learnt.

    For each rate λ, with the observation o_t and the action a_(t-1) that led to it, in [-1, 1], a_(-1) = 0:

        z_t = λ·z_(t-1) + (1 − λ)·o_t,    y_t = λ·y_(t-1) + (1 − λ)·a_(t-1),    z_(-1) = y_(-1) = 0.

    The agent sees (o_t, z_t of every rate in order, y_t of every rate in order).

    Args:
      env: the environment, whose observations are one vector of floats.
      rates: λ of each trace, between 0 and 1; about 1/(1 − λ) steps are remembered.
      actions: whether there are traces of actions.

    Raises:
      ValueError: the observations are no such vector, or a rate is out of bounds, or the actions have no bounds.

    References:
      Eberhard et al., "Partially observable reinforcement learning with memory traces" (ICML 2025, PMLR 267).
    """

    def __init__(self, env: GymEnv, rates: Sequence[float] = (0.5, 0.9, 0.97), actions: bool = True) -> None:
        super().__init__(env)
        box = _vector_space(env)
        self._dtype: Any = box.dtype
        self._rates = np.array(check_rates(rates))[:, None]
        self._low, self._high = _action_ends(env) if actions else (np.zeros(0), np.zeros(0))
        self._seen = np.zeros((len(rates), box.shape[0]))
        self._acted = np.zeros((len(rates), self._low.size))
        size = box.shape[0] + self._seen.size + self._acted.size
        self.observation_space = Box(-np.inf, np.inf, (size,), self._dtype)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        obs, info = self.env.reset(**arguments)
        self._seen, self._acted = np.zeros_like(self._seen), np.zeros_like(self._acted)
        return self._observe(obs, np.zeros(self._low.size)), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        taken = np.asarray(action, np.float64).reshape(-1) if self._low.size else np.zeros(0)
        return (
            self._observe(obs, 2.0 * (taken - self._low) / (self._high - self._low) - 1.0),
            reward,
            terminated,
            truncated,
            info,
        )

    def _observe(self, obs: HostArray, action: HostArray) -> HostArray:
        self._seen = self._rates * self._seen + (1 - self._rates) * obs
        self._acted = self._rates * self._acted + (1 - self._rates) * action
        return np.concatenate([obs, self._seen.reshape(-1), self._acted.reshape(-1)]).astype(self._dtype)


OWN: dict[str, Any] = {
    each.__name__: each
    for each in (HideObservations, HideVelocities, HidePositions, NoisyObservations, DroppedObservations, MemoryTraces)
}
"""The wrappers of this module by their names."""


def _of_kind(env: GymEnv, kind: Kind) -> tuple[int, ...]:
    registered = env.unwrapped.spec
    return find_components(registered.id if registered is not None else None, env.observation_space.shape or (), kind)


def _vector_space(env: GymEnv) -> Box:
    """The space of observations that are one vector of floats.

    Raises:
      ValueError: they are not.
    """
    space = env.observation_space
    if not isinstance(space, Box) or space.dtype.kind != "f":
        raise ValueError(f"observation space {space} is not a Box of floats: put FlattenObservation before it")
    require_vector(space.shape)
    return space


def _action_ends(env: GymEnv) -> tuple[HostArray, HostArray]:
    space = env.action_space
    if not isinstance(space, Box) or not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(f"action space {space} has no bounds, which traces of actions need: set actions to false")
    return space.low.astype(np.float64).reshape(-1), space.high.astype(np.float64).reshape(-1)
