"""gymnax's environments, before and since its version 1.

Before it, `done` is the union of an episode's end and of gymnax's own time limit; since then `step_env` returns the
true end alone, and `is_truncated` tells of the limit. Here that limit is put out of reach, so that `done` is the true
end in both, and a time limit is imposed as on any other environment.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.registration import make, registered_envs  # pyright: ignore[reportMissingImports]

from ddpg_jax.envs.bounds import action_bounds
from ddpg_jax.envs.device.adapters.adapt import adapt, lenient, require_known
from ddpg_jax.envs.device.autoreset import ResetFn, StepFn
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import Array, DeviceEnv, Tree

_LIMIT = "max_steps_in_episode"
_NEVER = 2**31 - 1
"""More steps than a counter of int32 reaches."""


def gymnax_env(name: str, max_episode_steps: int | None, kwargs: Mapping[str, Any]) -> DeviceEnv:
    """An environment of gymnax by its name, such as "Pendulum-v1".

    Args:
      name: as it is registered with gymnax.
      max_episode_steps: time limit; None: gymnax's own.
      kwargs: fields of the environment's parameters, or arguments of its constructor.

    Raises:
      EnvironmentFault: there is no such environment or argument, or it cannot be trained.
    """
    require_known("gymnax environment", [name], registered_envs)
    fields = _fields(make(name)[1])
    options = {key: value for key, value in kwargs.items() if key not in fields}
    env: Any
    params: Any
    try:
        env, params = make(name, **options)
    except TypeError as error:  # an argument that its constructor does not have
        raise EnvironmentFault(
            f"gymnax:{name} cannot be made: {error}; its parameters are {', '.join(fields)}"
        ) from error
    return from_gymnax(env, params.replace(**{k: v for k, v in kwargs.items() if k in fields}), max_episode_steps)


def from_gymnax(env: Any, params: Any, max_episode_steps: int | None = None) -> DeviceEnv:
    """A `DeviceEnv` of an environment object of gymnax.

    It warns once, here, where gymnax's own time limit cannot be told from an end.

    Args:
      env: a `gymnax.environments.environment.Environment`.
      params: its parameters.
      max_episode_steps: time limit; None: `params.max_steps_in_episode`.

    Raises:
      EnvironmentFault: it cannot be trained, or there is no time limit.
    """
    own_limit = getattr(params, _LIMIT, None)
    limit = max_episode_steps or own_limit
    if limit is None:
        raise EnvironmentFault(f"the parameters of {env.name} have no {_LIMIT}: give it a time limit")
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
            f"{env.name} reports a time limit as an end: it has one that no {_LIMIT} of its parameters lifts, and its "
            "`done` does not tell the two apart; where the limit is reached, the value of the state counts as 0",
            stacklevel=2,
        )
    return adapted


def _fields(params: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(params)]


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
