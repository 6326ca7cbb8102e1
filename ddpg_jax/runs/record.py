"""The record of a run as arrays: its evaluations, and every series that was logged.

Of the record, `metrics.jsonl`, lines are read as they stand; a last line that was cut off, as a run ended in the middle
of it, is not one. Nothing here imports jax.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.types import HostArray

_WHERE = frozenset({"event", "seed", "step"})


class HasDirectory(Protocol):
    """What `train` returns, and anything else that has a run's directory."""

    @property
    def directory(self) -> Path:
        """Where the files of the run are."""
        ...


class Series(NamedTuple):
    """The values of one name, in the order in which they were logged; seeds may have logged at other steps.

    Attributes:
      step: environment steps of the seed, int64 `[K]`.
      seed: which seed, int64 `[K]`.
      value: what was logged, float64 `[K]`.
    """

    step: HostArray
    seed: HostArray
    value: HostArray


class Record(NamedTuple):
    """What a run has recorded.

    Attributes:
      steps: environment steps of each seed at the evaluations, int64 `[N]`.
      seeds: the seeds, int64 `[S]`.
      returns: of each evaluation, seed and episode, float64 `[N, S, episodes]`; NaN where an evaluation has fewer
        episodes than another.
      series: every number that was logged, by event and name: `series["update"]["critic_loss"]`.
    """

    steps: HostArray
    seeds: HostArray
    returns: HostArray
    series: dict[str, dict[str, Series]]


def load_record(run: str | Path | HasDirectory, events: Collection[str] | None = None) -> Record:
    """Reads the record of a run, finished, going on or interrupted.

    Args:
      run: directory of a run, or what `train` returned.
      events: only rows of these events, which is faster; None: all. Without "evaluation" there are no returns.

    Returns:
      Its arrays. An evaluation that is not there for every seed, as the run ended while it was written, is left out.

    Raises:
      StorageError: there is no run, or a line of its record is none.
    """
    directory = RunDirectory.open(run if isinstance(run, str | Path) else run.directory)
    if filesystem.identity(directory.metrics) is None:
        raise StorageError(f"{directory.metrics} is not there: the run has recorded nothing yet")
    returns: dict[int, dict[int, list[float]]] = {}
    logged: dict[str, dict[str, tuple[list[int], list[int], list[float]]]] = {}
    seen: dict[int, None] = {}
    for row in read_rows(directory.metrics, events):
        event, seed, step = row["event"], row["seed"], row["step"]
        seen[seed] = None
        if event == "evaluation":
            returns.setdefault(step, {})[seed] = row["returns"]
        series = logged.setdefault(event, {})
        for name, value in row.items():
            if name not in _WHERE and isinstance(value, int | float):
                steps, of_seeds, values = series.setdefault(name, ([], [], []))
                steps.append(step)
                of_seeds.append(seed)
                values.append(value)
    seeds = list(seen)
    whole = {step: found for step, found in returns.items() if len(found) == len(seeds)}
    return Record(
        np.array(list(whole), np.int64),
        np.array(seeds, np.int64),
        _stack([[found[seed] for seed in seeds] for found in whole.values()], len(seeds)),
        {event: {name: _series(*columns) for name, columns in found.items()} for event, found in logged.items()},
    )


def read_rows(path: Path, events: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a record, one after the other, each with event, seed and step.

    Args:
      path: a file of JSON lines.
      events: only rows of these; None: all.

    Raises:
      StorageError: the file cannot be read, or a line that was not cut off is no row.
    """
    names = None if events is None else [json.dumps(event).encode() for event in events]
    try:
        for number, line in enumerate(_lines(path), 1):
            if names is not None and not any(name in line for name in names):
                continue
            row = _row(line, f"{path}, line {number}")
            if events is None or row["event"] in events:
                yield row
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error


def read_seconds(path: Path) -> dict[int, float]:
    """The seconds that a run had taken at each step that its `timing.jsonl` tells; lines that are none are passed over.

    Raises:
      StorageError: the file cannot be read.
    """
    seconds: dict[int, float] = {}
    try:
        for line in _lines(path) if filesystem.identity(path) is not None else ():
            try:
                row = json.loads(line)
                seconds[int(row["step"])] = float(row["seconds"])
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    return seconds


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that have an end."""
    rest = b""
    for piece in filesystem.read_pieces(path):
        *lines, rest = (rest + bytes(piece)).split(b"\n")
        yield from lines


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{where}: is no row of a record: {printable(error)[:200]}") from error
    numbers = [row.get(name) for name in ("seed", "step")] if isinstance(row, dict) else []
    fits = bool(numbers) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    if not fits or not isinstance(row.get("event"), str):
        raise StorageError(f"{where}: is no row of a record: it needs event, seed and step")
    if row["event"] == "evaluation" and not _is_returns(row.get("returns")):
        raise StorageError(f"{where}: is no evaluation: returns must be a list of numbers")
    return row


def _is_returns(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(type(value) in (int, float) for value in values)


def _stack(returns: list[list[list[float]]], num_seeds: int) -> HostArray:
    """Returns as one array, of as many episodes as the evaluation that has most."""
    episodes = max((len(each) for found in returns for each in found), default=0)
    stacked = np.full((len(returns), num_seeds, episodes), np.nan)
    for n, found in enumerate(returns):
        for s, each in enumerate(found):
            stacked[n, s, : len(each)] = each
    return stacked


def _series(steps: list[int], seeds: list[int], values: list[float]) -> Series:
    return Series(np.array(steps, np.int64), np.array(seeds, np.int64), np.array(values, np.float64))
