"""The turns of a sweep on the host loop: gymnasium environments of all lanes around one update of all lanes.

A lane is a seed with numbers of its own, which enter the program as arguments: so settings of one structure share one
program, and compile once. What a lane draws, stores and sees depends on its seed as in a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from math import prod

import numpy as np

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.agents.recurrent import carry_size
from ddpg_jax.config.schema import Config
from ddpg_jax.envs.factory import open_goal_task
from ddpg_jax.errors import ConfigError
from ddpg_jax.replay.factory import make_ring, wants_goals
from ddpg_jax.training.factory import start_host
from ddpg_jax.training.forecast import check_forecast
from ddpg_jax.training.report import Loop, Report, SnapshotFn
from ddpg_jax.training.sweep.grid import Group
from ddpg_jax.training.sweep.lanes import Evolution, Lane, LaneBatch, LaneLoop, LaneReport, SweepPosition
from ddpg_jax.types import EnvSpec, HostArray, Row, Snapshot, StopFn


def host_batches(
    number: int, group: Group, spec: EnvSpec, show: Callable[[str], None], begun: SweepPosition | None, stop: StopFn
) -> Iterator[LaneBatch]:
    """The turns of a group on the host loop; arguments as in `batches.lane_batches`.

    Args:
      number: of the group.
      group: settings of one structure.
      spec: what its environments look like.
      show: prints a line, of how the lanes are divided.
      begun: a turn to begin with.
      stop: asked while programs are compiled, and environments made and stepped.

    Raises:
      ConfigError: not even one lane fits into memory.
    """
    seeds = group.config.seed_list
    lanes = [(place, seed) for place in range(len(group.numbers)) for seed in range(len(seeds))]
    first, size = (0, most_lanes(group.config, spec, len(lanes))) if begun is None else (begun.first, begun.lanes)
    turns = f"in {-(-len(lanes) // size)} turns" if size < len(lanes) else "all at once"
    show(f"{len(group.numbers)} combinations of one structure, {len(lanes)} lanes: {turns}")
    for start in range(first, len(lanes), size):
        chosen = lanes[start : start + size]
        places = np.array([place for place, _ in chosen])
        config = _with_seeds(group.config, tuple(seeds[seed] for _, seed in chosen))
        hyper = {path: numbers[places] for path, numbers in group.hyper.items()}
        real = tuple((group.numbers[place], seed) for place, seed in chosen)
        begin = partial(_begin, config, hyper, real, seeds, stop)
        position, ends = SweepPosition(number, start, size), start + size >= len(lanes)
        yield LaneBatch(position, ends, group.config, real, begin, len(real))


def most_lanes(config: Config, spec: EnvSpec, count: int) -> int:
    """How many of so many lanes run side by side: all, or equal parts that fit into memory and `env.max_instances`.

    Raises:
      ConfigError: not even one does.
    """
    most = config.env.max_instances
    for turns in range(1, count + 1):
        size = -(-count // turns)
        if most is not None and 1 < size * config.env.num_envs > most:
            continue
        try:
            _check_room(_with_seeds(config, (0,) * size), spec)
        except ConfigError:
            if size == 1:
                raise
        else:
            return size
    raise ConfigError(f"env.max_instances={most} leaves no lane its {config.env.num_envs} environments")


def _check_room(config: Config, spec: EnvSpec) -> None:
    """Refuses lanes that do not fit into memory."""
    check_forecast(config, prod(spec.obs_shape), spec.action_size)
    with ExitStack() as stack:
        goals = stack.enter_context(open_goal_task(config)) if wants_goals(config) else None
        make_ring(config, spec, goals, carry_size(make_agent(config, spec)))


def _with_seeds(config: Config, seeds: tuple[int, ...]) -> Config:
    return config.model_copy(update={"seeds": seeds})


def _begin(
    config: Config,
    hyper: dict[str, HostArray],
    lanes: tuple[Lane, ...],
    seeds: tuple[int, ...],
    stop: StopFn,
    stack: ExitStack,
    snapshot: Snapshot | None,
    should_snapshot: SnapshotFn,
    evolution: Evolution | None,
) -> LaneLoop:
    del evolution  # of populations, which `refuse_population` keeps away from here
    judging = [stop]
    loop = start_host(
        config, stack, snapshot, should_snapshot, stop=stop, hyper=hyper, stop_evaluation=lambda: judging[-1]()
    )
    step = 0 if snapshot is None else int(snapshot.arrays["iteration"]) * config.env.num_envs
    updates = 0 if snapshot is None else int(snapshot.arrays["meter/counters"][0])
    told = (_tell(loop, report, lanes, seeds, judging) for report in loop.reports)
    return LaneLoop(step, updates, told, loop.restarted_episodes, loop.doubts)


def _tell(
    loop: Loop, report: Report, lanes: tuple[Lane, ...], seeds: tuple[int, ...], judging: list[StopFn]
) -> LaneReport:
    """A report of the loop as one of the sweep; environments of the host that fail end the loop."""

    def evaluate(stop: StopFn) -> HostArray:
        judging[:] = [stop]
        return loop.evaluate(report.state).returns

    rows = [row if "combination" in row else _named(row, lanes, seeds) for row in report.rows]
    return LaneReport(report._replace(rows=rows), np.zeros(len(lanes), bool), evaluate)


def _named(row: Row, lanes: tuple[Lane, ...], seeds: tuple[int, ...]) -> Row:
    """A row that names its lane by combination and seed; the loop counts lanes. One that was kept has it already."""
    number, seed = lanes[int(row["seed"])]
    return {"combination": number, **row, "seed": seeds[seed]}
