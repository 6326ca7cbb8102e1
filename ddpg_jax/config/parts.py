"""An environment and an agent that are handed over to `train` and its like, instead of being named in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, cast

from ddpg_jax.config.plugins import Kind, name_of
from ddpg_jax.config.schema import Config
from ddpg_jax.errors import ConfigError
from ddpg_jax.types import DeviceEnv

OwnEnv: TypeAlias = Callable[..., Any] | DeviceEnv
"""A function that makes a gymnasium environment, called with `env.kwargs`; or an environment written in JAX."""


def split_env(
    env: OwnEnv | Mapping[str, Any] | None, overrides: Mapping[str, Any]
) -> tuple[OwnEnv | None, dict[str, Any]]:
    """An environment that was handed over, and the overrides: `env={...}` is the section of that name."""
    if isinstance(env, Mapping):
        return None, {"env": cast("Mapping[str, Any]", env), **overrides}
    return env, dict(overrides)


DEVICE_ENV = "jax:own"
"""What the id of an environment is that was handed over as a `DeviceEnv`, which has no name."""


class Parts(NamedTuple):
    """What was handed over.

    Attributes:
      env: the environment; None: the one that the configuration names.
      make_agent: `(config, spec) -> Agent`, called with `algorithm.kwargs` too; None: likewise.
    """

    env: OwnEnv | None = None
    make_agent: Callable[..., Any] | None = None

    def check(self) -> None:
        """Refuses what is of another type.

        Raises:
          ConfigError: it is.
        """
        if self.env is not None and not isinstance(self.env, DeviceEnv) and not callable(self.env):
            raise ConfigError(
                f"env={self.env!r}: expected a function that makes a gymnasium environment, as lambda: MyEnv(), or a "
                "DeviceEnv"
            )
        if self.make_agent is not None and not callable(self.make_agent):
            raise ConfigError(f"make_agent={self.make_agent!r}: expected a function (config, spec) -> Agent")

    def name_in(self, config: Config) -> Config:
        """The configuration of a new run with these parts, which says what they are called.

        Raises:
          ConfigError: a part is of another type, or the configuration does not go with it.
        """
        self.check()
        changes: dict[str, Any] = {}
        if self.env is not None:
            identifier = DEVICE_ENV if isinstance(self.env, DeviceEnv) else name_of(self.env)
            changes["env"] = config.env.model_copy(update={"id": identifier})
        if self.make_agent is not None:
            agent = {"make_agent": name_of(self.make_agent)}
            changes["algorithm"] = config.algorithm.model_copy(update=agent)
        return Config.model_validate(config.model_copy(update=changes).model_dump()) if changes else config

    def by_name(self, values: Mapping[str, Any]) -> dict[tuple[Kind, str], Any]:
        """These parts by the names that the values of a configuration have for them.

        Raises:
          ConfigError: a part is of another type, or the values name none of its kind.
        """
        self.check()
        found: dict[tuple[Kind, str], Any] = {}
        if self.env is not None:
            identifier = str(_at(values, "env", "id"))
            on_device = identifier.startswith("jax:")
            if on_device != isinstance(self.env, DeviceEnv):
                raise ConfigError(
                    f"env is {'' if isinstance(self.env, DeviceEnv) else 'not '}a DeviceEnv, but the run was trained "
                    f"on env.id={identifier!r}, which is {'' if on_device else 'not '}written in JAX"
                )
            found["env", identifier.removeprefix("jax:")] = self.env
        if self.make_agent is not None:
            name = _at(values, "algorithm", "make_agent")
            if name is None:
                trained = _at(values, "algorithm", "name")
                raise ConfigError(f"make_agent was given, but the run was trained by algorithm.name={trained!r}")
            found["agent", str(name)] = self.make_agent
        return found


def _at(values: Mapping[str, Any], section: str, field: str) -> Any:
    table = values.get(section)
    return cast("Mapping[str, Any]", table).get(field) if isinstance(table, Mapping) else None
