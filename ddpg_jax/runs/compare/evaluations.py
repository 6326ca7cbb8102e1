"""What is compared: evaluations of our runs and of peers, and the group that each belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.config.diff import compare
from ddpg_jax.config.load import read_toml, resolve
from ddpg_jax.config.marks import HARMLESS
from ddpg_jax.config.plugins import allow_imports
from ddpg_jax.config.schema import Config
from ddpg_jax.config.stored import read_stored
from ddpg_jax.errors import ConfigError, StorageError
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.record import load_record, read_seconds
from ddpg_jax.runs.statistics import show_setting
from ddpg_jax.types import HostArray

NEVER = np.iinfo(np.int64).max
"""The step at which a seed diverged that did not."""

_MOST_FIELDS = 3


class Evaluations(NamedTuple):
    """What one run, or one file of a peer, tells of its seeds.

    Attributes:
      source: where it is from, for people.
      task: what was learned.
      steps: environment steps of each seed, rising, `[N]`.
      seeds: their names, S.
      returns: mean return of an evaluation's episodes, `[N, S]`.
      diverged: step at which each seed diverged, `[S]`; `NEVER`: it did not.
      seconds: that the run had taken, with all seeds side by side, `[N]`; NaN: unknown.
      at_once: how many seeds were trained side by side.
      machine: on what it ran; empty: unknown.
    """

    source: str
    task: str
    steps: HostArray
    seeds: tuple[str, ...]
    returns: HostArray
    diverged: HostArray
    seconds: HostArray
    at_once: int = 1
    machine: str = ""


Groups = dict[str, list[Evaluations]]
"""What is compared, by the name of its group."""


class _Described(NamedTuple):
    """A run and its configuration; None: this version cannot read it."""

    path: Path
    values: dict[str, Any]
    config: Config | None

    @property
    def kind(self) -> tuple[str, str]:
        """Task and algorithm, which may be an agent of one's own."""
        own = _of(self.values, "algorithm", "make_agent")
        return str(_of(self.values, "env", "id")), str(own or _of(self.values, "algorithm", "name"))


def group_runs(paths: Sequence[Path]) -> Groups:
    """Reads runs and groups them: runs of one algorithm whose configurations differ only in seeds are one group.

    A group has the name of its algorithm. Where runs of one task and algorithm differ in more, the fields in which they
    do are in the name: `td3, tau 0.01`. What only concerns the record, or how fast a run goes, is no difference.

    Raises:
      StorageError: a path is no run, or its record cannot be read.
    """
    runs = [_describe(each) for path in paths for each in expand(path)]
    groups: Groups = {}
    for run, name in zip(runs, _names(runs), strict=True):
        groups.setdefault(name, []).append(read_run(run.path))
    return groups


def expand(path: Path) -> list[Path]:
    """A run's directory, or those of the processes that share its seeds."""
    parts = sorted(path.glob("process-*"), key=lambda part: (len(part.name), part.name))
    return parts if parts and not (path / "config.toml").is_file() else [path]


def read_run(path: Path) -> Evaluations:
    """The evaluations of a run.

    Raises:
      StorageError: there is none, or it was not evaluated yet.
    """
    directory = RunDirectory.open(path)
    record = load_record(path, ("evaluation", "diverged"))
    if not len(record.steps):
        raise StorageError(f"{path} has no evaluation yet: leave it out, or go on with it by ddpg-jax resume")
    diverged = dict.fromkeys(record.seeds.tolist(), NEVER)
    for series in list(record.series.get("diverged", {}).values())[:1]:
        for step, seed in zip(series.step.tolist(), series.seed.tolist(), strict=True):
            diverged[seed] = min(diverged[seed], step)
    seconds = read_seconds(directory.timing)
    return Evaluations(
        source=str(path),
        task=str(_of(read_toml(directory.config), "env", "id")),
        steps=record.steps,
        seeds=tuple(map(str, record.seeds.tolist())),
        returns=np.nanmean(record.returns, 2),
        diverged=np.array([diverged[seed] for seed in record.seeds.tolist()]),
        seconds=np.array([seconds.get(step, np.nan) for step in record.steps.tolist()]),
        at_once=len(record.seeds),
        machine=_machine(directory),
    )


def _describe(path: Path) -> _Described:
    directory = RunDirectory.open(path)
    values = read_stored(directory.config)
    try:
        with allow_imports():  # of the modules that it names, which are not imported for this
            return _Described(path, values, resolve(values, {}, source=str(directory.config)))
    except ConfigError:
        return _Described(path, values, None)


def _names(runs: Sequence[_Described]) -> list[str]:
    """The name of each run's group."""
    fields: dict[str, dict[str, None]] = {}
    first: dict[tuple[str, str], _Described] = {}
    for run in runs:
        before = first.setdefault(run.kind, run)
        fields.setdefault(run.kind[1], {}).update(dict.fromkeys(_differing(before, run)))
    return [_name(run, list(fields[run.kind[1]])) for run in runs]


def _differing(before: _Described, after: _Described) -> list[str]:
    """The fields in which runs of one task and algorithm learn otherwise."""
    if before.config is not None and after.config is not None:
        changes = compare(before.config, after.config)
        return [change.path for change in changes if change.effect is not HARMLESS and change.path != "seeds"]
    flat = [_flat(run.values) for run in (before, after)]
    return [path for path in flat[0] | flat[1] if path != "seeds" and flat[0].get(path) != flat[1].get(path)]


def _name(run: _Described, fields: Sequence[str]) -> str:
    algorithm = run.kind[1]
    if len(fields) > _MOST_FIELDS:
        return f"{algorithm}, {run.path.name}"
    values = run.values if run.config is None else run.config.model_dump(mode="json")
    shown = [f"{path.rpartition('.')[2]} {show_setting(_of(values, *path.split('.')))}" for path in fields]
    return ", ".join([algorithm, *shown])


def _of(values: Mapping[str, Any], *path: str) -> Any:
    """What stands at a path; None: nothing."""
    node: Any = values
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        path: value
        for section, inner in values.items()
        for path, value in (
            {f"{section}.{name}": each for name, each in inner.items()}
            if isinstance(inner, Mapping)
            else {section: inner}
        ).items()
    }


def _machine(directory: RunDirectory) -> str:
    """On what a run ran, as its result says; empty where it has none."""
    try:
        result = directory.read_result() or {}
    except StorageError:
        return ""
    platform, version = _of(result, "device", "platform"), _of(result, "versions", "jax")
    kind = f"{_of(result, 'machine', 'cores')} cores" if platform == "cpu" else _of(result, "device", "kind")
    return f"{kind}, jax {version}" if kind and version else ""
