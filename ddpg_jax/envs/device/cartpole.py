"""Cart-pole swing-up in JAX: a pole on a cart, to be swung up and held by pushing the cart to and fro."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.envs.device.autoreset import episodic
from ddpg_jax.envs.pictures import draw_cartpole
from ddpg_jax.types import Array, DeviceEnv, EnvSpec

TIME_LIMIT = 1000
RAIL = 1.8
"""Where the rail ends, in m from its middle."""
_GRAVITY, _CART, _POLE, _HALF, _FORCE, _DT = 9.81, 1.0, 0.1, 0.5, 10.0, 0.01


class CartPole(NamedTuple):
    """Place of the cart in m, angle of the pole from the upright in radians, and their derivatives, each `[]`."""

    x: Array
    angle: Array
    velocity: Array
    angular_velocity: Array


def cartpole_swingup(max_episode_steps: int = TIME_LIMIT) -> DeviceEnv:
    """A pole that hangs down is to be swung up and held: obs (x, cos, sin, velocity, angular velocity), never terminal.

    The action in [-1, 1] is a force of 10 N at most on a cart of 1 kg; the pole is a rod of 1 m and 0.1 kg. A step is
    0.01 s. At the ends of its rail, 1.8 m from the middle, the cart stops. The reward, in [0, 1], is a product: how
    upright the pole is, (1 + cos)/2; how near to the middle the cart is, (1 + 0.1^((x/2)²))/2; how slow the pole turns,
    (1 + 0.1^((angular velocity/5)²))/2; and (5 − action²)/5.

    Args:
      max_episode_steps: time limit; 1000 as in dm_control, so that returns go up to 1000 as there.

    References:
      Tassa et al., "DeepMind Control Suite" (arXiv:1801.00690), whose `cartpole-swingup` this follows in masses,
      lengths, force, time, rewards and beginnings; MuJoCo computes it there, with a little friction, and with a soft
      stop of the cart.
    """
    return episodic(reset, step, EnvSpec((5,), "float32", (-1.0,), (1.0,)), max_episode_steps, draw_cartpole)


def reset(key: Array) -> tuple[CartPole, Array]:
    """Begins with the pole hanging down, all four numbers off by a normal draw of deviation 0.01."""
    x, angle, velocity, angular_velocity = 0.01 * jax.random.normal(key, (4,))
    state = CartPole(x, jnp.pi + angle, velocity, angular_velocity)
    return state, observe(state)


def step(state: CartPole, action: Array, key: Array) -> tuple[CartPole, Array, Array, bool, bool]:
    """One step of semi-implicit Euler, 0.01 s; `action [1]` in [-1, 1]. The key is not used."""
    push = jnp.clip(action[0], -1.0, 1.0)
    cart, turn = accelerations(state, _FORCE * push)
    velocity, angular_velocity = state.velocity + _DT * cart, state.angular_velocity + _DT * turn
    x = state.x + _DT * velocity
    velocity = jnp.where(jnp.abs(x) > RAIL, 0.0, velocity)
    state = CartPole(jnp.clip(x, -RAIL, RAIL), state.angle + _DT * angular_velocity, velocity, angular_velocity)
    return state, observe(state), reward(state, push), False, False


def accelerations(state: CartPole, force: Array) -> tuple[Array, Array]:
    """Of the cart in m/s² and of the pole in rad/s², for a force in N.

    Newton's laws for a uniform rod of half-length l on a cart, without friction: with t = (F + m·l·ω²·sin)/(M + m),
    the pole's is (g·sin − t·cos)/(l·(4/3 − m·cos²/(M + m))), and the cart's t − m·l·(pole's)·cos/(M + m).
    """
    sin, cos, total = jnp.sin(state.angle), jnp.cos(state.angle), _CART + _POLE
    shared = (force + _POLE * _HALF * jnp.square(state.angular_velocity) * sin) / total
    turn = (_GRAVITY * sin - shared * cos) / (_HALF * (4 / 3 - _POLE * jnp.square(cos) / total))
    return shared - _POLE * _HALF * turn * cos / total, turn


def reward(state: CartPole, push: Array) -> Array:
    """What a state that was reached by a push in [-1, 1] is worth, in [0, 1]."""
    upright = (1 + jnp.cos(state.angle)) / 2
    centred = (1 + 0.1 ** jnp.square(state.x / 2)) / 2
    slow = (1 + 0.1 ** jnp.square(state.angular_velocity / 5)) / 2
    return upright * centred * slow * (5 - jnp.square(push)) / 5


def observe(state: CartPole) -> Array:
    """(x, cos, sin, velocity, angular velocity), `[5]`."""
    return jnp.stack([state.x, jnp.cos(state.angle), jnp.sin(state.angle), state.velocity, state.angular_velocity])
