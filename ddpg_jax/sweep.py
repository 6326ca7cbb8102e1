"""A sweep run: every combination and seed a lane of one program, in turns where memory does not hold them all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tomli_w
from rich.console import Console

from ddpg_jax.config import Config
from ddpg_jax.envs.catalogue import chosen_loop
from ddpg_jax.envs.factory import device_env
from ddpg_jax.errors import ConfigError, EnvironmentFault
from ddpg_jax.grid import Group, Sweep
from ddpg_jax.loops.device import (
    Chunk,
    Compiled,
    compile_program,
    device_loop,
    free_bytes,
    lane_mesh,
    lane_rows,
    largest_fit,
    memory_bytes,
    padded,
    spread_over_cores,
)
from ddpg_jax.loops.schedule import is_due
from ddpg_jax.memory import human_bytes
from ddpg_jax.reading import dump_toml
from ddpg_jax.reports.plots import ranking
from ddpg_jax.reports.result import environment
from ddpg_jax.reports.statistics import bootstrap_interval, interquartile_mean
from ddpg_jax.rng import run_keys
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.metrics import JsonLines
from ddpg_jax.runs.progress import ProgressDisplay, Status, rates
from ddpg_jax.runs.signals import StopRequest
from ddpg_jax.types import Array, DeviceEnv, HostArray


class SweepRun(NamedTuple):
    """A finished sweep.

    Attributes:
      directory: where its files are: `sweep.toml`, `result.json`, `metrics.jsonl`, `ranking.png`, `best.toml`.
      result: what `result.json` holds.
    """

    directory: Path
    result: dict[str, Any]


class Turn(NamedTuple):
    """Lanes that run together.

    Attributes:
      config: of their structure.
      compiled: their programs, for L lanes.
      keys: `[L]`.
      hyper: numbers by path, each `[L]`.
      lanes: of each lane that counts, (combination, position of its seed); fewer than L in a last turn that is padded.
    """

    config: Config
    compiled: Compiled
    keys: Array
    hyper: dict[str, HostArray]
    lanes: tuple[tuple[int, int], ...]


def run_sweep(
    sweep: Sweep, run_dir: str | Path | None = None, *, overwrite: bool = False, console: Console | None = None
) -> SweepRun:
    """Trains every combination with every seed and ranks the combinations by their final evaluations.

    A lane whose numbers stop being finite is marked, ranks last, and does not disturb the others. The first
    Ctrl-C ends the sweep at the end of the chunk, with everything written up to there.

    Args:
      sweep: from `load_sweep`.
      run_dir: where its files go; None: a new directory under `runs/`.
      overwrite: whether the files of an earlier run there may be removed.
      console: where progress is shown; None: nowhere.

    Raises:
      ConfigError: the environment is not one written in JAX, or not even one lane fits into memory.
      EnvironmentFault: an environment cannot be made, or reported numbers that are not finite in every combination.
      StorageError: the directory cannot be used.
    """
    console = console or Console(quiet=True)
    for group in sweep.groups:
        if chosen_loop(group.config) != "device":
            raise ConfigError(
                f"a sweep runs environments written in JAX, as jax:pendulum; env.id={group.config.env.id!r} is not one"
            )
    name = f"{sweep.configs[0].env.id.rpartition(':')[-1]}_sweep"
    spread_over_cores()
    envs = [device_env(group.config) for group in sweep.groups]
    directory = RunDirectory.create(run_dir, name, overwrite=overwrite)
    directory.write_text(directory.path / "sweep.toml", tomli_w.dumps(sweep.source))
    board, began = _Board(sweep), time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(directory.own())
        record = stack.enter_context(closing(JsonLines(directory.metrics)))
        stop = stack.enter_context(StopRequest())
        turns = (turn for group, env in zip(sweep.groups, envs, strict=True) for turn in _turns(group, env, console))
        for turn in turns:
            if stop.requested:  # while it compiled
                break
            _run_turn(turn, board, record, console, stop)
    result: dict[str, Any] = {**board.result(), "seconds": time.perf_counter() - began, **environment()}
    _write(directory, sweep, result)
    if all(entry["faulty_seeds"] for entry in result["combinations"]):
        raise EnvironmentFault(
            f"env.id={sweep.configs[0].env.id!r}: observations or rewards were not finite, in every combination"
        )
    return SweepRun(directory.path, result)


def _write(directory: RunDirectory, sweep: Sweep, result: dict[str, Any]) -> None:
    """Writes the result, its picture, and the configuration of the best combination if all were run to their end."""
    directory.write_result(result)
    ranked = [each for each in result["combinations"] if each["interquartile_mean"] is not None]
    if ranked and result["complete"]:
        directory.write_text(directory.path / "best.toml", dump_toml(sweep.configs[ranked[0]["combination"]]))
    if ranked:
        title = f"{sweep.configs[0].env.id}, {len(sweep.combinations)} combinations"
        ranking(directory.path / "ranking.png", ranked, title)


def _turns(group: Group, env: DeviceEnv, console: Console) -> Iterator[Turn]:
    """The lanes of a group, as many at a time as fit; says beforehand what they take."""
    config, seeds = group.config, group.config.seed_list
    lanes = [(place, seed) for place in range(len(group.numbers)) for seed in range(len(seeds))]
    every_key = run_keys(seeds)

    def arguments(chosen: list[tuple[int, int]]) -> tuple[Array, dict[str, HostArray]]:
        places, positions = (np.array(column) for column in zip(*chosen, strict=True))
        return every_key[positions], {name: values[places] for name, values in group.hyper.items()}

    def compiled_for(count: int) -> tuple[Compiled, int]:
        """The programs of so many lanes, and how many lanes they are with the padding."""
        mesh = lane_mesh(count, config.data_parallel)
        size = padded(count, mesh)
        return compile_program(config, env, *arguments(padding(lanes[:count], size)), mesh), size

    def padding(chosen: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
        return chosen + chosen[-1:] * (size - len(chosen))

    console.print(f"{len(group.numbers)} combinations of one structure: compiling", highlight=False)
    compiled, size = compiled_for(len(lanes))
    fit = largest_fit(compiled, size)
    console.print(_memory_line(compiled, len(lanes), fit), highlight=False, soft_wrap=True)
    if fit < 1:
        raise ConfigError(
            f"one lane with replay.capacity={config.replay.capacity} needs {human_bytes(memory_bytes(compiled, 1))}, "
            f"{human_bytes(free_bytes(compiled.mesh))} are free"
        )
    if fit < len(lanes):
        compiled, size = compiled_for(fit)
    for first in range(0, len(lanes), size):
        chosen = lanes[first : first + size]
        real = tuple((group.numbers[place], seed) for place, seed in chosen)
        yield Turn(config, compiled, *arguments(padding(chosen, size)), real)


def _memory_line(compiled: Compiled, lanes: int, fit: int) -> str:
    parts = ", ".join(f"{name} {human_bytes(size)}" for name, size in compiled.lane_bytes.items())
    how = "all at once" if fit >= lanes else f"so they run in {-(-lanes // max(fit, 1))} turns"
    return (
        f"{lanes} lanes of {human_bytes(sum(compiled.lane_bytes.values()))} each ({parts}), program "
        f"{human_bytes(compiled.program_bytes)}; at most {fit} fit into the {human_bytes(free_bytes(compiled.mesh))} "
        f"that are free: {how}"
    )


def _run_turn(turn: Turn, board: _Board, record: JsonLines, console: Console, stop: StopRequest) -> None:
    """Trains the lanes of a turn, to the end of a chunk where a stop is requested."""
    config = turn.config
    keys, hyper = turn.compiled.place((turn.keys, turn.hyper))
    last: Chunk | None = None
    with ProgressDisplay(console, config.total_steps, len(turn.lanes)) as progress:
        for chunk in device_loop(config, turn.compiled, keys, hyper):
            stopping, rows = stop.requested, list[dict[str, Any]]()
            board.note(turn, chunk)
            for i, (number, seed) in enumerate(turn.lanes):
                rows += [{"combination": number, **row} for row in lane_rows(chunk, i, config.seed_list[seed])]
            ends = chunk.step >= config.total_steps or stopping
            if ends or is_due(chunk.step, config.evaluation.every, config.env.num_envs):
                returns = np.asarray(turn.compiled.evaluate(chunk.learner, hyper).returns)
                rows += board.evaluated(turn, chunk.step, returns)
            record.write([row for row in rows if _is_finite(row)])
            progress.show(Status(chunk.step, _rates(chunk, last, len(turn.lanes)), None, board.median(turn)))
            last = chunk
            if stopping:
                break


def _rates(chunk: Chunk, last: Chunk | None, lanes: int) -> dict[str, float]:
    step, updates, seconds = (0, 0, 0.0) if last is None else (last.step, last.updates, last.seconds)
    return rates(chunk.step - step, chunk.updates - updates, chunk.seconds - seconds, lanes)


def _is_finite(row: dict[str, Any]) -> bool:
    return all(np.isfinite(value) for value in row.values() if isinstance(value, float))


def _score(entry: dict[str, Any]) -> float:
    return -np.inf if entry["interquartile_mean"] is None else entry["interquartile_mean"]


class _Board:
    """The final evaluations of all lanes as they come in, and which lanes have diverged."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._seeds = sweep.configs[0].seed_list
        shape = len(sweep.combinations), len(self._seeds)
        self._mean = np.full(shape, np.nan)
        self._step = np.zeros(shape, np.int64)
        self._diverged = np.zeros(shape, bool)
        self._faulty = np.zeros(shape, bool)

    def note(self, turn: Turn, chunk: Chunk) -> None:
        """Marks the lanes whose environment reported a number that is not finite, or that are frozen."""
        rejected = np.asarray(chunk.learner.rejected)
        for i, lane in enumerate(turn.lanes):
            self._faulty[lane] |= bool(chunk.totals.faults[i]) and not self._diverged[lane]
            limit = self._sweep.configs[lane[0]].algorithm.max_rejected
            self._diverged[lane] |= bool(rejected[i].max() >= limit) and not self._faulty[lane]

    def evaluated(self, turn: Turn, step: int, returns: HostArray) -> list[dict[str, Any]]:
        """Notes an evaluation `[L, episodes]` and returns its rows, of the lanes that have not diverged."""
        rows: list[dict[str, Any]] = []
        for lane, each in zip(turn.lanes, returns, strict=False):
            self._diverged[lane] |= not np.isfinite(each).all() and not self._faulty[lane]
            lost = self._diverged[lane] or self._faulty[lane]
            self._mean[lane] = np.nan if lost else each.mean()
            self._step[lane] = step
            if not lost:
                where = {"combination": lane[0], "event": "evaluation", "seed": self._seeds[lane[1]], "step": step}
                rows.append({**where, "mean_return": float(each.mean()), "returns": each.tolist()})
        return rows

    def median(self, turn: Turn) -> float | None:
        """The median of the last evaluations of a turn's lanes."""
        means = np.array([self._mean[lane] for lane in turn.lanes])
        return float(np.median(means[np.isfinite(means)])) if np.isfinite(means).any() else None

    def result(self) -> dict[str, Any]:
        """The combinations: those run to their end first, the best on top, those without a finite evaluation last."""
        entries = [self._entry(i) for i in range(len(self._mean))]
        ended = {i: entry["step"] >= self._sweep.configs[i].total_steps for i, entry in enumerate(entries)}
        entries.sort(key=lambda entry: (ended[entry["combination"]], _score(entry)), reverse=True)
        complete = all(ended.values())
        env = self._sweep.configs[0].env.id
        return {"env": env, "seeds": list(self._seeds), "complete": complete, "combinations": entries}

    def _entry(self, number: int) -> dict[str, Any]:
        means = self._mean[number]
        whole = bool(np.isfinite(means).all())
        return {
            "combination": number,
            "values": self._sweep.combinations[number],
            "step": int(self._step[number].min()),
            "interquartile_mean": float(interquartile_mean(means)) if whole else None,
            "interval": bootstrap_interval(means) if whole else None,
            "per_seed": [float(mean) if np.isfinite(mean) else None for mean in means],
            "diverged_seeds": int(self._diverged[number].sum()),
            "faulty_seeds": int(self._faulty[number].sum()),
        }
