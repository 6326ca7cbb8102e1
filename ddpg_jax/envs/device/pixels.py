"""Pictures in the place of observations, around an environment written in JAX that draws itself.

The twin for gymnasium's environments is in `envs/host/pixels.py`: the same stacks, rewards and ends.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.envs.device.autoreset import select
from ddpg_jax.envs.device.backends import DRAWN
from ddpg_jax.envs.mixed import number_rows, put_below
from ddpg_jax.envs.pictures import View, to_gray
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import Array, DeviceEnv, Step, Tree


class Drawn(NamedTuple):
    """An environment that is seen.

    Attributes:
      state: of the environment.
      stack: its last pictures, `uint8 [k, H, W, C]`.
    """

    state: Tree
    stack: Array


def pixels(env: DeviceEnv, identifier: str, view: View) -> DeviceEnv:
    """The environment as its pictures show it: observations `uint8 [stack, size, size, C]`, the newest last.

    What it observes lies in rows below each picture if the view has proprioception; see `envs.mixed`.

    A step is one decision: the action is held for `repeat` steps of the environment, whose rewards are summed, and for
    fewer where the episode ends before. Its first picture stands in for those before it.

    Args:
      env: the environment.
      identifier: its id, for messages.
      view: how it is seen; it has no cameras.

    Raises:
      EnvironmentFault: it cannot draw itself.
    """
    shown, draw_one = view.drawn, _draw_fn(env, identifier, view)
    felt = prod(env.spec.obs_shape) if view.proprioception else 0
    row_shape = (view.size, view.channels)
    shape = (view.stack, view.size + number_rows(felt, row_shape), *row_shape)

    def draw(observations: Array) -> Array:
        """A picture `[H, W, C]` of `shown` observations."""
        picture = jnp.concatenate([draw_one(observations[i]) for i in range(shown)], axis=-1)
        return put_below(picture, jnp.ravel(observations[-1])[:felt])

    def begin(obs: Array) -> Array:
        picture = jnp.concatenate([draw_one(obs)] * shown, axis=-1)
        return jnp.broadcast_to(put_below(picture, jnp.ravel(obs)[:felt]), shape)

    def reset(key: Array) -> tuple[Drawn, Array]:
        state, obs = env.reset(key)
        pictures = begin(obs)
        return Drawn(state, pictures), pictures

    def step(drawn: Drawn, action: Array, key: Array) -> tuple[Drawn, Step]:
        state, steps = _hold(env, drawn.state, action, key, view.repeat)
        last = jax.tree.map(lambda x: x[-1], steps)
        following = jnp.concatenate([drawn.stack[1:], draw(steps.next_obs[-shown:])[None]])
        seen = select(last.terminated | last.truncated, begin(last.obs), following)
        return Drawn(state, seen), last._replace(obs=seen, next_obs=following)

    spec = env.spec._replace(obs_shape=shape, obs_dtype="uint8", layout=(), stack=view.stack, proprioception=felt)
    return DeviceEnv(reset, step, spec, -(-env.max_episode_steps // view.repeat))


def _hold(env: DeviceEnv, state: Tree, action: Array, key: Array, repeat: int) -> tuple[Tree, Step]:
    """Holds an action for some steps: what each reported, leaves `[repeat, ...]`, rewards as their sums so far.

    After an end nothing moves: the state is that of the next episode, and the report stays that of the end.
    """
    state, first = env.step(state, action, key if repeat == 1 else jax.random.fold_in(key, 0))

    def advance(carry: tuple[Tree, Step], number: Array) -> tuple[Any, Step]:
        state, so_far = carry
        moved, step = env.step(state, action, jax.random.fold_in(key, number))
        step = step._replace(reward=so_far.reward + step.reward)
        carry = select(so_far.terminated | so_far.truncated, carry, (moved, step))
        return carry, carry[1]

    (state, _), others = jax.lax.scan(advance, (state, first), jnp.arange(1, repeat))
    return state, jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, others)


def _draw_fn(env: DeviceEnv, identifier: str, view: View) -> Callable[[Array], Array]:
    """Draws one observation, `[*O] -> [size, size, 1 or 3]`.

    Raises:
      EnvironmentFault: the environment cannot draw itself, or draws something else.
    """
    draw, size = env.draw, view.size
    if draw is None:
        raise EnvironmentFault(
            f"env.id={identifier!r} cannot draw itself, so there are no pictures of it for env.pixels; "
            f"{', '.join(DRAWN)} can, and so can one of your own by make_device_env(..., draw=...)"
        )
    obs = jax.ShapeDtypeStruct(env.spec.obs_shape, env.spec.obs_dtype)
    picture = jax.eval_shape(lambda obs: draw(obs, size), obs)
    if picture.shape != (size, size, 3) or picture.dtype != jnp.uint8:
        raise EnvironmentFault(
            f"env.id={identifier!r} draws {picture.dtype}{list(picture.shape)}: expected uint8[{size}, {size}, 3]"
        )
    return lambda obs: to_gray(draw(obs, size)) if view.gray else draw(obs, size)
