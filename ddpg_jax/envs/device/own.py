"""An environment of one's own in JAX, out of two plain functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ddpg_jax.envs.bounds import Bounds
from ddpg_jax.envs.device.adapters.adapt import adapt
from ddpg_jax.envs.pictures import DrawFn
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import Array, DeviceEnv, Tree


def make_device_env(
    reset: Callable[[Array], tuple[Tree, Array]],
    step: Callable[[Tree, Array, Array], tuple[Any, ...]],
    *,
    action_low: Sequence[float],
    action_high: Sequence[float],
    max_episode_steps: int,
    draw: DrawFn | None = None,
) -> DeviceEnv:
    """A `DeviceEnv` of two pure functions of one environment, to be handed to `train(config, env=...)`.

        def reset(key):
            x = jax.random.uniform(key, minval=-1.0)
            return x, jnp.array([x])  # the state, any pytree of arrays, and the first observation [*O]

        def step(x, action, key):
            x = jnp.clip(x + 0.1 * action[0], -1, 1)
            return x, jnp.array([x]), -((x - 0.3) ** 2), False  # state, observation, reward, terminated

        env = make_device_env(reset, step, action_low=[-1.0], action_high=[1.0], max_episode_steps=50)

    Args:
      reset: `key -> (state, obs [*O])`, begins an episode.
      step: `(state, action [A] in the environment's units, key) -> (state, obs [*O], reward, terminated)`, one step
        without an automatic reset; a fifth value, `truncated`, may follow.
      action_low: lower bounds `[A]`, whose number is the number of components.
      action_high: upper bounds `[A]`.
      max_episode_steps: time limit; it is told from a terminal state, whose value is 0.
      draw: `(obs [*O], size) -> uint8 [size, size, 3]`, the scene as a picture, for `[env.pixels]`; None: the
        environment cannot draw itself.

    Raises:
      EnvironmentFault: the bounds are not finite and in order, the time limit is below 1, or what the functions return
        does not agree.
    """
    low, high = np.asarray(action_low, np.float64), np.asarray(action_high, np.float64)
    paired = low.ndim == 1 and low.size > 0 and low.shape == high.shape
    if not paired or not (np.isfinite([low, high]).all() and (low < high).all()):
        raise EnvironmentFault(
            f"action_low={action_low}, action_high={action_high}: expected two lists with a finite bound for each "
            "component, as [-1.0] and [1.0], each below its upper"
        )
    if not 1 <= max_episode_steps < 2**31:
        raise EnvironmentFault(f"max_episode_steps={max_episode_steps}: expected a number from 1 to 2147483647")

    def advance(state: Tree, action: Array, key: Array) -> tuple[Tree, Array, Any, Any, Any]:
        returned = step(state, action, key)
        if len(returned) not in (4, 5):
            raise EnvironmentFault(
                f"step returned {len(returned)} values: expected (state, obs, reward, terminated) or truncated after it"
            )
        state, obs, reward, terminated, *truncated = returned
        return state, obs, reward, terminated, truncated[0] if truncated else False

    return adapt(reset, advance, Bounds(tuple(low.tolist()), tuple(high.tolist())), int(max_episode_steps), draw)
