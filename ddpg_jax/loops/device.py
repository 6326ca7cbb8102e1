"""The device loop: chunks of one compiled program for all lanes, with reports between them.

A lane is a seed, or a seed with numbers of its own where a sweep asks for it. Lanes are added by `vmap` and divided
over the local devices; nothing leaves a device between two reports.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ddpg_jax.errors import ConfigError, EnvironmentFault, NotFiniteError
from ddpg_jax.loops.device_state import Place, snapshot
from ddpg_jax.loops.program import Clock, Lane, Totals, nothing_yet, program, start_clock
from ddpg_jax.loops.report import DIAGNOSTICS, METRICS, BeginFn, Evaluation, Report, Row, WantedFn, as_made, never
from ddpg_jax.loops.schedule import chunks, is_boundary, updates_per_call
from ddpg_jax.memory import available_bytes, available_cores
from ddpg_jax.replay.device import DeviceReplay
from ddpg_jax.rng import run_keys, stream_key
from ddpg_jax.types import Array, Batch, DeviceEnv, HostArray, TrainState, Tree

if TYPE_CHECKING:
    from ddpg_jax.config import Config


CANDIDATES = 20
"""Batches that are looked at for one that a diverged seed cannot learn from."""

PIECE_SECONDS = 1.0
"""How long the program runs at most, about, before the loop looks up."""

FIRST_PIECE = 64
"""Iterations of the first piece; the length of the others is found by doubling."""


class Compiled(NamedTuple):
    """The programs of L lanes, compiled.

    Attributes:
      init: `(keys [L], hyper [L]) -> Lane [L]`.
      advance: `(lane, clock, totals [L], counts, keys, hyper) -> (lane, clock, totals [L])`; the first three are
        donated.
      evaluate: `(learner, hyper) -> Evaluation [L, episodes]`.
      counts: as in `Program`.
      place: puts what has a leading `[L]` where the lanes are.
      everywhere: puts what is the same for all lanes on every device.
      clock: the clock of a run that begins, on every device.
      totals: the sums of a chunk that begins, `[L]`.
      like: what `advance` carries, as `jax.ShapeDtypeStruct`: lane, clock, totals.
      lanes: L.
      replay: as in `Program`.
      mesh: where the lanes are, with axes "seed" and "data".
      lane_bytes: memory of one lane, by part: "replay", "learner" (parameters, targets, optimisers), "rest".
      program_bytes: memory of the compiled programs beside their arguments, all lanes together, on one device.
    """

    init: Callable[[Array, Tree], Lane]
    advance: Callable[[Lane, Clock, Totals, Any, Array, Tree], tuple[Lane, Clock, Totals]]
    evaluate: Callable[[TrainState, Tree], Evaluation]
    counts: Callable[[int, int], HostArray]
    place: Callable[[Tree], Any]
    everywhere: Callable[[Tree], Any]
    clock: Callable[[], Clock]
    totals: Callable[[], Totals]
    like: tuple[Lane, Clock, Totals]
    lanes: int
    replay: DeviceReplay
    mesh: Mesh
    lane_bytes: dict[str, int]
    program_bytes: int


class Chunk(NamedTuple):
    """The state of all lanes between two chunks.

    Attributes:
      step: environment steps of each lane so far.
      updates: critic updates of each lane so far.
      totals: sums over the iterations of the chunk, NumPy arrays `[L]`.
      seconds: spent on the device so far.
      place: all that the loop carries. Use it before the loop goes on: its buffers are donated then.
      due: whether the chunk is at its end; else its state was only wanted.
    """

    step: int
    updates: int
    totals: Totals
    seconds: float
    place: Place
    due: bool

    @property
    def learner(self) -> TrainState:
        """Leaves `[L, ...]`."""
        return self.place.lane.learner


def spread_over_cores() -> None:
    """Makes a device of each core of a CPU, so that lanes run beside each other; call it before jax is used.

    One program's products of small networks do not fill two cores: with 16 seeds at 64-64 this more than doubles the
    speed. Where the number of devices was set already, or jax is in use, nothing changes.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with suppress(RuntimeError):
        if jax.config.jax_num_cpu_devices < 1:  # pyright: ignore[reportAttributeAccessIssue]
            jax.config.update("jax_num_cpu_devices", available_cores())


