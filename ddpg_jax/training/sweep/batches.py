"""The turns of a sweep: its lanes by structure, as many side by side as fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ddpg_jax.config.schema import Config
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
from ddpg_jax.training.sweep.grid import Group
from ddpg_jax.types import Array, DeviceEnv, HostArray, StopFn, never_stop
from ddpg_jax.xla.memory import human_bytes

Lane = tuple[int, int]
"""A combination and the position of a seed."""


class SweepPosition(NamedTuple):
    """Which turn of a sweep.

    Attributes:
      group: number of its structure.
      first: its first lane, among those of the group.
      lanes: how many each turn of the group has, but for the last, which may have fewer; 0: not settled yet.
    """

    group: int
    first: int
    lanes: int


class LaneBatch(NamedTuple):
    """Lanes that run together.

    Attributes:
      position: which turn.
      ends: whether it is the last of the sweep.
      config: of their structure.
      compiled: their programs, for L lanes.
      keys: `[L]`.
      hyper: numbers by path, each `[L]`.
      lanes: those that count; fewer than L where there is padding, which is the last of them again.
    """

    position: SweepPosition
    ends: bool
    config: Config
    compiled: Compiled
    keys: Array
    hyper: dict[str, HostArray]
    lanes: tuple[Lane, ...]


def lane_batches(
    groups: Sequence[Group],
    envs: Sequence[DeviceEnv],
    show: Callable[[str], None],
    begun: SweepPosition | None = None,
    stop: StopFn = never_stop,
    together: int = 0,
) -> Iterator[LaneBatch]:
    """The turns of a sweep; each is compiled when it is asked for, and what its lanes take is said beforehand.

    Args:
      groups: of the sweep.
      envs: of each group.
      show: prints a line, of what that is.
      begun: a turn to begin with; the group's turns are divided as they were then. Groups before it are passed over.
      stop: asked while a turn is compiled.
      together: lanes that must fit into memory, as those of a population may not run in turns; 0: one.

    Raises:
      ConfigError: not even one lane fits into memory, or not so many as in the turn to begin with.
      Interrupted: `stop` said so.
    """
    for number in range(0 if begun is None else begun.group, len(groups)):
        here = begun if begun is not None and begun.group == number and begun.lanes else None
        for batch in _of_group(number, groups[number], envs[number], show, here, stop, together):
            yield batch._replace(ends=batch.ends and number == len(groups) - 1)


def _of_group(
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
        many = f"a population, {least} lanes with those in copying," if together else f"a turn of {least} lanes"
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
        yield LaneBatch(
            SweepPosition(number, start, count), ends, config, compiled, *arguments(padding(chosen, size)), lanes=real
        )


def _memory_line(compiled: Compiled, lanes: int, fit: int) -> str:
    parts = ", ".join(f"{name} {human_bytes(size)}" for name, size in compiled.lane_bytes.items())
    how = "all at once" if fit >= lanes else f"so they run in {-(-lanes // max(fit, 1))} turns"
    return (
        f"{lanes} lanes of {human_bytes(sum(compiled.lane_bytes.values()))} each ({parts}), program "
        f"{human_bytes(compiled.program_bytes)}; at most {fit} fit into the {human_bytes(free_bytes(compiled.mesh))} "
        f"that are free: {how}"
    )
