"""Pictures in the place of observations, around an environment written in JAX that draws itself.

The twin for gymnasium's environments is in `envs/host/pixels.py`: the same stacks, rewards and ends.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.envs.device.autoreset import select
from ddpg_jax.envs.pictures import DrawFn, to_gray
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


def pixels(
    env: DeviceEnv, identifier: str, *, size: int, gray: bool, stack: int, repeat: int, draw_each: bool
) -> DeviceEnv:
    """The environment as its pictures show it: observations `uint8 [stack, size, size, C]`, the newest last.

    A step is one decision: the action is held for `repeat` steps of the environment, whose rewards are summed, and for
    fewer where the episode ends before. Its first picture stands in for those before it.

    Args:
      env: the environment.
      identifier: its id, for messages.
      size: height and width of a picture, H and W.
      gray: one channel of brightness in the place of three.
      stack: pictures of an observation, k.
      repeat: steps that an action is held for.
      draw_each: whether each of these steps is drawn, side by side as channels of one picture; after an end the last
        one again. Otherwise the last step is.

    Raises:
      EnvironmentFault: it cannot draw itself.
    """
    shown = repeat if draw_each else 1
    draw_one = _draw_fn(env, identifier, size, gray)

    def draw(observations: Array) -> Array:
        """A picture `[H, W, C]` of `shown` observations."""
        return jnp.concatenate([draw_one(observations[i]) for i in range(shown)], axis=-1)

    def begin(obs: Array) -> Array:
        first = draw_one(obs)
        return jnp.broadcast_to(jnp.concatenate([first] * shown, axis=-1), (stack, *first.shape[:2], channels))

    def reset(key: Array) -> tuple[Drawn, Array]:
        state, obs = env.reset(key)
        pictures = begin(obs)
        return Drawn(state, pictures), pictures

    def step(drawn: Drawn, action: Array, key: Array) -> tuple[Drawn, Step]:
        state, steps = _hold(env, drawn.state, action, key, repeat)
        last = jax.tree.map(lambda x: x[-1], steps)
        following = jnp.concatenate([drawn.stack[1:], draw(steps.next_obs[-shown:])[None]])
        seen = select(last.terminated | last.truncated, begin(last.obs), following)
        return Drawn(state, seen), last._replace(obs=seen, next_obs=following)

    channels = (1 if gray else 3) * shown
    spec = env.spec._replace(obs_shape=(stack, size, size, channels), obs_dtype="uint8", layout=(), stack=stack)
    return DeviceEnv(reset, step, spec, -(-env.max_episode_steps // repeat))


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


def _draw_fn(env: DeviceEnv, identifier: str, size: int, gray: bool) -> DrawFn:
    """Draws one observation, `[*O] -> [size, size, 1 or 3]`.

    Raises:
      EnvironmentFault: the environment cannot draw itself, or draws something else.
    """
    draw = env.draw
    if draw is None:
        raise EnvironmentFault(
            f"env.id={identifier!r} cannot draw itself, so there are no pictures of it for env.pixels; "
            "jax:pendulum, jax:hidden-pendulum, jax:cartpole-swingup and jax:reacher can, as can one of your own with "
            "make_device_env(..., draw=...)"
        )
    obs = jax.ShapeDtypeStruct(env.spec.obs_shape, env.spec.obs_dtype)
    picture = jax.eval_shape(lambda obs: draw(obs, size), obs)
    if picture.shape != (size, size, 3) or picture.dtype != jnp.uint8:
        raise EnvironmentFault(
            f"env.id={identifier!r} draws {picture.dtype}{list(picture.shape)}: expected uint8[{size}, {size}, 3]"
        )
    return lambda obs: to_gray(draw(obs, size)) if gray else draw(obs, size)
