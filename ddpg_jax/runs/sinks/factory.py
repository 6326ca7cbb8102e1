"""Sinks by their names."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ddpg_jax.config.plugins import find, load, names
from ddpg_jax.config.sections import SINKS
from ddpg_jax.errors import ConfigError

if TYPE_CHECKING:
    from ddpg_jax.runs.directory import RunDirectory
    from ddpg_jax.runs.sinks.follower import Follower
    from ddpg_jax.runs.sinks.sink import Sink
    from ddpg_jax.runs.sinks.sweep import SweepFollower


class _Home(NamedTuple):
    """Where a sink is, and the packages without which it cannot be made; its extra has its name."""

    sink: str
    packages: tuple[str, ...]


_HOMES = {
    "wandb": _Home("ddpg_jax.runs.sinks.wandb:WandbSink", ("wandb",)),
    "mlflow": _Home("ddpg_jax.runs.sinks.mlflow:MlflowSink", ("mlflow", "sqlalchemy", "alembic")),
    "trackio": _Home("ddpg_jax.runs.sinks.trackio:TrackioSink", ("trackio",)),
}


def make_sink(name: str) -> Sink:
    """Makes the sink of a name: one of `SINKS`, an entry point of `ddpg_jax.sink`, or `module:Class`.

    Raises:
      ConfigError: there is none of that name, or its package is not installed.
    """
    check_sinks((name,))
    return load("sink", _HOMES[name].sink if name in _HOMES else name, "logging.sinks")()


def make_follower(directory: RunDirectory, name: str) -> Follower | SweepFollower:
    """Makes what sends the record of a run, or of a sweep, to the sink of a name.

    Raises:
      StorageError: another process does that, or its files cannot be used.
      OSError: likewise.
    """
    from ddpg_jax.runs.sinks.follower import Follower
    from ddpg_jax.runs.sinks.sweep import SweepFollower

    kind = SweepFollower if directory.sweep.is_file() else Follower
    return kind(directory, name, lambda: make_sink(name))


def check_sinks(names: Sequence[str]) -> None:
    """Makes sure, before anything starts, that sinks can be made; nothing is imported.

    Raises:
      ConfigError: there is no such sink, a package is not installed, or its settings are wrong.
    """
    for name in names:
        if (problem := find_problem(name)) is not None:
            raise ConfigError(f"logging.sinks: {name}: {problem}")


def find_problem(name: str) -> str | None:
    """What keeps a sink from being made; None: nothing that can be seen without importing it."""
    if name not in _HOMES:
        known = ":" in name or find("sink", name) is not None
        return None if known else f"there is no such sink; there are {', '.join([*SINKS, *names('sink')])}"
    missing = [each for each in _HOMES[name].packages if importlib.util.find_spec(each) is None]
    if missing:
        return f'needs {", ".join(missing)}, not installed here: pip install "ddpg-jax[{name}]"'
    uri = os.environ.get("MLFLOW_TRACKING_URI", "") if name == "mlflow" else ""
    if uri.startswith("file:") or (uri and ":" not in uri):
        return f"MLFLOW_TRACKING_URI={uri!r} is a folder, which MLflow refuses: name a database, as sqlite:///mlflow.db"
    return None
