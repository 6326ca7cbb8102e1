"""Making gymnasium environments, and refusing what cannot be trained, before anything is compiled."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import logging
import re
import sys
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, TypeAlias

import gymnasium
from gymnasium.envs import registration
from gymnasium.envs.registration import EnvSpec as Registration
from gymnasium.envs.registration import registry
from gymnasium.vector.utils import CloudpickleWrapper

from ddpg_jax.envs.bounds import action_bounds
from ddpg_jax.envs.host.from_device import set_limit
from ddpg_jax.envs.host.offscreen import offscreen
from ddpg_jax.envs.host.pixels import find_pixels, see_pixels
from ddpg_jax.envs.host.spaces import observed
from ddpg_jax.envs.host.traits import limit_evaluation
from ddpg_jax.envs.host.wrappers import ActionRange, Wrapping, bound_actions, wrap
from ddpg_jax.envs.pictures import View
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import EnvSpec

_log = logging.getLogger("ddpg_jax")

GymEnv: TypeAlias = "gymnasium.Env[Any, Any]"

_NEEDS = {"mujoco": ("mujoco", "ddpg-jax[mujoco]"), "box2d": ("Box2D", "gymnasium[box2d]")}
"""By the package of the environments: the module they need, and what installs it."""

_REGISTERS = {"dm_control": "shimmy"}
"""By what stands before the slash of an id, which is the name of its extra but for a hyphen: the module that registers
such."""

_MAX_INT32 = 2**31 - 1


def unknown_id(identifier: str) -> str | None:
    """Says what is wrong with an environment's id, or None if it is registered.

    An id with a module ("module:id") is not looked up: the module is imported when the environment is made.
    """
    if (missing := _register(identifier)) is not None:
        return missing
    if ":" in identifier or identifier in registry:
        return None
    close = difflib.get_close_matches(identifier, list(registry), n=3, cutoff=0.3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    own = "" if "/" in identifier else f"; one of your own is named with its module, as in my_module:{identifier[:80]}"
    return f"no environment of this name is registered with gymnasium{hint}{own}"


def _register(identifier: str) -> str | None:
    """Has an extra's package register its environments; says which is missing, or None."""
    prefix, slash, _ = identifier.partition("/")
    if not slash or prefix not in _REGISTERS or identifier in registry:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a display that is not there
        try:
            importlib.import_module(_REGISTERS[prefix])
        except ImportError as error:
            return f'{error}; environments of {prefix} need more: pip install "ddpg-jax[{prefix.replace("_", "-")}]"'
    return None


def make_env(
    identifier: str,
    max_episode_steps: int | None,
    kwargs: Mapping[str, Any],
    render_mode: str | None = None,
    *,
    view: View | None = None,
    bounded: bool = False,
    wrappings: Sequence[Wrapping] = (),
    action_range: ActionRange | None = None,
    entry: Callable[..., GymEnv] | None = None,
) -> GymEnv:
    """One gymnasium environment, with its time limit, checked to be one that can be trained.

    Args:
      identifier: its id.
      max_episode_steps: time limit; None: its own, if it has one.
      kwargs: arguments of its constructor.
      render_mode: how it draws itself.
      view: how it is seen, where its pictures are to be the observations; None: as it observes itself.
      bounded: whether it gets the limit of evaluations where it has none.
      wrappings: what is put around it, the innermost first.
      action_range: of actions, where its space has no bounds; see `bound_actions`.
      entry: what makes it, called with `kwargs`; None: what is registered, or can be imported, by its id.

    Raises:
      EnvironmentFault: it cannot be made, or its spaces are not boxes with finite actions.
    """
    render_mode = "rgb_array" if view is not None and not view.observed else render_mode
    options = dict(kwargs) | ({} if render_mode is None else {"render_mode": render_mode})
    try:
        with _quietly(identifier), nullcontext() if render_mode is None else offscreen():
            env = gymnasium.make(
                _find(identifier, entry), max_episode_steps=max_episode_steps, disable_env_checker=True, **options
            )
    except Exception as error:  # whatever its constructor raises
        raise EnvironmentFault(f"env.id={identifier!r} cannot be made: {error}{_extra_hint(identifier)}") from error
    set_limit(env, max_episode_steps)
    env = wrap(env, wrappings)
    try:
        env = bound_actions(env if view is None else see_pixels(env, identifier, view), action_range)
        describe(env)
    except EnvironmentFault:
        with suppress(Exception):  # what it is refused for matters more
            env.close()
        raise
    return limit_evaluation(env) if bounded else env


