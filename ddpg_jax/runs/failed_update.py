"""What is left of a seed that diverged: its last good state and a batch that it could not learn from, as data.

A bundle is a safetensors file: the learner, the batch, the key, and as text the configuration and the environment's
description. `ddpg-jax reproduce` runs that update again.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.agents.recurrent import carry_size
from ddpg_jax.config.load import dump_toml, resolve
from ddpg_jax.config.schema import Config
from ddpg_jax.config.stored import complete_stored
from ddpg_jax.errors import StorageError, printable
from ddpg_jax.replay.device.ring import start
from ddpg_jax.replay.factory import make_replay
from ddpg_jax.rng import run_keys
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.arrays import read_sealed, seal
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.documents import FAILED_UPDATE
from ddpg_jax.runs.pytrees import from_host, to_host
from ddpg_jax.runs.weights import as_spec
from ddpg_jax.types import Agent, Array, Batch, EnvSpec, HostArray, TrainState, Transition

FORMAT = FAILED_UPDATE[0]


class Bundle(NamedTuple):
    """An update that is not finite.

    Attributes:
      config: the run.
      seed: of it.
      agent: a learner of one seed.
      state: before the update.
      batch: leaves `[U, B, ...]`.
      key: of the seed.
    """

    config: Config
    seed: int
    agent: Agent
    state: TrainState
    batch: Batch
    key: Array


def write_bundle(
    path: Path, config: Config, spec: EnvSpec, seed: int, state: TrainState, batches: Iterable[Batch]
) -> bool:
    """Writes the first of some batches that the learner cannot learn from, or the last one.

    Args:
      path: the file.
      config: the run.
      spec: the environment.
      seed: of the run.
      state: of that seed; it counts no rejected updates afterwards.
      batches: candidates, at least one, leaves `[U, B, ...]`.

    Returns:
      Whether the update with that batch is not finite.

    Raises:
      OSError: it cannot be written.
    """
    state = state._replace(rejected=jnp.zeros_like(state.rejected))
    update, key = jax.jit(make_agent(config, spec).update), run_keys([seed])[0]
    batch, rejects = None, False
    for batch in batches:
        rejects = bool((update(state, batch, key)[1]["rejected"] > 0).any())
        if rejects:
            break
    arrays = to_host({"state": state, "batch": batch})
    text = {"config": dump_toml(config), "spec": json.dumps(spec.stored()), "seed": str(seed), "format": FORMAT}
    filesystem.write_file(path, seal(arrays, text))
    return rejects


def read_bundle(path: Path) -> Bundle:
    """Reads a bundle; nothing in it is executed, and no environment is made.

    Raises:
      StorageError: there is none, or it is broken.
      ConfigError: its configuration is not valid.
    """
    if path.is_dir():
        inside = ", ".join(map(str, RunDirectory(path).bundles()))
        raise StorageError(f"{path} is a directory; " + (f"its bundles: {inside}" if inside else "it holds no bundle"))
    arrays, text, _ = read_sealed(path, *FAILED_UPDATE)
    try:
        values, spec, seed = tomllib.loads(text["config"]), as_spec(json.loads(text["spec"])), int(text["seed"])
    except (ValueError, RecursionError, StorageError) as error:
        raise StorageError(f"{path} cannot be read: {printable(error)}") from error
    if not 0 <= seed < 2**63:
        raise StorageError(f"{path} cannot be read: seed {seed} is none")
    identifier = values.get("env", {}).get("id", "") if isinstance(values.get("env"), dict) else ""
    config = resolve(complete_stored(values), {"env": {"id": identifier}}, source=str(path))
    agent = make_agent(config, spec)
    state = from_host(jax.eval_shape(agent.init, run_keys([0])[0]), arrays, "state", str(path))
    batch = from_host(_batch_like(arrays, config, spec, agent, path), arrays, "batch", str(path))
    updates, size = batch.weight.shape
    if updates * size < 1 or updates % config.algorithm.critic_steps_per_round:
        raise StorageError(f"{path} does not hold the batches of whole rounds, but {updates} of {size} transitions")
    return Bundle(config, seed, agent, jax.tree.map(jnp.asarray, state), batch, run_keys([seed])[0])


def _batch_like(arrays: dict[str, HostArray], config: Config, spec: EnvSpec, agent: Agent, path: Path) -> Batch:
    """The form of a batch of the environment, as large as it is in the file."""
    weight: Any = arrays.get("batch/weight")
    if weight is None or weight.ndim != 2:
        raise StorageError(f"{path} holds no batch")

    def like(*shape: int, dtype: str = "float32") -> Any:
        return jax.ShapeDtypeStruct((*weight.shape, *shape), dtype)

    if config.algorithm.window is not None:
        return _windows_like(config, spec, agent, weight.shape)
    obs = like(*spec.obs_shape, dtype=spec.obs_dtype)
    return Batch(Transition(obs, like(spec.action_size), like(), like(), obs), like(), ())


def _windows_like(config: Config, spec: EnvSpec, agent: Agent, shape: tuple[int, int]) -> Batch:
    """As `_batch_like`, for an agent that learns from windows: what the replay of the device loop would draw."""
    replay = make_replay(config, spec, carry_size(agent))

    def draw(key: Array) -> Batch:
        return replay.sample(replay.init(), start(), key, jnp.zeros((), jnp.int32), *shape)

    return jax.eval_shape(draw, jax.random.key(0))._replace(index=())
