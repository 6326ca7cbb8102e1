"""A sweep run: every combination and seed a lane of one program, in turns where memory does not hold them all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from ddpg_jax.config import Config
from ddpg_jax.envs.catalogue import chosen_loop, make_device_env
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
from ddpg_jax.runs.progress import ProgressDisplay, Status
from ddpg_jax.runs.signals import StopRequest
from ddpg_jax.types import Array, HostArray


class SweepRun(NamedTuple):
    """A finished sweep.

    Attributes:
      directory: where its files are: `result.json`, `metrics.jsonl`, `ranking.png`, `best.toml`.
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

    A lane whose numbers stop being finite is marked as diverged, ranks last, and does not disturb the others. The first
    Ctrl-C ends the sweep at the end of the chunk, with everything written up to there.

    Args:
      sweep: from `load_sweep`.
      run_dir: where its files go; None: a new directory under `runs/`.
      overwrite: whether the files of an earlier run there may be removed.
      console: where progress is shown; None: nowhere.

    Raises:
      ConfigError: the environment is not one written in JAX, or not even one lane fits into memory.
      EnvironmentFault: an environment cannot be made, or reported a number that is not finite.
      StorageError: the directory cannot be used.
    """
    console = console or Console(quiet=True)
    for group in sweep.groups:
        if chosen_loop(group.config) != "device":
            raise ConfigError(
                f"a sweep runs environments written in JAX, as jax:pendulum; env.id={group.config.env.id!r} is not one"
            )
    name = f"{sweep.configs[0].env.id.rpartition(':')[-1]}_sweep"
    directory = RunDirectory.create(run_dir, name, overwrite=overwrite)
    board, began = _Board(sweep), time.perf_counter()
    with ExitStack() as stack:
        record = stack.enter_context(closing(JsonLines(directory.metrics)))
        stop = stack.enter_context(StopRequest())
        for i, group in enumerate(sweep.groups):
            console.print(f"group {i + 1} of {len(sweep.groups)}: compiling", highlight=False)
            for turn in _turns(group, console):
                _run_turn(turn, board, record, console, stop)
                if stop.requested:
                    break
            if stop.requested:
                break
    result: dict[str, Any] = {**board.result(), "seconds": time.perf_counter() - began, **environment()}
    directory.write_result(result)
    ranked = [each for each in result["combinations"] if each["interquartile_mean"] is not None]
    if ranked:
        best = sweep.configs[ranked[0]["number"]]
        directory.write_text(directory.path / "best.toml", dump_toml(best))
    title = f"{sweep.configs[0].env.id}, {len(sweep.combinations)} combinations"
    ranking(directory.path / "ranking.png", ranked, title)
    return SweepRun(directory.path, result)


def _turns(group: Group, console: Console) -> Iterator[Turn]:
    """The lanes of a group, as many at a time as fit; says beforehand what they take."""
    config, seeds = group.config, group.config.seed_list
    env = make_device_env(config.env.id, config.env.max_episode_steps, config.env.kwargs)
    lanes = [(place, seed) for place in range(len(group.numbers)) for seed in range(len(seeds))]
    every_key = run_keys(seeds)

    def arguments(chosen: list[tuple[int, int]]) -> tuple[Array, dict[str, HostArray]]:
        places, positions = (np.array(column) for column in zip(*chosen, strict=True))
        return every_key[positions], {name: values[places] for name, values in group.hyper.items()}

    def compiled_for(count: int) -> Compiled:
        keys, hyper = arguments(lanes[:count])
        return compile_program(config, env, keys, hyper, lane_mesh(count, config.data_parallel))

    compiled, size = compiled_for(len(lanes)), len(lanes)
    fit = largest_fit(compiled, len(lanes))
    console.print(_memory_line(compiled, len(lanes), fit), highlight=False, soft_wrap=True)
    if fit < 1:
        raise ConfigError(
            f"one lane with replay.capacity={config.replay.capacity} needs {human_bytes(memory_bytes(compiled, 1))}, "
            f"{human_bytes(free_bytes(compiled.mesh))} are free"
        )
    if fit < len(lanes):
        turns = -(-len(lanes) // fit)
        size = -(-len(lanes) // turns)
        compiled = compiled_for(size)
    for first in range(0, len(lanes), size):
        chosen = lanes[first : first + size]
        padded = chosen + [chosen[-1]] * (size - len(chosen))
        real = tuple((group.numbers[place], seed) for place, seed in chosen)
        yield Turn(config, compiled, *arguments(padded), real)


def _memory_line(compiled: Compiled, lanes: int, fit: int) -> str:
    parts = ", ".join(f"{name} {human_bytes(size)}" for name, size in compiled.lane_bytes.items())
    turns = -(-lanes // max(fit, 1))
    how = "all at once" if turns == 1 else f"so they run in {turns} turns"
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
                rows += [{"lane": number, **row} for row in lane_rows(chunk, i, config.seed_list[seed])]
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
    spent = chunk.seconds - seconds
    return {
        "env_steps_per_second": (chunk.step - step) * lanes / spent,
        "updates_per_second": (chunk.updates - updates) * lanes / spent,
    }


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

    def note(self, turn: Turn, chunk: Chunk) -> None:
        """Marks the lanes whose metrics are not finite.

        Raises:
          EnvironmentFault: an environment reported a number that is not finite to a lane whose metrics are.
        """
        finite = [bool(np.isfinite(metrics).all()) for metrics in chunk.totals.metrics]
        for i, lane in enumerate(turn.lanes):
            self._diverged[lane] |= not finite[i]
            if chunk.totals.faults[i] and not self._diverged[lane]:
                raise EnvironmentFault(
                    f"env.id={turn.config.env.id!r}, lane {lane[0]}, seed {self._seeds[lane[1]]}: an observation or a "
                    f"reward was not finite before step {chunk.step}"
                )

    def evaluated(self, turn: Turn, step: int, returns: HostArray) -> list[dict[str, Any]]:
        """Notes an evaluation `[L, episodes]` and returns its rows, of the lanes that have not diverged."""
        rows: list[dict[str, Any]] = []
        for lane, each in zip(turn.lanes, returns, strict=False):
            self._diverged[lane] |= not np.isfinite(each).all()
            self._mean[lane] = np.nan if self._diverged[lane] else each.mean()
            self._step[lane] = step
            if not self._diverged[lane]:
                where = {"lane": lane[0], "event": "evaluation", "seed": self._seeds[lane[1]], "step": step}
                rows.append({**where, "mean_return": float(each.mean()), "returns": each.tolist()})
        return rows

    def median(self, turn: Turn) -> float | None:
        """The median of the last evaluations of a turn's lanes."""
        means = np.array([self._mean[lane] for lane in turn.lanes])
        return float(np.median(means[np.isfinite(means)])) if np.isfinite(means).any() else None

    def result(self) -> dict[str, Any]:
        """The combinations, best first; those without a finite evaluation of every seed come last, with none."""
        entries = [self._entry(i) for i in range(len(self._mean))]
        entries.sort(key=_score, reverse=True)
        complete = all(entry["step"] >= self._sweep.configs[entry["number"]].total_steps for entry in entries)
        env = self._sweep.configs[0].env.id
        return {"env": env, "seeds": list(self._seeds), "complete": complete, "combinations": entries}

    def _entry(self, number: int) -> dict[str, Any]:
        means = self._mean[number]
        whole = bool(np.isfinite(means).all())
        return {
            "number": number,
            "values": self._sweep.combinations[number],
            "step": int(self._step[number].min()),
            "interquartile_mean": float(interquartile_mean(means)) if whole else None,
            "interval": bootstrap_interval(means) if whole else None,
            "per_seed": [float(mean) if np.isfinite(mean) else None for mean in means],
            "diverged_seeds": int(self._diverged[number].sum()),
        }
