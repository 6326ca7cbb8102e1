"""Environments written in JAX by their names, `back-end:name`; `make_named_env` is the way to all of them.

Nothing heavy is imported before an environment is made, so the command line can check a name at once.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from ddpg_jax.config.parts import DEVICE_ENV
from ddpg_jax.config.plugins import find, load, names
from ddpg_jax.errors import ConfigError, EnvironmentFault
from ddpg_jax.types import DeviceEnv

MakeFn: TypeAlias = Callable[[str, int | None, Mapping[str, Any]], DeviceEnv]
"""`(name, max_episode_steps, kwargs) -> DeviceEnv`; without a time limit, the back-end's own."""


class Backend(NamedTuple):
    """A source of environments.

    Attributes:
      make: makes an environment.
      module: the package it needs, None for our own.
      extra: the extra of this package that installs it.
    """

    make: MakeFn
    module: str | None
    extra: str | None


NATIVE = (
    "pendulum",
    "probe-constant",
    "probe-observed",
    "probe-delayed",
    "probe-acted",
    "probe-answered",
    "recall",
    "tmaze",
    "hidden-pendulum",
    "cartpole-swingup",
    "reacher",
)
"""Names of our own environments, behind `jax:`."""


def _native(name: str, max_episode_steps: int | None, kwargs: Mapping[str, Any]) -> DeviceEnv:
    from ddpg_jax.envs.device import cartpole, hidden_pendulum, memory_tasks, pendulum, probes, reacher

    makers: dict[str, Callable[..., DeviceEnv]] = {
        "pendulum": pendulum.pendulum,
        "probe-constant": probes.constant,
        "probe-observed": probes.observed,
        "probe-delayed": probes.delayed,
        "probe-acted": probes.acted,
        "probe-answered": probes.answered,
        "recall": memory_tasks.recall,
        "tmaze": memory_tasks.tmaze,
        "hidden-pendulum": hidden_pendulum.hidden_pendulum,
        "cartpole-swingup": cartpole.cartpole_swingup,
        "reacher": reacher.reacher,
    }
    if name not in makers:
        return _own(load("env", name, "env.id"), name, max_episode_steps, kwargs)
    limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    return makers[name](**kwargs, **limit)


def _own(part: Any, name: str, max_episode_steps: int | None, kwargs: Mapping[str, Any]) -> DeviceEnv:
    """The environment that a user's part is, or makes.

    Raises:
      ConfigError: it is none, or does not take what is set.
    """
    given = dict(kwargs) | ({} if max_episode_steps is None else {"max_episode_steps": max_episode_steps})
    if isinstance(part, DeviceEnv) and given:
        raise ConfigError(f"env.id='jax:{name}' is there already, so {', '.join(given)} cannot be set")
    made = part if isinstance(part, DeviceEnv) or not callable(part) else part(**given)
    if not isinstance(made, DeviceEnv):
        raise ConfigError(f"env.id='jax:{name}' is {made!r}: expected a DeviceEnv, or a function that makes one")
    return made


def _functional(name: str, max_episode_steps: int | None, kwargs: Mapping[str, Any]) -> DeviceEnv:
    from ddpg_jax.envs.device.adapters.functional import functional

    return functional(name, max_episode_steps, kwargs)


def _gymnax(name: str, max_episode_steps: int | None, kwargs: Mapping[str, Any]) -> DeviceEnv:
    from ddpg_jax.envs.device.adapters.gymnax import gymnax_env

    return gymnax_env(name, max_episode_steps, kwargs)


def _brax(name: str, max_episode_steps: int | None, kwargs: Mapping[str, Any]) -> DeviceEnv:
    from ddpg_jax.envs.device.adapters.brax import brax_env

    return brax_env(name, max_episode_steps, kwargs)


def _playground(name: str, max_episode_steps: int | None, kwargs: Mapping[str, Any]) -> DeviceEnv:
    from ddpg_jax.envs.device.adapters.playground import playground_env

    return playground_env(name, max_episode_steps, kwargs)


BACKENDS: dict[str, Backend] = {
    "jax": Backend(_native, None, None),
    "phys2d": Backend(_functional, "gymnasium", None),
    "gymnax": Backend(_gymnax, "gymnax", "gymnax"),
    "brax": Backend(_brax, "brax", "brax"),
    "playground": Backend(_playground, "mujoco_playground", "playground"),
}


def unknown_device_env(identifier: str) -> str | None:
    """Says what is wrong with the id of an environment written in JAX, or None; back-ends are not asked here."""
    prefix, _, name = identifier.partition(":")
    backend = BACKENDS[prefix]
    if backend.module is not None and importlib.util.find_spec(backend.module) is None:
        return f'needs {backend.module}, which is not installed: pip install "ddpg-jax[{backend.extra}]"'
    if prefix != "jax" or name in NATIVE or ":" in name or find("env", name) is not None:
        return None
    known = [*NATIVE, *names("env")]
    close = difflib.get_close_matches(name, known, n=1)
    if identifier == DEVICE_ENV:
        return "was handed over in Python as a DeviceEnv: hand it over again, as env=..."
    return f"there is no such environment; did you mean jax:{close[0]}?" if close else f"there are {', '.join(known)}"


def make_named_env(identifier: str, max_episode_steps: int | None, kwargs: Mapping[str, Any]) -> DeviceEnv:
    """Makes an environment written in JAX.

    Args:
      identifier: `back-end:name`.
      max_episode_steps: time limit of an episode; None: the back-end's own.
      kwargs: arguments of the back-end's constructor.

    Raises:
      ConfigError: there is no such environment, its package is not installed, or the time limit is too long.
      EnvironmentFault: it cannot be made or trained.
    """
    problem = unknown_device_env(identifier)
    if problem is not None:
        raise ConfigError(f"env.id={identifier!r}: {problem}")
    if max_episode_steps is not None and max_episode_steps >= 2**31:
        raise ConfigError(
            f"env.max_episode_steps={max_episode_steps}: an environment written in JAX counts to 2147483647"
        )
    prefix, _, name = identifier.partition(":")
    try:
        return BACKENDS[prefix].make(name, max_episode_steps, kwargs)
    except (ConfigError, EnvironmentFault):
        raise
    except Exception as error:  # whatever a back-end raises
        raise EnvironmentFault(f"env.id={identifier!r} cannot be made: {error}") from error
