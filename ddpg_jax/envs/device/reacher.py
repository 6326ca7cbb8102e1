"""Reacher in JAX: an arm of two links in a plane, whose tip is to be brought to a target."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.envs.device.autoreset import episodic
from ddpg_jax.envs.pictures import draw_reacher
from ddpg_jax.types import Array, DeviceEnv, EnvSpec

TIME_LIMIT = 100
LINK = 0.5
"""Length of each link in m."""
_NEAREST, _FARTHEST = 0.2, 0.9
_TORQUE, _DAMPING, _DT, _SUBSTEPS = 2.0, 0.5, 0.025, 2
_SHOULDER, _COUPLING, _ELBOW = 5 / 12, 1 / 8, 1 / 12
"""Moments of inertia of two uniform rods of 0.5 m and 1 kg in kg·m²: m·L²·5/3, m·L²/2 and m·L²/3."""


class Reacher(NamedTuple):
    """Angle of the first link, and of the second to the first, in radians; their derivatives; the target in m: `[2]`."""

    angles: Array
    velocities: Array
    target: Array


def reacher(max_episode_steps: int = TIME_LIMIT) -> DeviceEnv:
    """The tip of an arm is to be brought to a target within its reach, and held there; never terminal.

    Observations are (cos, sin of the first angle, cos, sin of the second, both velocities, x, y of the target), `[8]`;
    the actions in [-1, 1] are torques of 2 Nm at most at shoulder and elbow. The arm lies flat, so gravity does not pull
    it; both joints are damped. A step is 0.05 s. The reward is −(distance of the tip from the target in m), in [-2, 0].

    Args:
      max_episode_steps: time limit; in 100 steps, 5 s, the arm can go to any target and stay for most of the time.
    """
    spec = EnvSpec((8,), "float32", (-1.0, -1.0), (1.0, 1.0))
    return episodic(reset, step, spec, max_episode_steps, draw_reacher)


def reset(key: Array) -> tuple[Reacher, Array]:
    """Begins at rest, at uniform angles, with a target uniform in the ring of 0.2 to 0.9 m around the shoulder."""
    angle_key, target_key = jax.random.split(key)
    angles = jax.random.uniform(angle_key, (2,), minval=-jnp.pi, maxval=jnp.pi)
    area, turn = jax.random.uniform(target_key, (2,))
    radius = jnp.sqrt(_NEAREST**2 + area * (_FARTHEST**2 - _NEAREST**2))
    target = radius * jnp.stack([jnp.cos(2 * jnp.pi * turn), jnp.sin(2 * jnp.pi * turn)])
    state = Reacher(angles, jnp.zeros(2), target)
    return state, observe(state)


def step(state: Reacher, action: Array, key: Array) -> tuple[Reacher, Array, Array, bool, bool]:
    """Two steps of semi-implicit Euler, 0.025 s each; `action [2]` in [-1, 1]. The key is not used."""
    torques = _TORQUE * jnp.clip(action, -1.0, 1.0)
    for _ in range(_SUBSTEPS):
        state = advance(state, torques, _DT)
    distance = jnp.linalg.norm(tip(state.angles) - state.target)
    return state, observe(state), -distance, False, False


def advance(state: Reacher, torques: Array, dt: float) -> Reacher:
    """Moves the arm for `dt` seconds, the damping taken at the end of them, which is stable at any.

    With M the matrix of inertia at the angles, c the forces of rotation and d the damping, M·a + c = torques − d·v; the
    velocities get dt·a with a = (M + dt·d)⁻¹·(torques − d·v − c).

    References:
      Murray, Li and Sastry, "A Mathematical Introduction to Robotic Manipulation" (1994), section 4.2, for M and c of
      two links.
    """
    cos, sin = jnp.cos(state.angles[1]), jnp.sin(state.angles[1])
    first, second = state.velocities
    turning = _COUPLING * sin * jnp.stack([-second * (2 * first + second), first * first])
    push = torques - _DAMPING * state.velocities - turning
    m11 = _SHOULDER + _ELBOW + 2 * _COUPLING * cos + dt * _DAMPING
    m12, m22 = _ELBOW + _COUPLING * cos, _ELBOW + dt * _DAMPING
    accelerations = jnp.stack([m22 * push[0] - m12 * push[1], m11 * push[1] - m12 * push[0]])
    velocities = state.velocities + dt * accelerations / (m11 * m22 - m12 * m12)
    return Reacher(state.angles + dt * velocities, velocities, state.target)


def tip(angles: Array) -> Array:
    """Where the arm ends, (x, y) in m, `[2]`."""
    first, both = angles[0], angles[0] + angles[1]
    return LINK * jnp.stack([jnp.cos(first) + jnp.cos(both), jnp.sin(first) + jnp.sin(both)])


def observe(state: Reacher) -> Array:
    """(cos, sin, cos, sin, velocities, target), `[8]`."""
    cos, sin = jnp.cos(state.angles), jnp.sin(state.angles)
    return jnp.concatenate([jnp.stack([cos[0], sin[0], cos[1], sin[1]]), state.velocities, state.target])
