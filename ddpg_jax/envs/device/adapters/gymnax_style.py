"""Environment objects in the form that gymnax introduced, of gymnax or of anybody's.

They have `reset_env(key, params) -> (obs, state)`, `step_env(key, state, action, params) -> (obs, state, reward, done,
info)` and `action_space(params)`; `is_truncated(state, params)`, where they have it, tells a time limit from an end.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp

from ddpg_jax.envs.bounds import action_bounds
from ddpg_jax.envs.device.adapters.adapt import adapt, lenient
from ddpg_jax.envs.device.autoreset import ResetFn, StepFn
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import Array, DeviceEnv, Tree

_LIMIT = "max_steps_in_episode"
_NEVER = 2**31 - 1
"""More steps than a counter of int32 reaches."""


def from_gymnax(env: Any, params: Any = None, max_episode_steps: int | None = None) -> DeviceEnv:
    """A `DeviceEnv` of an environment object in the form that gymnax introduced.

    It warns once, here, where the environment's own time limit cannot be told from an end.

    Args:
      env: such an object, as `gymnax.environments.environment.Environment`.
      params: its parameters; None: `env.default_params`, if it has any.
      max_episode_steps: time limit; None: `params.max_steps_in_episode`.

    Raises:
      EnvironmentFault: it cannot be trained, or there is no time limit.
    """
    params = getattr(env, "default_params", None) if params is None else params
    own_limit, name = getattr(params, _LIMIT, None), getattr(env, "name", type(env).__name__)
    limit = max_episode_steps or own_limit
    if limit is None:
        raise EnvironmentFault(f"the parameters of {name} have no {_LIMIT}: give it a time limit, max_episode_steps")
    if own_limit is not None:
        params = params.replace(**{_LIMIT: type(own_limit)(_NEVER)})
    tells_ends_apart = hasattr(env, "is_truncated")

    def reset(key: Array) -> tuple[Tree, Array]:
        obs, state = env.reset_env(key, params)
        return state, obs

    def step(state: Tree, action: Array, key: Array) -> tuple[Tree, Array, Any, Any, Any]:
        obs, state, reward, done, _ = env.step_env(key, state, action, params)
        return state, obs, reward, done, env.is_truncated(state, params) if tells_ends_apart else False

    adapted = adapt(reset, step, action_bounds(env.action_space(params)), int(limit))
    if _hides_a_limit(reset, step, adapted.spec.action_low, own_limit, tells_ends_apart):
        warnings.warn(
            f"{name} reports a time limit as an end: it has one that no {_LIMIT} of its parameters lifts, and its "
            "`done` does not tell the two apart; where the limit is reached, the value of the state counts as 0",
            stacklevel=2,
        )
    return adapted


def _hides_a_limit(
    reset: ResetFn, step: StepFn, action: tuple[float, ...], own_limit: Any, tells_ends_apart: bool
) -> bool:
    """Whether an episode ends by its step count alone, although the limit is lifted, as far as can be told.

    A first state is stepped as it is, and with the step count just before the limit.
    """
    if own_limit is None:
        return not tells_ends_apart

    def probe(key: Array) -> Any:
        reset_key, step_key = jax.random.split(key)
        early, _ = reset(reset_key)
        if not hasattr(early, "time"):
            return not tells_ends_apart
        late = early.replace(time=jnp.full_like(early.time, own_limit - 1))
        ends = [step(state, jnp.asarray(action), jax.random.clone(step_key))[3] for state in (early, late)]
        return jnp.logical_and(ends[1], jnp.logical_not(ends[0]))

    return bool(jax.jit(lenient(probe))(jax.random.key(0)))
