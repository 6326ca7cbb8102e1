"""A finished run put to use: its policies, their returns, and videos of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.agents import algorithms as agents
from ddpg_jax.config.load import resolve
from ddpg_jax.config.parts import OwnEnv, Parts, split_env
from ddpg_jax.config.plugins import Kind, hand_over
from ddpg_jax.config.plugins import allow_imports as allow
from ddpg_jax.config.schema import Config
from ddpg_jax.config.stored import read_stored
from ddpg_jax.envs.device.rollout import evaluate_greedy, fetch, play_greedy
from ddpg_jax.envs.factory import device_env, drawn_env_maker, make_evaluation_envs
from ddpg_jax.envs.host.offscreen import offscreen
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
from ddpg_jax.envs.host.spaces import as_vectors, in_words, shown
from ddpg_jax.envs.host.video import record_episode
from ddpg_jax.envs.memory import recall
from ddpg_jax.equations.actions import to_units
from ddpg_jax.errors import ConfigError, StorageError
from ddpg_jax.rng import run_keys
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.weights import fit, read_weights, stored_part
from ddpg_jax.types import EnvSpec, Evaluation, HostArray, Seen, TrainState, Tree
from ddpg_jax.xla.compiler import compile_all
from ddpg_jax.xla.modes import in_numeric_modes

HostPolicy: TypeAlias = Callable[..., Any]
"""`obs [E, *O] -> action [E, A]`, in the environment's units; `[*O] -> [A]` for a single observation.

Observations may be as the environment gives them, too, dictionaries of arrays with E in front of each; actions have the
shape that the environment takes. That of an agent with memory is `(obs, kept, reward [E], first [E]) -> (action,
kept)`: with the observation alone an episode begins; then it takes what it gave, and what came of its action. `first`
says where among several environments an episode begins.
"""

NotifyFn: TypeAlias = Callable[[str], None]
"""Takes a line for people."""


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


def check_videos(run: LoadedRun, folder: str | Path) -> Path:
    """Refuses videos that cannot be recorded, before anything is run; makes their folder.

    Raises:
      ConfigError: the extra `video` is not installed, or the environment is written in JAX and cannot draw itself.
      StorageError: the folder cannot be made.
    """
    with hand_over(run.parts):
        drawn_env_maker(run.config)
    if importlib.util.find_spec("moviepy") is None:
        raise ConfigError('recording needs moviepy, which is not installed: pip install "ddpg-jax[video]"')
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot hold videos: {error}") from error
    return folder


@in_numeric_modes
def record_videos(run: LoadedRun, folder: str | Path, notify: NotifyFn | None = None) -> list[Path]:
    """Records one evaluation episode of each seed as an MP4 file; beside the scene, what an agent from pixels sees.

    Args:
      run: the run.
      folder: where the files go; it is made.
      notify: told which seed is being recorded.

    Returns:
      The files, one for each seed.

    Raises:
      ConfigError: as in `check_videos`, and StorageError too.
      EnvironmentFault: the environment cannot draw itself.
    """
    folder, env, seeds = check_videos(run, folder), run.config.env, run.config.seed_list
    paths: list[Path] = []
    with hand_over(run.parts), offscreen():
        make = drawn_env_maker(run.config)
        for i, seed in enumerate(seeds):
            if notify is not None:
                notify(f"recording an episode of seed {seed} ({i + 1} of {len(seeds)})")
            paths.append(record_episode(make, episode_policy(run, i), folder, f"seed-{seed}", env.id))
    return paths
