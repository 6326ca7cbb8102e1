"""The turns of a sweep: its lanes by structure, as many side by side as fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain

import numpy as np

from ddpg_jax.config.schema import Config
from ddpg_jax.envs.device.rollout import fetch
from ddpg_jax.errors import ConfigError
from ddpg_jax.rng import run_keys
from ddpg_jax.training.device.compile import (
    Compiled,
    compile_program,
    free_bytes,
    lane_mesh,
    largest_fit,
    memory_bytes,
    round_up_lanes,
)
from ddpg_jax.training.device.loop import Chunk, device_loop, lane_rows
from ddpg_jax.training.device.snapshot import DeviceCarry, restore, snapshot
from ddpg_jax.training.report import Report, SnapshotFn, keep_init
from ddpg_jax.training.sweep.grid import Group
from ddpg_jax.training.sweep.host_lanes import host_batches
from ddpg_jax.training.sweep.lanes import Evolution, Lane, LaneBatch, LaneLoop, LaneReport, SweepPosition
from ddpg_jax.types import (
    Array,
    DeviceEnv,
    EnvSpec,
    Evaluation,
    HostArray,
    Row,
    Snapshot,
    StopFn,
    Tree,
    never_stop,
)
from ddpg_jax.xla.memory import human_bytes


def lane_batches(
    groups: Sequence[Group],
    envs: Sequence[DeviceEnv | EnvSpec],
    show: Callable[[str], None],
    begun: SweepPosition | None = None,
    stop: StopFn = never_stop,
    together: int = 0,
) -> Iterator[LaneBatch]:
    """The turns of a sweep; each is compiled when it is asked for, and what its lanes take is said beforehand.

    Args:
      groups: of the sweep.
      envs: of each group; on the host loop, what they look like.
      show: prints a line, of what that is.
      begun: a turn to begin with; the group's turns are divided as they were then. Groups before it are passed over.
      stop: asked while a turn is compiled.
      together: lanes that must fit into memory, as those of a population may not run in turns, nor may those that are
        stopped at a step; 0: one.

    Raises:
      ConfigError: not even one lane fits into memory, or not so many as in the turn to begin with.
      Interrupted: `stop` said so.
    """
    for number in range(0 if begun is None else begun.group, len(groups)):
        here = begun if begun is not None and begun.group == number and begun.lanes else None
        group, env = groups[number], envs[number]
        of_group = (
            _device_batches(number, group, env, show, here, stop, together)
            if isinstance(env, DeviceEnv)
            else host_batches(number, group, env, show, here, stop)
        )
        for batch in of_group:
            yield batch._replace(ends=batch.ends and number == len(groups) - 1)


def _device_batches(
    number: int,
    group: Group,
    env: DeviceEnv,
    show: Callable[[str], None],
    begun: SweepPosition | None,
    stop: StopFn,
    together: int,
) -> Iterator[LaneBatch]:
    config, seeds = group.config, group.config.seed_list
    lanes = [(place, seed) for place in range(len(group.numbers)) for seed in range(len(seeds))]
    every_key = run_keys(seeds)

    def arguments(chosen: list[Lane]) -> tuple[Array, dict[str, HostArray]]:
        places, positions = (np.array(column) for column in zip(*chosen, strict=True))
        return every_key[positions], {name: values[places] for name, values in group.hyper.items()}

    def compiled_for(count: int) -> tuple[Compiled, int]:
        """The programs of so many lanes, and how many lanes they are with the padding."""
        mesh = lane_mesh(count, config.data_parallel)
        size = round_up_lanes(count, mesh)
        return compile_program(config, env, *arguments(padding(lanes[:count], size)), mesh, stop), size

    def padding(chosen: list[Lane], size: int) -> list[Lane]:
        return chosen + chosen[-1:] * (size - len(chosen))

    show(f"{len(group.numbers)} combinations of one structure: compiling")
    compiled, size = compiled_for(len(lanes) if begun is None else begun.lanes)
    fit = largest_fit(compiled, size)
    least = max(together, 1 if begun is None else begun.lanes)
    show(_memory_line(compiled, len(lanes), fit))
    if fit < least:
        many = f"{least} lanes that may not run in turns," if together else f"a turn of {least} lanes"
        raise ConfigError(
            f"{'one lane' if least == 1 else many} with replay.capacity={config.replay.capacity} "
            f"needs {human_bytes(memory_bytes(compiled, least))}, {human_bytes(free_bytes(compiled.mesh))} are free"
        )
    if begun is None and fit < len(lanes):
        compiled, size = compiled_for(fit)
    first, count = (0, size) if begun is None else begun[1:]
    for start in range(first, len(lanes), count):
        chosen = lanes[start : start + count]
        real = tuple((group.numbers[place], seed) for place, seed in chosen)
        ends = start + count >= len(lanes)
        begin = partial(_begin, config, compiled, *arguments(padding(chosen, size)), real)
        yield LaneBatch(SweepPosition(number, start, count), ends, config, real, begin, size)


def _begin(
    config: Config,
    compiled: Compiled,
    keys: Array,
    hyper: dict[str, HostArray],
    lanes: tuple[Lane, ...],
    stack: ExitStack,
    begun_at: Snapshot | None,
    should_snapshot: SnapshotFn,
    evolution: Evolution | None,
) -> LaneLoop:
    evolution = evolution or Evolution(lambda: hyper, lambda step: None)

    def numbers() -> dict[str, Array]:
        return compiled.shard(evolution.hyper())

    keys = compiled.shard(keys)
    begun = keep_init if begun_at is None else restore(compiled, begun_at, len(lanes))
    between = partial(_exploit, config, compiled, evolution, numbers)
    chunks = device_loop(config, compiled, keys, numbers(), begun, should_snapshot, between)
    tell = partial(_tell, config, compiled, numbers, lanes)
    if not isinstance(begun, DeviceCarry):
        return LaneLoop(0, 0, map(tell, chunks))
    step, unrecorded = begun.iteration * config.env.num_envs, None if begun_at is None else begun_at.unrecorded
    again = Chunk(step, begun.updates, begun.totals, 0.0, begun, True)
    kept = [] if unrecorded is None else [tell(again, unrecorded)]
    return LaneLoop(step, begun.updates, chain(kept, map(tell, chunks)))


def _exploit(
    config: Config,
    compiled: Compiled,
    evolution: Evolution,
    numbers: Callable[[], dict[str, Array]],
    carry: DeviceCarry,
    hyper: Tree,
) -> tuple[DeviceCarry, Tree]:
    """Has lanes go on from others where that is due, with their numbers changed; a `BetweenFn`."""
    copies = evolution.exploit(carry.iteration * config.env.num_envs)
    if copies is None:
        return carry, hyper
    lane = compiled.copy(carry.lane, copies.children, copies.parents, whole=evolution.whole)
    return carry._replace(lane=lane), numbers()


def _tell(
    config: Config,
    compiled: Compiled,
    numbers: Callable[[], dict[str, Array]],
    lanes: tuple[Lane, ...],
    chunk: Chunk,
    rows: list[Row] | None = None,
) -> LaneReport:
    """A chunk of the loop as a report of the sweep; with the rows of one that was not recorded."""

    def evaluate(stop: StopFn) -> HostArray:
        return Evaluation(*fetch(partial(compiled.evaluate, chunk.learner, numbers()), stop)).returns

    kept = partial(snapshot, chunk.carry, compiled.replay, len(lanes), {})
    told = _rows(config, lanes, chunk) if rows is None else rows
    seconds = {"device": chunk.seconds}
    report = Report(chunk.step, chunk.updates, told, seconds, chunk.learner, kept, chunk.due)
    return LaneReport(report, np.asarray(chunk.totals.faults)[: len(lanes)] > 0, evaluate)


def _rows(config: Config, lanes: tuple[Lane, ...], chunk: Chunk) -> list[Row]:
    """What the lanes did in a chunk that is at its end, as lines of the record; none in its midst."""
    return [
        {"combination": number, **row}
        for i, (number, seed) in enumerate(lanes if chunk.due else ())
        for row in lane_rows(chunk, i, config.seed_list[seed])
    ]


def _memory_line(compiled: Compiled, lanes: int, fit: int) -> str:
    parts = ", ".join(f"{name} {human_bytes(size)}" for name, size in compiled.lane_bytes.items())
    how = "all at once" if fit >= lanes else f"so they run in {-(-lanes // max(fit, 1))} turns"
    return (
        f"{lanes} lanes of {human_bytes(sum(compiled.lane_bytes.values()))} each ({parts}), program "
        f"{human_bytes(compiled.program_bytes)}; at most {fit} fit into the {human_bytes(free_bytes(compiled.mesh))} "
        f"that are free: {how}"
    )
