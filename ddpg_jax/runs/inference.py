"""A finished run read back and evaluated: its parameters, and the returns of its policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.agents import algorithms as agents
from ddpg_jax.config.load import resolve
from ddpg_jax.config.parts import OwnEnv, Parts, split_env
from ddpg_jax.config.plugins import Kind, hand_over
from ddpg_jax.config.plugins import allow_imports as allow
from ddpg_jax.config.schema import Config
from ddpg_jax.config.stored import read_stored
from ddpg_jax.envs.device.rollout import evaluate_greedy, fetch, play_greedy
from ddpg_jax.envs.factory import device_env, make_evaluation_envs
from ddpg_jax.envs.host.rollout import (
    HostMemory,
    PolicyFn,
    ProgressFn,
    Told,
    ValueFn,
    WatchFn,
    evaluate_episodes,
    jit_memory,
    jit_policy,
    jit_value,
    no_progress,
    no_watch,
)
from ddpg_jax.errors import ConfigError
from ddpg_jax.rng import run_keys
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.weights import fit, read_weights, stored_part
from ddpg_jax.types import EnvSpec, Evaluation, HostArray, Seen, TrainState, Tree
from ddpg_jax.xla.compiler import compile_all
from ddpg_jax.xla.modes import in_numeric_modes


class LoadedRun(NamedTuple):
    """A run read back.

    Attributes:
      config: what it was.
      state: its final parameters, leaves `[S, ...]`.
      policy: greedy actions of all seeds, in [-1, 1].
      value: what the critics predict of the policy, discounted.
      spec: the environment it was trained in.
      parts: what was handed over to read it, by name.
      memory: of agents with memory; else None.
    """

    config: Config
    state: TrainState
    policy: PolicyFn
    value: ValueFn
    spec: EnvSpec
    parts: Mapping[tuple[Kind, str], Any] = {}
    memory: HostMemory | None = None


@in_numeric_modes
def load_run(
    run_dir: str | Path,
    *,
    which: Literal["final", "best"] = "final",
    env: OwnEnv | Mapping[str, Any] | None = None,
    make_agent: Callable[..., Any] | None = None,
    allow_imports: bool = False,
    **overrides: Any,
) -> LoadedRun:
    """Reads a run's configuration and final parameters, or those of its last checkpoint where it was interrupted.

    Args:
      run_dir: directory of a run.
      which: "best": the parameters of its best evaluation so far.
      env: the environment, where it was handed over to `train`; or fields of `[env]`, as an override.
      make_agent: likewise.
      allow_imports: whether the run's file may name modules to import, as no module is imported because a file says so.
      **overrides: fields that replace the run's, as in `load_config`.

    Raises:
      ConfigError: the configuration is wrong.
      StorageError: there is no run, or its files do not belong together.
    """
    directory = RunDirectory.open(run_dir)
    values = read_stored(directory.config)
    own_env, overrides = split_env(env, overrides)
    parts = Parts(own_env, make_agent).by_name(values)
    with hand_over(parts), allow(allow_imports):
        config = resolve(values, overrides, source=str(directory.config))
        weights = read_weights(directory, which)
        agent = agents.make_agent(config, weights.spec)
    expected = jax.eval_shape(jax.vmap(agent.init), run_keys(config.seed_list))
    stored = fit(weights, stored_part(expected))
    state = expected._replace(step=(), target_params=(), opt_state=(), rejected=(), **jax.tree.map(jnp.asarray, stored))
    memory = jit_memory(agent, weights.spec.action_size)
    return LoadedRun(config, state, jit_policy(agent), jit_value(agent), weights.spec, parts, memory)


def evaluate(
    run_dir: str | Path, episodes: int = 100, *, which: Literal["final", "best"] = "final", **overrides: Any
) -> HostArray:
    """Evaluates the greedy policies of a run on the bank of evaluation seeds.

    Args:
      run_dir: directory of a run.
      episodes: episodes of each seed.
      which: "final", or those of the evaluation that was best.
      **overrides: as in `load_run`, with its `env`, `make_agent` and `allow_imports`.

    Returns:
      Returns `[S, episodes]`.

    Raises:
      StorageError: the run cannot be read.
      EnvironmentFault: an environment failed.
    """
    return evaluate_run(load_run(run_dir, which=which, **overrides), episodes).returns


@in_numeric_modes
def evaluate_run(run: LoadedRun, episodes: int, progress: ProgressFn = no_progress) -> Evaluation:
    """As `evaluate`, for a run that was read already; with the lengths. The host's environments tell their progress."""
    with hand_over(run.parts):
        if run.config.on_device:
            return Evaluation(*_evaluate_on_device(run, episodes, evaluate_greedy))
        return _evaluate_on_host(run, episodes, progress)


@in_numeric_modes
def play_run(run: LoadedRun, episodes: int, progress: ProgressFn = no_progress) -> tuple[Evaluation, Seen]:
    """As `evaluate_run`, for agents with memory; with what they were told at each step, leaves `[S, episodes, T, ...]`.

    T is at least the length of the longest episode; what stands after an episode's end means nothing.
    """
    with hand_over(run.parts):
        if run.config.on_device:
            return _evaluate_on_device(run, episodes, play_greedy)
        told = Told()
        evaluation = _evaluate_on_host(run, episodes, progress, told)
        return evaluation, told.by_episode(evaluation.lengths)


def select_seed(run: LoadedRun, seed: int) -> LoadedRun:
    """One of the seeds of a run, as if it had been trained alone.

    Raises:
      ConfigError: the run has no such seed.
    """
    seeds = run.config.seed_list
    if seed not in seeds:
        raise ConfigError(f"the run has no seed {seed}; it has {', '.join(map(str, seeds))}")
    place = seeds.index(seed)
    state = jax.tree.map(lambda x: x[place : place + 1], run.state)
    return run._replace(config=run.config.model_copy(update={"seeds": (seed,)}), state=state)


def _evaluate_on_host(run: LoadedRun, episodes: int, progress: ProgressFn, watch: WatchFn = no_watch) -> Evaluation:
    with closing(make_evaluation_envs(run.config, episodes, alone=True)) as lanes:
        _check_spec(run, lanes.spec)
        gamma, keys = run.config.algorithm.gamma, run.config.env.info_keys
        return evaluate_episodes(run.policy, run.value, run.state, lanes, gamma, progress, keys, run.memory, watch)


def _evaluate_on_device(run: LoadedRun, episodes: int, play: Callable[..., Tree]) -> Tree:
    """What `play` gives for an environment written in JAX, one of `envs.device.rollout`, for all seeds."""
    env = device_env(run.config)
    _check_spec(run, env.spec)
    agent, gamma = agents.make_agent(run.config, env.spec), run.config.algorithm.gamma
    evaluate = jax.jit(jax.vmap(partial(play, env, agent, episodes=episodes, gamma=gamma)))
    (program,) = compile_all([(evaluate, (run.state,), None)])
    return fetch(partial(program, run.state))


def _check_spec(run: LoadedRun, spec: EnvSpec) -> None:
    if differing := run.spec.differences(spec):
        lines = "\n  ".join(differing)
        raise ConfigError(f"env.id={run.config.env.id!r} is not what was trained:\n  {lines}")
