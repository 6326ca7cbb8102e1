"""Wrappers around environments written in JAX: they hide and disturb what is observed, or remember it.

Their twins for gymnasium's environments are in `envs/host/partial.py`, under the same names, which say what each is. An
episode ends and begins within one step here, so the two observations of a step are made apart: the true last one of the
old episode, and the first of the new one. Whatever is drawn at random comes from keys folded out of the environment's,
whose own draws stay what they were.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ddpg_jax.envs.components import (
    Kind,
    check_fraction,
    check_rates,
    check_sigma,
    find_components,
    kept_components,
    require_vector,
)
from ddpg_jax.envs.device.autoreset import select
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.rng import stream_key
from ddpg_jax.types import Array, DeviceEnv, Step, Tree

FirstFn: TypeAlias = Callable[[Array, Array], tuple[Tree, Array]]
"""`(obs [*O], key) -> (memory, obs)`, at an episode's beginning. The key may be folded, and is not consumed."""

NextFn: TypeAlias = Callable[[Tree, Array, Array, Array], tuple[Tree, Array]]
"""`(memory, action [A] in [-1, 1], next_obs [*O], key) -> (memory, next_obs)`, after a step; the key likewise."""


class Observed(NamedTuple):
    """An environment behind a wrapper.

    Attributes:
      state: of the environment.
      memory: of the wrapper; `()`: it has none.
    """

    state: Tree
    memory: Tree


def wrap_device_env(env: DeviceEnv, identifier: str, wrappings: Sequence[tuple[str, Mapping[str, Any]]]) -> DeviceEnv:
    """The environment within wrappers, the first of them innermost.

    Args:
      env: the environment.
      identifier: its id, by which `HideVelocities` and `HidePositions` know its components.
      wrappings: name and arguments of each: one of `WRAPPERS`, or `module:function` of one's own, called with the
        environment and the arguments.

    Raises:
      EnvironmentFault: one is not known, or cannot be made.
    """
    for number, (name, kwargs) in enumerate(wrappings):
        try:
            env = _wrap_own(env, name, kwargs) if ":" in name else _known(name)(env, identifier, **kwargs)
        except Exception as error:  # whatever a function of one's own raises
            raise EnvironmentFault(f"env.wrappers: number {number}, {name!r}, cannot be made: {error}") from error
    return env


def observe_through(env: DeviceEnv, size: int, first: FirstFn, following: NextFn) -> DeviceEnv:
    """An environment whose observations pass through two functions, with a memory that each episode begins anew.

    Args:
      env: the environment.
      size: of the vector that comes out.
      first: makes the first observation of an episode.
      following: makes the others.
    """

    def reset(key: Array) -> tuple[Observed, Array]:
        state, obs = env.reset(key)
        memory, obs = first(obs, key)
        return Observed(state, memory), obs

    def step(observed: Observed, action: Array, key: Array) -> tuple[Observed, Step]:
        state, step = env.step(observed.state, action, key)
        going_on = following(observed.memory, action, step.next_obs, key)
        # where the episode goes on, both observations are one, so that a replay may store it once
        memory, obs = select(step.terminated | step.truncated, first(step.obs, key), going_on)
        return Observed(state, memory), step._replace(obs=obs, next_obs=going_on[1])

    return DeviceEnv(reset, step, env.spec._replace(obs_shape=(size,), layout=()), env.max_episode_steps)


def hide_observations(env: DeviceEnv, identifier: str, indices: Sequence[int]) -> DeviceEnv:
    """`HideObservations`: leaves components out of the observation.

    Raises:
      ValueError: there is no such component, or none would be left.
    """
    kept = jnp.asarray(kept_components(env.spec.obs_shape, indices))
    return _through(env, len(kept), lambda obs, key: obs[kept])


def _hide(kind: Kind, env: DeviceEnv, identifier: str) -> DeviceEnv:
    return hide_observations(env, identifier, find_components(identifier, env.spec.obs_shape, kind))


def hide_velocities(env: DeviceEnv, identifier: str) -> DeviceEnv:
    """`HideVelocities`: leaves the velocities of a listed task out of the observation."""
    return _hide("velocities", env, identifier)


def hide_positions(env: DeviceEnv, identifier: str) -> DeviceEnv:
    """`HidePositions`: leaves the positions of a listed task out of the observation."""
    return _hide("positions", env, identifier)


