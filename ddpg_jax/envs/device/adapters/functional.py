"""gymnasium's functional environments: those of `gymnasium.envs.phys2d`, and any `FuncEnv` of a user."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
from gymnasium.envs.phys2d import CartPoleFunctional, PendulumFunctional
from gymnasium.experimental.functional import FuncEnv

from ddpg_jax.envs.bounds import action_bounds
from ddpg_jax.envs.device.adapters.adapt import adapt, require_known
from ddpg_jax.types import Array, DeviceEnv, Tree

AnyFuncEnv: TypeAlias = FuncEnv[Any, Any, Any, Any, Any, Any, Any]

_TASKS = {"cartpole": (CartPoleFunctional, 500), "pendulum": (PendulumFunctional, 200)}
"""By our names: the environment, and the time limit under which gymnasium registers it."""


def functional(name: str, max_episode_steps: int | None, kwargs: Mapping[str, Any]) -> DeviceEnv:
    """An environment of `gymnasium.envs.phys2d`.

    Args:
      name: "pendulum"; "cartpole" exists too, and is refused for its discrete actions.
      max_episode_steps: time limit; None: the one of gymnasium.
      kwargs: fields of its parameters, such as `g` or `m`.

    Raises:
      EnvironmentFault: there is no such environment or parameter, or its actions are discrete.
    """
    require_known("phys2d environment", [name], _TASKS)
    make, own_limit = _TASKS[name]
    env = make()
    params = env.get_default_params()
    require_known(f"parameter of phys2d:{name}", kwargs, [field.name for field in dataclasses.fields(params)])
    return from_func_env(env, max_episode_steps or own_limit, env.get_default_params(**kwargs))


def from_func_env(env: AnyFuncEnv, max_episode_steps: int, params: Any = None) -> DeviceEnv:
    """A `DeviceEnv` of a functional environment of gymnasium.

    The key of a reset is split into two, for `initial` and `observation`; the key of a step into four, for
    `transition`, `observation`, `reward` and `terminal`.

    Args:
      env: its functions are written in JAX, its actions a box with finite bounds.
      max_episode_steps: time limit; the environment itself knows none.
      params: passed to each function as `params`; None: not passed, as gymnasium does.

    Raises:
      EnvironmentFault: it cannot be trained.
    """
    given = {} if params is None else {"params": params}

    def reset(key: Array) -> tuple[Tree, Array]:
        initial_key, obs_key = jax.random.split(key)
        state = env.initial(initial_key, **given)
        return state, env.observation(state, obs_key, **given)

    def step(state: Tree, action: Array, key: Array) -> tuple[Tree, Array, Any, Any, bool]:
        keys = jax.random.split(key, 4)
        following = env.transition(state, action, keys[0], **given)
        obs = env.observation(following, keys[1], **given)
        reward = env.reward(state, action, following, keys[2], **given)
        return following, obs, reward, env.terminal(following, keys[3], **given), False

    return adapt(reset, step, action_bounds(env.action_space), max_episode_steps)