def reset_env(env: GymEnv, seed: int) -> tuple[Any, int]:
    """Begins an episode with a seed of 32 bits, or, where the environment takes no such number, with its last 31.

    Environments that keep their seed as int32 refuse every second one. Those that do not are given what they always
    were, so no run begins other episodes than before.

    Returns:
      The first observation, and the seed that was taken.
    """
    try:
        return env.reset(seed=seed)[0], seed
    except (OverflowError, ValueError, AssertionError):
        if seed <= _MAX_INT32:
            raise
    return env.reset(seed=seed & _MAX_INT32)[0], seed & _MAX_INT32


def portable(make: Callable[[], GymEnv], identifier: str) -> Callable[[], GymEnv]:
    """As `make`, for another process, which need not know what was registered or defined in this program."""
    return CloudpickleWrapper(partial(_make_registered, registry.get(identifier.rpartition(":")[2]), make))


def _make_registered(entry: Registration | None, make: Callable[[], GymEnv]) -> GymEnv:
    if entry is not None:
        registry.setdefault(entry.id, entry)
    return make()


def _find(identifier: str, entry: Callable[..., GymEnv] | None) -> str | registration.EnvSpec:
    """What is to be made: an id that is registered, or becomes so by an import, or the class that is named instead."""
    module, colon, name = identifier.partition(":")
    if entry is not None:
        return registration.EnvSpec(re.sub(r"[^\w.-]+", "-", name or identifier), entry_point=entry)
    if missing := _register(identifier):
        raise ImportError(missing)
    if not colon:
        return identifier
    found: Any = getattr(importlib.import_module(module), name, None)
    registered = any(name in (each.id, each.name) for each in registry.values())
    if registered or not callable(found):
        return identifier
    entry_point: Any = found
    return registration.EnvSpec(name, entry_point=entry_point)


@contextmanager
def _quietly(identifier: str) -> Generator[None]:
    """Passes over what an environment says while it is made, once for each of many and nothing that a user can change.

    That a newer version of the task exists, that it cannot draw itself, or that MuJoCo will do without something in its
    model; MuJoCo's go to this package's logger. What it says of a step, later, is left alone.
    """
    if _needs(identifier) == "mujoco":
        with suppress(ImportError):  # what is missing is said when the environment is made
            importlib.import_module("mujoco")
    mujoco: Any = sys.modules.get("mujoco")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if mujoco is None or mujoco.get_mju_user_warning() is not None:
            yield
            return
        mujoco.set_mju_user_warning(_heard)
        try:
            yield
        finally:
            if mujoco.get_mju_user_warning() is _heard:  # not one of the environment's own
                mujoco.set_mju_user_warning(None)


def _heard(text: str) -> None:
    _log.info("MuJoCo: %s", text)


def describe(env: GymEnv) -> EnvSpec:
    """What an agent must know of an environment.

    Raises:
      EnvironmentFault: the observations are not made of boxes, or the actions are no box whose bounds are finite,
        floating and in order.
    """
    low, high = action_bounds(env.action_space, any_shape=True)
    shape = tuple(env.action_space.shape or ())
    obs_shape, obs_dtype, layout = observed(env.observation_space)
    seen = find_pixels(env)
    pictures = () if seen is None else (seen.view.stack, seen.proprioception)
    return EnvSpec(obs_shape, obs_dtype, low, high, None if shape == (len(low),) else shape, layout, *pictures)


def _needs(identifier: str) -> str | None:
    """The key in `_NEEDS` of an environment that is registered already."""
    entry = registry.get(identifier)
    point = str(entry.entry_point) if entry is not None else ""
    return next((package for package in _NEEDS if f".{package}" in point), None)


def _extra_hint(identifier: str) -> str:
    package = _needs(identifier)
    if package is None or importlib.util.find_spec(_NEEDS[package][0]) is not None:
        return ""
    return f'; install what it needs: pip install "{_NEEDS[package][1]}"'
