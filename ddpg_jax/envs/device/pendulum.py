"""Pendulum-v1 in JAX: the same observations and rewards as gymnasium's."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.envs.device.autoreset import episodic
from ddpg_jax.envs.pictures import draw_pendulum
from ddpg_jax.types import Array, DeviceEnv, EnvSpec

TIME_LIMIT = 200
MAX_TORQUE = 2.0
_GRAVITY, _MASS, _LENGTH, _DT, _MAX_SPEED = 10.0, 1.0, 1.0, 0.05, 8.0
_SPEC = EnvSpec((3,), "float32", (-MAX_TORQUE,), (MAX_TORQUE,))


class Pendulum(NamedTuple):
    """Angle from the upright in radians and angular velocity in radians a second, each `[]`."""

    angle: Array
    velocity: Array


def pendulum(max_episode_steps: int = TIME_LIMIT) -> DeviceEnv:
    """A pendulum to be swung up and held: obs (cos, sin, velocity), torque in [-2, 2], never terminal.

    The reward of a step is −(angle² + 0.1·velocity² + 0.001·torque²), of the state before it, with the angle in
    [-pi, pi).

    Args:
      max_episode_steps: time limit.
    """
    return episodic(reset, step, _SPEC, max_episode_steps, draw_pendulum)


def reset(key: Array) -> tuple[Pendulum, Array]:
    """Begins at a uniform angle, with a velocity uniform in [-1, 1]."""
    draws = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    state = Pendulum(jnp.pi * draws[0], draws[1])
    return state, observe(state)


def step(
    state: Pendulum, action: Array, key: Array, mass: Array | float = _MASS, length: Array | float = _LENGTH
) -> tuple[Pendulum, Array, Array, bool, bool]:
    """One step of semi-implicit Euler, 0.05 s; `action [1]` is the torque. The key is not used."""
    torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
    angle = wrap(state.angle)
    cost = jnp.square(angle) + 0.1 * jnp.square(state.velocity) + 0.001 * jnp.square(torque)
    acceleration = 3 * _GRAVITY / (2 * length) * jnp.sin(angle) + 3.0 / (mass * length**2) * torque
    velocity = jnp.clip(state.velocity + acceleration * _DT, -_MAX_SPEED, _MAX_SPEED)
    state = Pendulum(angle + velocity * _DT, velocity)
    return state, observe(state), -cost, False, False


def observe(state: Pendulum) -> Array:
    """(cos, sin, velocity), `[3]`."""
    return jnp.stack([jnp.cos(state.angle), jnp.sin(state.angle), state.velocity])


def wrap(angle: Array) -> Array:
    """The angle in [-pi, pi)."""
    return (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