def lane_mesh(lanes: int, data_parallel: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Local devices, divided over the lanes and, within a lane, over the rows of a batch: axes "seed" and "data".

    Args:
      lanes: L; those of a run are padded to `padded(L, mesh)`, so that all devices bear alike.
      data_parallel: devices that share each batch.
      devices: to choose from; None: all local ones.

    Raises:
      ConfigError: there are fewer devices than `data_parallel`.
    """
    found = list(jax.local_devices() if devices is None else devices)
    if data_parallel > len(found):
        raise ConfigError(f"data_parallel={data_parallel} needs as many devices, but there are {len(found)}")
    most = len(found) // data_parallel
    groups = -(-lanes // -(-lanes // most))  # as few as bear the same number of lanes each
    chosen = np.array(found[: groups * data_parallel]).reshape(groups, data_parallel)
    return Mesh(chosen, ("seed", "data"), axis_types=(AxisType.Auto, AxisType.Auto))


def padded(lanes: int, mesh: Mesh) -> int:
    """The number of lanes, rounded up to a multiple of the devices that bear them."""
    return -(-lanes // mesh.shape["seed"]) * mesh.shape["seed"]


def compile_program(config: Config, env: DeviceEnv, keys: Array, hyper: Tree, mesh: Mesh) -> Compiled:
    """Compiles the training of L lanes; nothing is allocated.

    Args:
      config: the run.
      env: the environment.
      keys: of the lanes, `[L]`.
      hyper: numbers by path, each `[L]`; `{}` for none.
      mesh: where the lanes go.

    Raises:
      ConfigError: the batch cannot be shared by as many devices as asked for.
    """
    shared = mesh.shape["data"]
    if config.algorithm.batch_size % shared:
        raise ConfigError(
            f"algorithm.batch_size={config.algorithm.batch_size} is not a multiple of data_parallel={shared}"
        )
    one = program(config, env, _shared(mesh) if shared > 1 else lambda batch: batch)
    by_lane, everywhere = NamedSharding(mesh, P("seed")), NamedSharding(mesh, P())
    over_lanes = partial(jax.vmap, spmd_axis_name="seed")
    init = jax.jit(over_lanes(one.init), in_shardings=by_lane, out_shardings=by_lane)
    advance = jax.jit(
        over_lanes(one.advance, in_axes=(0, None, 0, None, 0, 0), out_axes=(0, None, 0)),
        in_shardings=(by_lane, everywhere, by_lane, everywhere, by_lane, by_lane),
        out_shardings=(by_lane, everywhere, by_lane),
        donate_argnums=(0, 1, 2),
    )
    evaluate = jax.jit(over_lanes(one.evaluate), in_shardings=by_lane, out_shardings=by_lane)
    lane, clock = jax.eval_shape(init, keys, hyper), jax.eval_shape(start_clock)
    begin = jax.jit(lambda: jax.vmap(lambda _: nothing_yet())(jnp.arange(len(keys))), out_shardings=by_lane)
    totals, counts = jax.eval_shape(begin), one.counts(0, 0)
    lowered = [
        advance.lower(lane, clock, totals, counts, keys, hyper),
        init.lower(keys, hyper),
        evaluate.lower(lane.learner, hyper),
    ]
    with ThreadPoolExecutor() as pool:  # the compiler works without the interpreter
        advance, init, evaluate = programs = list(pool.map(lambda each: each.compile(), lowered))
    return Compiled(
        init,
        advance,
        evaluate,
        counts=one.counts,
        place=lambda tree: jax.device_put(tree, by_lane),
        everywhere=lambda tree: jax.device_put(tree, everywhere),
        clock=lambda: jax.device_put(start_clock(), everywhere),
        totals=begin,
        like=(lane, clock, totals),
        lanes=len(keys),
        replay=one.replay,
        mesh=mesh,
        lane_bytes={name: size // len(keys) for name, size in _bytes_by_part(lane).items()},
        program_bytes=max(map(_temporary_bytes, programs)),
    )


def memory_bytes(compiled: Compiled, lanes: int) -> int:
    """Memory that lanes take on each device: what they carry, and what the programs need beside."""
    each = -(-lanes // compiled.mesh.shape["seed"])
    return each * sum(compiled.lane_bytes.values()) + compiled.program_bytes


def largest_fit(compiled: Compiled, lanes: int) -> int:
    """The largest number of lanes whose memory is free, judged by programs compiled for `lanes`."""
    groups = compiled.mesh.shape["seed"]
    each = -(-lanes // groups)
    return free_bytes(compiled.mesh) * each // memory_bytes(compiled, lanes) * groups


def free_bytes(mesh: Mesh) -> int:
    """Memory that may still be allocated on each device of a mesh; those without memory of their own share it."""
    statistics = [device.memory_stats() or {} for device in mesh.devices.flat]
    if not all("bytes_limit" in each for each in statistics):
        return available_bytes() // mesh.size
    return min(each["bytes_limit"] - each["bytes_in_use"] for each in statistics)


def device_loop(
    config: Config,
    compiled: Compiled,
    keys: Array,
    hyper: Tree,
    begun: Place | BeginFn = as_made,
    wanted: WantedFn = never,
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
      wanted: asked after every piece that does not end a chunk.

    Yields:
      A chunk at every multiple of `logging.every` and `evaluation.every`, and at the end; and where it is wanted.
    """
    num_envs, seconds, length = config.env.num_envs, 0.0, FIRST_PIECE
    keys, hyper = compiled.place((keys, hyper))
    here = begun if isinstance(begun, Place) else _beginning(compiled, keys, hyper, begun)
    jax.block_until_ready(here.lane)
    periods = config.logging.every, config.evaluation.every, config.checkpoint.every
    for start, stop in chunks(config, *periods, start=here.iteration):
        while start < stop:
            end, began = min(start + length, stop), perf_counter()
            carry = compiled.advance(*here[2:], compiled.counts(start, end), keys, hyper)
            totals = Totals(*jax.device_get(carry[2]))
            spent = perf_counter() - began
            if end - start == length:
                length = max(
                    1, length * 2 if spent < PIECE_SECONDS / 2 else length // 2 if spent > PIECE_SECONDS else length
                )
            start, step, seconds = end, end * num_envs, seconds + spent
            here = Place(end, here.updates, *carry)
            due = is_boundary(config, step)
            if due or wanted(step):
                updates = here.updates + int(totals.updates[0])
                here = here._replace(updates=updates, totals=compiled.totals()) if due else here
                yield Chunk(step, updates, totals, seconds, here, due)


def _beginning(compiled: Compiled, keys: Array, hyper: Tree, begin: BeginFn) -> Place:
    lane = compiled.init(keys, hyper)
    lane = lane._replace(learner=compiled.place(begin(lane.learner)))
    return Place(0, 0, lane, compiled.clock(), compiled.totals())


def reports(
    config: Config, compiled: Compiled, loop: Iterator[Chunk], before: Mapping[str, float], compile_seconds: float
) -> Iterator[Report]:
    """The chunks of a loop whose first lanes are the seeds of a run, as reports.

    Args:
      config: the run.
      compiled: its programs.
      loop: of its chunks.
      before: seconds spent before the loop began, by phase.
      compile_seconds: spent on compiling for it.

    Raises:
      NotFiniteError: a metric of an update is not finite.
      EnvironmentFault: an environment reported a number that is not finite.
    """
    for chunk in loop:
        _check(config, chunk)
        rows = (
            [row for i, seed in enumerate(config.seed_list) for row in lane_rows(chunk, i, seed)] if chunk.due else []
        )
        spent = {"compile": compile_seconds, "device": chunk.seconds}
        seconds = {phase: before.get(phase, 0.0) + more for phase, more in spent.items()}
        seen = partial(snapshot, chunk.place, compiled.replay, len(config.seed_list), seconds)
        batches = partial(_batches, config, compiled.replay, chunk.place)
        yield Report(chunk.step, chunk.updates, rows, seconds, chunk.learner, seen, chunk.due, None, batches)


def _batches(config: Config, replay: DeviceReplay, place: Place, seed: int) -> Iterator[Batch]:
    """Batches of the calls to come, of one seed, drawn from its replay as it is."""
    per_call, key = updates_per_call(config), run_keys(config.seed_list)[seed]
    store, step = jax.tree.map(lambda x: x[seed], (place.lane.store, place.lane.learner.step))
    for number in range(CANDIDATES):
        draw = stream_key(key, "replay", step + number * per_call)
        batch = replay.sample(store, place.clock.position, draw, step, per_call, config.algorithm.batch_size)
        yield jax.tree.map(np.asarray, batch._replace(index=()))


def first_lanes(tree: Tree, lanes: int) -> Tree:
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


def _shared(mesh: Mesh) -> Callable[[Batch], Batch]:
    """Divides the rows of the batches `[U, B, ...]` over the axis "data"."""
    rows = NamedSharding(mesh, P(None, "data"))
    return lambda batch: jax.lax.with_sharding_constraint(batch, rows)


def _bytes_by_part(lane: Lane) -> dict[str, int]:
    def size(tree: Tree) -> int:
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

    replay, learner = size(lane.store), size(lane.learner)
    return {"replay": replay, "learner": learner, "rest": size(lane) - replay - learner}


def _temporary_bytes(compiled: Any) -> int:
    analysis = compiled.memory_analysis()
    return 0 if analysis is None else int(analysis.temp_size_in_bytes)
