"""Five probe environments, each of which can be solved only if one more part of a learner is right.

Observations and actions have one component, actions lie in [-1, 1], and gamma is the learner's. In order: what is
learnt is a constant; a function of the observation; a discounted value over two steps; an action; an action that
depends on the observation.

References:
  Jones, "Debugging reinforcement learning systems" (2021), where the idea is described.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ddpg_jax.envs.device.autoreset import episodic
from ddpg_jax.types import Array, DeviceEnv, EnvSpec

_SPEC = EnvSpec((1,), "float32", (-1.0,), (1.0,))
_LIMIT = 10
BEST_ACTION = 0.5


def constant(max_episode_steps: int = _LIMIT) -> DeviceEnv:
    """Probe 1: one step, observation 0, reward 1. So Q(0, a) = 1."""
    return _one_step(lambda key: jnp.zeros(1), lambda obs, action: jnp.ones(()), max_episode_steps)


def observed(max_episode_steps: int = _LIMIT) -> DeviceEnv:
    """Probe 2: one step, observation +1 or -1, reward equal to it. So Q(o, a) = o."""
    return _one_step(_sign, lambda obs, action: obs[0], max_episode_steps)


def delayed(max_episode_steps: int = _LIMIT) -> DeviceEnv:
    """Probe 3: two steps, observations 0 and 1, reward 1 with the second. So Q(0, a) = gamma and Q(1, a) = 1."""

    def step(obs: Array, action: Array, key: Array) -> tuple[Array, Array, Array, Array, bool]:
        return jnp.ones_like(obs), jnp.ones_like(obs), obs[0], obs[0] > 0, False

    return episodic(lambda key: (jnp.zeros(1), jnp.zeros(1)), step, _SPEC, max_episode_steps)


def acted(max_episode_steps: int = _LIMIT) -> DeviceEnv:
    """Probe 4: one step, observation 0, reward −(a − 0.5)². So mu(0) = 0.5."""
    return _one_step(
        lambda key: jnp.zeros(1), lambda obs, action: -jnp.square(action[0] - BEST_ACTION), max_episode_steps
    )


def answered(max_episode_steps: int = _LIMIT) -> DeviceEnv:
    """Probe 5: one step, observation o = +1 or -1, reward −(a − 0.5·o)². So mu(o) = 0.5·o."""
    return _one_step(_sign, lambda obs, action: -jnp.square(action[0] - BEST_ACTION * obs[0]), max_episode_steps)


def _sign(key: Array) -> Array:
    return jax.random.rademacher(key, (1,), jnp.float32)


def _one_step(
    first: Callable[[Array], Array], reward: Callable[[Array, Array], Array], max_episode_steps: int
) -> DeviceEnv:
    """An environment whose every step is terminal; its state is the observation."""

    def reset(key: Array) -> tuple[Array, Array]:
        obs = first(key)
        return obs, obs

    def step(obs: Array, action: Array, key: Array) -> tuple[Array, Array, Array, bool, bool]:
        return obs, obs, reward(obs, action), True, False

    return episodic(reset, step, _SPEC, max_episode_steps)
