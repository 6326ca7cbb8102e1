"""A finished run's policies, for use elsewhere: plain functions of observations in the environment's own units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jax
import numpy as np

from ddpg_jax.envs.host.rollout import HostMemory
from ddpg_jax.envs.host.spaces import as_vectors, in_words, shown
from ddpg_jax.envs.memory import recall
from ddpg_jax.equations.actions import to_units
from ddpg_jax.runs.inference import LoadedRun, load_run
from ddpg_jax.types import EnvSpec, HostArray, TrainState
from ddpg_jax.xla.modes import in_numeric_modes

HostPolicy: TypeAlias = Callable[..., Any]
"""`obs [E, *O] -> action [E, A]`, in the environment's units; `[*O] -> [A]` for a single observation.

Observations may be as the environment gives them, too, dictionaries of arrays with E in front of each; actions have the
shape that the environment takes. That of an agent with memory is `(obs, kept, reward [E], first [E]) -> (action,
kept)`: with the observation alone an episode begins; then it takes what it gave, and what came of its action. `first`
says where among several environments an episode begins.
"""


def load_policy(
    run_dir: str | Path, seed: int = 0, *, which: Literal["final", "best"] = "final", **overrides: Any
) -> HostPolicy:
    """The greedy policy of one seed, for use elsewhere.

    Args:
      run_dir: directory of a run.
      seed: position in the run's list of seeds; 0 is the first.
      which: as in `evaluate`.
      **overrides: as in `evaluate`.

    Returns:
      A function `obs [E, *O] -> action [E, A]`, in the environment's units and as its action space has them; one
      observation `[*O]` gives one action `[A]`. With memory, `(obs, kept, reward) -> (action, kept)`; see `HostPolicy`.
      Observations that are dictionaries, tuples or matrices are taken as the
      environment gives them, and actions have the shape of its space. It raises `ValueError` for observations of
      another shape.

    Raises:
      StorageError: the run cannot be read.
      IndexError: the run has no such seed.
    """
    return seed_policy(load_run(run_dir, which=which, **overrides), seed)


def seed_policy(run: LoadedRun, seed: int) -> HostPolicy:
    """As `load_policy`, for a run that was read already."""
    if not 0 <= seed < len(run.config.seed_list):
        raise IndexError(f"seed={seed}: the run has {len(run.config.seed_list)} seeds, counted from 0")
    state = jax.tree.map(lambda x: x[seed : seed + 1], run.state)
    return _plain_policy(run, state) if run.memory is None else _policy_with_memory(run, run.memory, state)


def _plain_policy(run: LoadedRun, state: TrainState) -> HostPolicy:
    finish = _to_units(run.spec)

    @in_numeric_modes
    def policy(obs: Any) -> HostArray:
        seen, one = _as_batch(obs, run.spec)
        action = finish(np.asarray(run.policy(state, seen[None]))[0])
        return action[0, ...] if one else action

    return policy


def _policy_with_memory(run: LoadedRun, memory: HostMemory, state: TrainState) -> HostPolicy:
    finish = _to_units(run.spec)

    @in_numeric_modes
    def policy(obs: Any, before: Any = None, reward: Any = 0.0, first: Any = None) -> tuple[HostArray, Any]:
        seen, one = _as_batch(obs, run.spec)
        envs = (1, len(seen))
        kept: Any = memory.begin(*envs) if before is None else before
        if kept.reward.shape != envs:
            raise ValueError(
                f"expected what was remembered of {envs[1]} environments, came that of {kept.reward.shape[1]}"
            )
        kept = kept._replace(reward=np.broadcast_to(np.asarray(reward, np.float32), envs))
        begins = np.broadcast_to(np.asarray(before is None if first is None else first, bool), envs)
        view = recall(kept, seen[None], begins)
        action = run.policy(state, view)
        zeros, ones = np.zeros(envs, np.float32), np.ones(envs, bool)
        after = memory.update(state, kept, view, action, zeros, ones)
        acted = finish(np.asarray(action)[0])
        return (acted[0, ...] if one else acted), after

    return policy


def _as_batch(obs: Any, spec: EnvSpec) -> tuple[HostArray, bool]:
    """Observations as vectors `[E, *O]`, and whether there was but one.

    Raises:
      ValueError: they have another shape.
    """
    seen = as_vectors(obs, spec)
    if seen.shape == spec.obs_shape:
        return seen[None], True
    if seen.shape[1:] != spec.obs_shape or not seen.ndim:
        wanted = in_words(spec.layout) if spec.layout else f"shape {spec.obs_shape}"
        came = shown(obs) if isinstance(obs, Mapping) else seen.shape
        raise ValueError(f"expected observations of {wanted}, or many of them, came {came}")
    return seen, False


def _to_units(spec: EnvSpec) -> Callable[[HostArray], HostArray]:
    """Actions `[E, A]` in [-1, 1] as the environment takes them."""
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    fits = all((bound == bound.astype(np.float32)).all() for bound in (low, high))  # a bound of float64 may not
    dtype = np.float32 if fits else np.float64
    shape = (-1, *spec.own_action_shape)
    return lambda action: to_units(action.astype(np.float64), low, high).astype(dtype).reshape(shape)


def episode_policy(run: LoadedRun, seed: int) -> Callable[[Any, float], HostArray]:
    """The policy of one episode in one environment, which is told the last reward: `(obs, reward) -> action`."""
    policy, kept = seed_policy(run, seed), None
    if run.memory is None:
        return lambda obs, reward: policy(obs)

    def act(obs: Any, reward: float) -> HostArray:
        nonlocal kept
        action, kept = policy(obs, kept, reward)
        return action

    return act
