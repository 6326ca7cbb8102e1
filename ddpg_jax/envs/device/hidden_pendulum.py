"""A pendulum whose mass and length are drawn for each episode and not observed: memory can tell what they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.envs.device import pendulum
from ddpg_jax.envs.device.autoreset import episodic
from ddpg_jax.envs.pictures import draw_pendulum
from ddpg_jax.envs.device.pendulum import Pendulum
from ddpg_jax.types import Array, DeviceEnv, EnvSpec


class HiddenPendulum(NamedTuple):
    """The moving pendulum, and its mass in kg and length in m, each `[]`."""

    pendulum: Pendulum
    mass: Array
    length: Array


def hidden_pendulum(
    mass: Sequence[float] = (0.5, 2.0),
    length: Sequence[float] = (1.0, 1.0),
    observed: bool = False,
    max_episode_steps: int = pendulum.TIME_LIMIT,
) -> DeviceEnv:
    """`jax:pendulum` with a mass and a length that are uniform in a range, anew in each episode.

    No best return is known in closed form, as none is for a pendulum of known mass: 0 bounds every return. What can be
    gained by memory is measured beside an agent that observes the mass, `observed`.

    Args:
      mass: lowest and highest mass in kg; gymnasium's pendulum has 1.
      length: lowest and highest length in m; gymnasium's pendulum has 1.
      observed: whether mass and length are the last components of the observation.
      max_episode_steps: time limit.

    Raises:
      ValueError: a range is not of two positive numbers in order.
    """
    for name, ends in (("mass", mass), ("length", length)):
        if len(ends) != 2 or not 0 < ends[0] <= ends[1] < float("inf"):
            raise ValueError(f"{name}={list(ends)}: expected two positive numbers, the lowest and the highest")
    low, high = jnp.array([mass[0], length[0]], jnp.float32), jnp.array([mass[1], length[1]], jnp.float32)

    def observe(obs: Array, state: HiddenPendulum) -> Array:
        return jnp.append(obs, jnp.stack([state.mass, state.length])) if observed else obs

    def reset(key: Array) -> tuple[HiddenPendulum, Array]:
        motion_key, body_key = jax.random.split(key)
        motion, obs = pendulum.reset(motion_key)
        # not uniform(minval, maxval), which may round a range of one number off it
        drawn = low + (high - low) * jax.random.uniform(body_key, (2,))
        state = HiddenPendulum(motion, drawn[0], drawn[1])
        return state, observe(obs, state)

    def step(state: HiddenPendulum, action: Array, key: Array) -> tuple[HiddenPendulum, Array, Array, bool, bool]:
        motion, obs, reward, terminated, truncated = pendulum.step(
            state.pendulum, action, key, state.mass, state.length
        )
        state = state._replace(pendulum=motion)
        return state, observe(obs, state), reward, terminated, truncated

    spec = EnvSpec((5 if observed else 3,), "float32", (-pendulum.MAX_TORQUE,), (pendulum.MAX_TORQUE,))
    return episodic(reset, step, spec, max_episode_steps, draw_pendulum)
