"""MuJoCo Playground's environments, without its wrappers: those merge a time limit into `done`.

The tasks of its `dm_control_suite` come with the package; for the others it downloads its models at first use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mujoco_playground import (  # pyright: ignore[reportMissingImports]
    dm_control_suite,
    locomotion,
    manipulation,
    registry,
)

from ddpg_jax.envs.device.adapters.adapt import adapt_stateful, require_known
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import DeviceEnv


def playground_env(name: str, max_episode_steps: int | None, kwargs: Mapping[str, Any]) -> DeviceEnv:
    """An environment of MuJoCo Playground by its name, such as "CartpoleBalance".

    Args:
      name: as it is registered with Playground.
      max_episode_steps: time limit; None: the `episode_length` of its configuration.
      kwargs: settings of its configuration, nested or with dotted names. `impl` is "jax" unless it is given here: that
        one runs anywhere, while "warp", Playground's own choice, needs an NVIDIA GPU.

    Raises:
      EnvironmentFault: there is no such environment or setting, or it cannot be made or trained.
    """
    known = dm_control_suite.ALL_ENVS + locomotion.ALL_ENVS + manipulation.ALL_ENVS
    require_known("Playground environment", [name], known)
    config: Any = registry.get_default_config(name)
    settings = dict(_flat(kwargs))
    require_known(f"setting of playground:{name}", settings, list(dict(_flat(config.to_dict()))))
    if "impl" in config:
        settings = {"impl": "jax", **settings}
    try:
        config.update_from_flattened_dict(settings)
        env = registry.load(name, config=config)
    except Exception as error:  # whatever its constructor, or a download, raises
        raise EnvironmentFault(f"playground:{name} cannot be made: {error}") from error
    repeats = config.get("action_repeat", 1)
    if repeats != 1:
        raise EnvironmentFault(
            f"playground:{name} has action_repeat={repeats}, which Playground leaves to a wrapper: expected 1; "
            f"set action_repeat=1, and ctrl_dt={repeats * config.ctrl_dt:g} to hold an action as long"
        )
    return from_playground(env, max_episode_steps or config.episode_length)


def from_playground(env: Any, max_episode_steps: int) -> DeviceEnv:
    """A `DeviceEnv` of an environment object of Playground, one without Playground's wrappers.

    Actions in [-1, 1] are Playground's own convention. Of observations that are a dictionary the entry "state" is
    taken; without one, as with pixels, they are refused.

    Args:
      env: a `mujoco_playground.MjxEnv`.
      max_episode_steps: time limit.

    Raises:
      EnvironmentFault: it cannot be trained.
    """
    return adapt_stateful(env, max_episode_steps)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
