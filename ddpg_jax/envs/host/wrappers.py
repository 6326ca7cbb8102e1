"""Wrappers around an environment that a configuration names, and bounds where its actions have none."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import gymnasium
import gymnasium.wrappers
import numpy as np

from ddpg_jax.envs.host.partial import OWN
from ddpg_jax.errors import EnvironmentFault

GymEnv: TypeAlias = "gymnasium.Env[Any, Any]"
ActionRange: TypeAlias = "tuple[tuple[float, float], ...]"

_THEIRS = "gymnasium.wrappers."


class Wrapping(NamedTuple):
    """A wrapper to be put around an environment.

    Attributes:
      name: of a class of ours or of gymnasium.wrappers, or `module:Class`.
      kwargs: arguments of its constructor beside the environment.
    """

    name: str
    kwargs: Mapping[str, Any]


def unknown_wrapper(name: str) -> str | None:
    """Says what is wrong with a wrapper's name, or None; one with a module is looked up when it is made."""
    short = name.removeprefix(_THEIRS)
    if ":" in name or name in OWN or short in _known():
        return None
    close = difflib.get_close_matches(short, [*OWN, *_known()], n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return (
        f"no wrapper of this name is in gymnasium.wrappers or here{hint}; "
        f"one of your own is named as my_module:{short[:80]}"
    )


def wrap(env: GymEnv, wrappings: Sequence[Wrapping]) -> GymEnv:
    """The environment within wrappers, the first of them innermost.

    Raises:
      EnvironmentFault: one is not known, or cannot be made; the environment is closed then.
    """
    for number, (name, kwargs) in enumerate(wrappings):
        try:
            env = _class_of(name)(env, **kwargs)
        except Exception as error:  # whatever its constructor raises
            with suppress(Exception):
                env.close()
            raise EnvironmentFault(f"env.wrappers: number {number}, {name!r}, cannot be made: {error}") from error
    return env


class BoundedAction(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose actions are said to have bounds; they are passed on as they are.

    Args:
      env: the environment, whose action space is a Box.
      space: the bounds, of the same shape and dtype.
    """

    def __init__(self, env: GymEnv, space: gymnasium.spaces.Box) -> None:
        super().__init__(env)
        self.action_space = space


def bound_actions(env: GymEnv, action_range: ActionRange | None) -> GymEnv:
    """The environment with a stated range where its action space has no bounds; bounds that it has stay.

    Args:
      env: the environment.
      action_range: lowest and highest action, one such pair for all components or one for each in C order; None: the
        environment is left as it is.

    Raises:
      EnvironmentFault: there is nothing without bounds, or the pairs are not as many as the components.
    """
    space = env.action_space
    if action_range is None or not isinstance(space, gymnasium.spaces.Box):
        return env
    shape, given = space.shape, np.asarray(action_range, np.float64)
    count = int(np.prod(shape))
    if len(given) not in (1, count):
        raise EnvironmentFault(f"env.action_range has {len(given)} pairs, but {space} has {count} components: {shape}")
    if np.isfinite(space.low).all() and np.isfinite(space.high).all():
        raise EnvironmentFault(f"env.action_range has no effect, as the action space {space} has bounds: leave it out")
    low, high = (np.broadcast_to(given[:, i], count).reshape(shape) for i in (0, 1))
    low, high = np.where(np.isfinite(space.low), space.low, low), np.where(np.isfinite(space.high), space.high, high)
    dtype: Any = space.dtype
    return BoundedAction(env, gymnasium.spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype))


def _class_of(name: str) -> Any:
    """The class that a wrapper's name means.

    Raises:
      ValueError: there is none.
    """
    module, colon, attribute = name.rpartition(":")
    if name in OWN:
        return OWN[name]
    if not colon:
        if problem := unknown_wrapper(name):
            raise ValueError(problem)
        return getattr(gymnasium.wrappers, name.removeprefix(_THEIRS))
    found = getattr(importlib.import_module(module), attribute, None)
    if not callable(found):
        raise ValueError(f"module {module} has no {attribute!r}")
    return found


def _known() -> list[str]:
    """The wrappers of gymnasium around one environment."""
    classes = inspect.getmembers(gymnasium.wrappers, inspect.isclass)
    return [name for name, each in classes if issubclass(each, gymnasium.Wrapper)]