def noisy_observations(env: DeviceEnv, identifier: str, sigma: float) -> DeviceEnv:
    """`NoisyObservations`: adds independent normal noise of standard deviation sigma.

    Raises:
      ValueError: sigma is negative, or the observations are not one vector of floats.
    """
    scale, size = jnp.float32(check_sigma(sigma)), _size(env)
    return _through(env, size, lambda obs, key: obs + scale * jax.random.normal(stream_key(key, "noise"), obs.shape))


def dropped_observations(env: DeviceEnv, identifier: str, probability: float) -> DeviceEnv:
    """`DroppedObservations`: puts zeros in the place of whole observations.

    Raises:
      ValueError: it is no probability, or the observations are not one vector of floats.
    """
    size, share = _size(env), check_fraction("probability", probability)

    def drop(obs: Array, key: Array) -> Array:
        return jnp.where(jax.random.bernoulli(stream_key(key, "drop"), share), jnp.zeros_like(obs), obs)

    return _through(env, size, drop)


def memory_traces(
    env: DeviceEnv, identifier: str, rates: Sequence[float] = (0.5, 0.9, 0.97), actions: bool = True
) -> DeviceEnv:
    """`MemoryTraces`: appends exponential averages of observations and actions.

    Raises:
      ValueError: a rate is out of bounds, or the observations are not one vector of floats.
    """
    size, action_size = _size(env), env.spec.action_size if actions else 0
    rate = jnp.asarray(check_rates(rates), jnp.float32)[:, None]

    def update(traces: Array, value: Array) -> Array:
        return rate * traces + (1 - rate) * value[None]

    def append(seen: Array, acted: Array, obs: Array) -> tuple[Tree, Array]:
        return (seen, acted), jnp.concatenate([obs, seen.reshape(-1), acted.reshape(-1)])

    def first(obs: Array, key: Array) -> tuple[Tree, Array]:
        seen = update(jnp.zeros((len(rates), size), jnp.float32), obs)
        return append(seen, jnp.zeros((len(rates), action_size), jnp.float32), obs)

    def following(memory: Tree, action: Array, obs: Array, key: Array) -> tuple[Tree, Array]:
        seen, acted = memory
        return append(update(seen, obs), update(acted, action[:action_size].astype(jnp.float32)), obs)

    return observe_through(env, size + len(rates) * (size + action_size), first, following)


WRAPPERS: dict[str, Callable[..., DeviceEnv]] = {
    "HideObservations": hide_observations,
    "HideVelocities": hide_velocities,
    "HidePositions": hide_positions,
    "NoisyObservations": noisy_observations,
    "DroppedObservations": dropped_observations,
    "MemoryTraces": memory_traces,
}
"""By name, `(env, identifier, **kwargs) -> env`."""


def _through(env: DeviceEnv, size: int, change: Callable[[Array, Array], Array]) -> DeviceEnv:
    """An environment whose every observation is changed by itself, with a key of its own."""
    return observe_through(
        env,
        size,
        lambda obs, key: ((), change(obs, stream_key(key, "first observation"))),
        lambda memory, action, obs, key: ((), change(obs, stream_key(key, "next observation"))),
    )


def _size(env: DeviceEnv) -> int:
    """The number of components of observations that are one vector of floats.

    Raises:
      ValueError: they are not.
    """
    require_vector(env.spec.obs_shape)
    if env.spec.obs_dtype != "float32":
        raise ValueError(f"observations are {env.spec.obs_dtype}: expected float32")
    return env.spec.obs_shape[0]


def _known(name: str) -> Callable[..., DeviceEnv]:
    if name not in WRAPPERS:
        close = difflib.get_close_matches(name, WRAPPERS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(WRAPPERS)}"
        raise ValueError(f"no wrapper of this name is for environments written in JAX; {hint}")
    return WRAPPERS[name]


def _wrap_own(env: DeviceEnv, name: str, kwargs: Mapping[str, Any]) -> DeviceEnv:
    """The environment within `module:function`."""
    module, _, attribute = name.rpartition(":")
    found = getattr(importlib.import_module(module), attribute, None)
    if not callable(found):
        raise ValueError(f"module {module} has no {attribute!r}")
    made: Any = found(env, **kwargs)
    if not isinstance(made, DeviceEnv):
        raise ValueError(f"it returned {type(made).__name__}: expected a DeviceEnv")
    return made
