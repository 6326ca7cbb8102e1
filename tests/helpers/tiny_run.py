"""Tiny runs that several test modules share: Pendulum with episodes of 15 steps, two seeds, networks of 8 units."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import ddpg_jax as dj
from ddpg_jax.config.load import merge
from ddpg_jax.config.schema import Config
from ddpg_jax.envs.factory import make_training_envs
from ddpg_jax.replay.factory import make_ring
from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.runs.checkpoints.checkpoint import digest
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.training import factory
from ddpg_jax.training.host.loop import host_loop
from ddpg_jax.training.report import Report
from ddpg_jax.types import Agent

EPISODE = 15

TINY: dict[str, Any] = {
    "seeds": [4, 9],
    "total_steps": 60,
    "env": {"max_episode_steps": EPISODE},
    "algorithm": {"hidden": [8], "batch_size": 4, "warmup_steps": 20},
    "replay": {"capacity": 1000},
    "evaluation": {"every": 25, "episodes": 3},
    "logging": {"every": 20},
}

OFTEN = {"every": 10, "min_seconds": 0.0, "keep": 100}
LOOPS = pytest.mark.parametrize("identifier", ["Pendulum-v1", "jax:pendulum"])
SLOW_ON_DEVICE = pytest.mark.parametrize(
    "identifier", ["Pendulum-v1", pytest.param("jax:pendulum", marks=pytest.mark.slow)]
)

_FINISHED: list[dj.Run] = []


class Looped(NamedTuple):
    """What a loop reported, and the replay it filled."""

    reports: list[Report]
    ring: Ring
    agent: Agent

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for report in self.reports for row in report.rows]


def tiny_config(**changes: Any) -> Config:
    """The tiny run, with changes by section."""
    return dj.load_config(**merge(TINY, changes))


def loop(config: Config, change_agent: Any = lambda agent: agent) -> Looped:
    """Runs the host loop of a configuration to its end; states of earlier reports were donated."""
    lanes = make_training_envs(config)
    agent = change_agent(factory.make_agent(config, lanes.spec))
    ring = make_ring(config, lanes.spec)
    reports = list(host_loop(config, agent, lanes, ring))
    lanes.close()
    return Looped(reports, ring, agent)


def finished_run(factory: pytest.TempPathFactory) -> dj.Run:
    """The tiny run, trained once for the whole session. Read its directory, never write into it."""
    if not _FINISHED:
        _FINISHED.append(dj.train(tiny_config(), factory.mktemp("finished") / "run"))
    return _FINISHED[0]


def read_rows(path: Any) -> list[dict[str, Any]]:
    """The lines of a JSON lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def config_of(identifier: str = "Pendulum-v1", **changes: Any) -> Config:
    """The tiny run of an environment, saved at each tenth step."""
    return tiny_config(
        **merge({"env": {"id": identifier}, "checkpoint": OFTEN, "logging": {"tensorboard": False}}, changes)
    )


def contents(path: Path) -> tuple[str, bytes, dict[str, bytes]]:
    """Hash of the newest checkpoint, and the bytes of the record and of the final weights."""
    store = CheckpointStore(RunDirectory(path).checkpoints)
    found, set_aside = store.newest()
    assert set_aside == []
    return digest(store.load(found)), (path / "metrics.jsonl").read_bytes(), load_final(path)


def load_final(path: Path) -> dict[str, bytes]:
    arrays = load_file(path / "checkpoints" / "final.safetensors")
    return {name: x.tobytes() for name, x in arrays.items()}


def assert_bit_equal(left: Any, right: Any) -> None:
    """Leaf by leaf, dtypes too."""
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True)
