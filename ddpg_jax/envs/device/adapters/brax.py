"""brax's environments, without its wrappers: those merge a time limit into `done`, and begin every episode alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import brax.envs  # pyright: ignore[reportMissingImports]

from ddpg_jax.envs.device.adapters.adapt import adapt_stateful, require_known
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import DeviceEnv

TIME_LIMIT = 1000
"""The `episode_length` that brax takes where none is given."""


def brax_env(name: str, max_episode_steps: int | None, kwargs: Mapping[str, Any]) -> DeviceEnv:
    """An environment of brax by its name, such as "inverted_pendulum".

    Args:
      name: as it is registered with brax.
      max_episode_steps: time limit; None: 1000.
      kwargs: arguments of its constructor, such as `backend`.

    Raises:
      EnvironmentFault: there is no such environment or argument, or it cannot be trained.
    """
    known = brax.envs._envs  # pyright: ignore[reportPrivateUsage]  # brax lists them nowhere else
    require_known("brax environment", [name], known)
    try:
        env = brax.envs.get_environment(name, **kwargs)
    except Exception as error:  # whatever its constructor raises
        raise EnvironmentFault(f"brax:{name} cannot be made: {error}") from error
    return from_brax(env, max_episode_steps or TIME_LIMIT)


def from_brax(env: Any, max_episode_steps: int) -> DeviceEnv:
    """A `DeviceEnv` of an environment object of brax, one without brax's wrappers.

    Actions in [-1, 1] are brax's own convention: its environments map them onto their actuators.

    Args:
      env: a `brax.envs.Env`.
      max_episode_steps: time limit.

    Raises:
      EnvironmentFault: it cannot be trained.
    """
    return adapt_stateful(env, max_episode_steps)
