"""The device loop: chunks of one compiled program for all lanes, with reports between them.

A lane is a seed, or a seed with numbers of its own where a sweep asks for it. Lanes are added by `vmap` and divided
over the local devices; nothing leaves a device between two reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import jax
import numpy as np

from ddpg_jax.errors import EnvironmentFault, NotFiniteError
from ddpg_jax.replay.device.ring import DeviceReplay
from ddpg_jax.rng import run_keys, stream_key
from ddpg_jax.training.device.carry import Totals
from ddpg_jax.training.device.compile import Compiled
from ddpg_jax.training.device.snapshot import DeviceCarry, snapshot
from ddpg_jax.training.report import DIAGNOSTICS, METRICS, InitFn, Report, SnapshotFn, keep_init, no_snapshots
from ddpg_jax.training.schedule import chunks, is_boundary, updates_per_call
from ddpg_jax.types import Array, Batch, Row, TrainState, Tree

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config


CANDIDATES = 20
"""Batches that are looked at for one that a diverged seed cannot learn from."""

PIECE_SECONDS = 1.0
"""How long the program runs at most, about, before the loop looks up."""

FIRST_PIECE = 64
"""Iterations of the first piece; the length of the others is found by doubling."""


class Chunk(NamedTuple):
    """The state of all lanes between two chunks.

    Attributes:
      step: environment steps of each lane so far.
      updates: critic updates of each lane so far.
      totals: sums over the iterations of the chunk, NumPy arrays `[L]`.
      seconds: spent on the device so far.
      carry: all that the loop carries. Use it before the loop goes on: its buffers are donated then.
      due: whether the chunk is at its end; else its state was only wanted.
    """

    step: int
    updates: int
    totals: Totals
    seconds: float
    carry: DeviceCarry
    due: bool

    @property
    def learner(self) -> TrainState:
        """Leaves `[L, ...]`."""
        return self.carry.lane.learner


BetweenFn: TypeAlias = Callable[[DeviceCarry, Tree], tuple[DeviceCarry, Tree]]
"""`(carry, hyper) -> (carry, hyper)`: what becomes of the lanes, and of their numbers, before a chunk begins."""


def keep_lanes(carry: DeviceCarry, hyper: Tree) -> tuple[DeviceCarry, Tree]:
    """A `BetweenFn` that changes nothing."""
    return carry, hyper


def device_loop(
    config: Config,
    compiled: Compiled,
    keys: Array,
    hyper: Tree,
    begun: DeviceCarry | InitFn = keep_init,
    should_snapshot: SnapshotFn = no_snapshots,
    between: BetweenFn = keep_lanes,
) -> Iterator[Chunk]:
    """Trains all lanes side by side.

    A chunk is run in pieces of about `PIECE_SECONDS`, so that the loop hears soon of what is wanted; where it is cut
    changes nothing.

    Args:
      config: the run.
      compiled: its programs.
      keys: of the lanes, `[L]`.
      hyper: numbers by path, each `[L]`.
      begun: where to go on; or, at the beginning, what becomes of the fresh learner.
      should_snapshot: asked after every piece that does not end a chunk.
      between: called when the loop goes on after a chunk, and where it begins.

    Yields:
      A chunk at every multiple of `logging.every` and `evaluation.every`, and at the end; and where it is wanted.
    """
    num_envs, seconds, length = config.env.num_envs, 0.0, FIRST_PIECE
    keys, hyper = compiled.shard((keys, hyper))
    carry = begun if isinstance(begun, DeviceCarry) else _init_carry(compiled, keys, hyper, begun)
    jax.block_until_ready(carry.lane)
    periods = config.logging.every, config.evaluation.every, config.checkpoint.every
    for start, stop in chunks(config, *periods, start=carry.iteration):
        carry, hyper = between(carry, hyper)
        while start < stop:
            end, began = min(start + length, stop), perf_counter()
            advanced = compiled.advance(*carry[2:], compiled.counts(start, end), keys, hyper)
            totals = Totals(*jax.device_get(advanced[2]))
            spent = perf_counter() - began
            if end - start == length:
                length = max(
                    1, length * 2 if spent < PIECE_SECONDS / 2 else length // 2 if spent > PIECE_SECONDS else length
                )
            start, step, seconds = end, end * num_envs, seconds + spent
            carry = DeviceCarry(end, carry.updates, *advanced)
            due = is_boundary(config, step)
            if due or should_snapshot(step):
                updates = carry.updates + int(totals.updates[0])
                carry = carry._replace(updates=updates, totals=compiled.totals()) if due else carry
                yield Chunk(step, updates, totals, seconds, carry, due)


def _init_carry(compiled: Compiled, keys: Array, hyper: Tree, begin: InitFn) -> DeviceCarry:
    lane = compiled.init(keys, hyper)
    lane = lane._replace(learner=compiled.shard(begin(lane.learner)))
    return DeviceCarry(0, 0, lane, compiled.clock(), compiled.totals())


def reports(
    config: Config,
    compiled: Compiled,
    loop: Iterator[Chunk],
    before: Mapping[str, float],
    compile_seconds: float,
    again: tuple[DeviceCarry, list[Row] | None] | None = None,
) -> Iterator[Report]:
    """The chunks of a loop whose first lanes are the seeds of a run, as reports.

    Args:
      config: the run.
      compiled: its programs.
      loop: of its chunks.
      before: seconds spent before the loop began, by phase.
      compile_seconds: spent on compiling for it.
      again: where the loop begins, and the rows of the report there if that is to be yielded again.

    Raises:
      NotFiniteError: a metric of an update is not finite.
      EnvironmentFault: an environment reported a number that is not finite.
    """

    def report(chunk: Chunk, rows: list[Row]) -> Report:
        spent = {"compile": compile_seconds, "device": chunk.seconds}
        seconds = {phase: before.get(phase, 0.0) + more for phase, more in spent.items()}
        seen = partial(snapshot, chunk.carry, compiled.replay, len(config.seed_list), seconds)
        batches = partial(_batches, config, compiled.replay, chunk.carry)
        return Report(chunk.step, chunk.updates, rows, seconds, chunk.learner, seen, chunk.due, None, batches)

    carry, rows = (None, None) if again is None else again
    if carry is not None and rows is not None:
        yield report(Chunk(carry.iteration * config.env.num_envs, carry.updates, carry.totals, 0.0, carry, True), rows)
    for chunk in loop:
        _check(config, chunk)
        lanes = enumerate(config.seed_list) if chunk.due else ()
        yield report(chunk, [row for i, seed in lanes for row in lane_rows(chunk, i, seed)])


def _batches(config: Config, replay: DeviceReplay, carry: DeviceCarry, seed: int) -> Iterator[Batch]:
    """Batches of the calls to come, of one seed, drawn from its replay as it is."""
    per_call, key = updates_per_call(config), run_keys(config.seed_list)[seed]
    store, step = jax.tree.map(lambda x: x[seed], (carry.lane.store, carry.lane.learner.step))
    for number in range(CANDIDATES):
        draw = stream_key(key, "replay", step + number * per_call)
        batch = replay.sample(store, carry.clock.position, draw, step, per_call, config.algorithm.batch_size)
        yield jax.tree.map(np.asarray, batch._replace(index=()))


def drop_padding(tree: Tree, lanes: int) -> Tree:
    """The tree without the lanes that were added for padding."""
    return jax.tree.map(lambda leaf: leaf if leaf.shape[0] == lanes else leaf[:lanes], tree)


def lane_rows(chunk: Chunk, lane: int, seed: int) -> list[Row]:
    """What a lane did in a chunk: means over its episodes and over its updates."""
    totals = jax.tree.map(lambda x: x[lane].item() if x.ndim == 1 else x[lane], chunk.totals)
    rows: list[Row] = []
    if totals.episodes:
        means = {name: getattr(totals, name) / totals.episodes for name in ("episode_return", "episode_length")}
        finite = {name: mean for name, mean in means.items() if np.isfinite(mean)}  # rewards of 3e38 add up to infinity
        rows.append({"event": "episodes", "seed": seed, "step": chunk.step, "episodes": totals.episodes, **finite})
    if totals.updates:
        sums = dict(zip(METRICS, totals.metrics.tolist(), strict=True))
        rejected = sums["rejected"]
        applied = totals.updates - rejected
        means = {name: value / applied for name, value in sums.items()} | {"max_q": totals.max_q} if applied else {}
        means |= {"rejected": rejected / totals.updates}
        found = zip(DIAGNOSTICS, totals.diagnostics.tolist(), strict=True)
        means |= {name: value for name, value in found if np.isfinite(value)}
        rows.append({"event": "update", "seed": seed, "step": chunk.step, "updates": chunk.updates, **means})
    return rows


def _check(config: Config, chunk: Chunk) -> None:
    rejected = np.asarray(chunk.learner.rejected)
    for i, seed in enumerate(config.seed_list):
        if chunk.totals.faults[i]:
            raise EnvironmentFault(
                f"env.id={config.env.id!r}, seed {seed}: an observation or a reward was not finite at "
                f"{chunk.totals.faults[i]} of the iterations before step {chunk.step}"
            )
        numbers = np.concatenate([chunk.totals.metrics[i], chunk.totals.diagnostics[i]])
        numbers = (
            numbers[: len(METRICS)] if rejected[i].any() else numbers
        )  # a seed that diverges may be odd, and is marked
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            name = (*METRICS, *DIAGNOSTICS)[bad[0]]
            raise NotFiniteError(
                f"seed {seed}: {name} was not finite in an update up to number {chunk.updates}; "
                "lower algorithm.critic_learning_rate, or set algorithm.max_grad_norm"
            )
