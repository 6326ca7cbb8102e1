"""Environments written in JAX: what every back-end has to offer, and what is added to it here.

A back-end offers `reset` and `step` of one episode in the environment's units. `episodic` makes a `DeviceEnv` of them:
actions in [-1, 1], a time limit, the next episode begun in the step that ends one, and the true last observation kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ddpg_jax.envs.pictures import DrawFn
from ddpg_jax.equations.actions import to_units
from ddpg_jax.types import Array, DeviceEnv, EnvSpec, Step, Tree

ResetFn: TypeAlias = Callable[[Array], tuple[Tree, Array]]
"""`key -> (state, obs [*O])`. The key is consumed."""

StepFn: TypeAlias = Callable[[Tree, Array, Array], tuple[Tree, Array, Any, Any, Any]]
"""`(state, action [A] in the environment's units, key) -> (state, next_obs [*O], reward, terminated, truncated)`.

`truncated` is the back-end's own, if it has one, else False. The key is consumed.
"""


class Episode(NamedTuple):
    """An episode in progress.

    Attributes:
      state: of the back-end.
      steps: taken so far, int32 `[]`.
    """

    state: Tree
    steps: Array


def episodic(
    reset: ResetFn, step: StepFn, spec: EnvSpec, max_episode_steps: int, draw: DrawFn | None = None
) -> DeviceEnv:
    """Episode after episode out of a back-end's functions.

    A reset is computed at every step and taken where the episode has ended: under `vmap` a `cond` would do the same. So
    every episode begins from a draw of its own, which back-ends that keep one first state for each lane do not offer.

    Args:
      reset: begins an episode.
      step: one step, without any automatic reset.
      spec: what an agent must know.
      max_episode_steps: time limit, at least 1; reported as `truncated`.
      draw: draws an observation; None: there are no pictures of it.

    Returns:
      The environment.
    """

    def begin(key: Array) -> tuple[Episode, Array]:
        state, obs = reset(key)
        return Episode(state, jnp.zeros((), jnp.int32)), _as_spec(obs, spec)

    def advance(episode: Episode, action: Array, key: Array) -> tuple[Episode, Step]:
        step_key, reset_key = jax.random.split(key)
        low, high = (jnp.asarray(bound, jnp.float32) for bound in (spec.action_low, spec.action_high))
        state, next_obs, reward, terminated, truncated = step(episode.state, to_units(action, low, high), step_key)
        steps = episode.steps + 1
        terminated = jnp.asarray(terminated).astype(bool)
        truncated = jnp.asarray(truncated).astype(bool) | (steps >= max_episode_steps)
        next_obs = _as_spec(next_obs, spec)
        fresh = begin(reset_key)
        following, obs = select(terminated | truncated, fresh, (Episode(state, steps), next_obs))
        return following, Step(obs, next_obs, jnp.asarray(reward).astype(jnp.float32), terminated, truncated)

    return DeviceEnv(begin, advance, spec, max_episode_steps, draw)


def select(condition: Array, if_true: Tree, if_false: Tree) -> Tree:
    """One of two trees of equal structure, shapes and dtypes; the condition is bool `[]`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)


def _as_spec(obs: Array, spec: EnvSpec) -> Array:
    return jnp.asarray(obs).astype(spec.obs_dtype)
