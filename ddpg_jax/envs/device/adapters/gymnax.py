"""gymnax's environments, before and since its version 1.

Before it, `done` is the union of an episode's end and of gymnax's own time limit; since then `step_env` returns the
true end alone, and `is_truncated` tells of the limit. Here that limit is put out of reach, so that `done` is the true
end in both, and a time limit is imposed as on any other environment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gymnax.registration import make, registered_envs  # pyright: ignore[reportMissingImports]

from ddpg_jax.envs.device.adapters.adapt import require_known
from ddpg_jax.envs.device.adapters.gymnax_style import from_gymnax
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import DeviceEnv


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


def _fields(params: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(params)]
