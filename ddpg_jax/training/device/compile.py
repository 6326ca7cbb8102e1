"""The programs of the device loop, compiled for all lanes: where the lanes are, and what memory they take.

Lanes are added by `vmap`, where there are several, and divided over the local devices, and the rows of a batch over
several of them if asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ddpg_jax.errors import ConfigError
from ddpg_jax.replay.device.frames import FrameStore
from ddpg_jax.replay.device.prioritized import PrioritizedRows
from ddpg_jax.replay.device.ring import DeviceReplay, Rows, with_lane_axis
from ddpg_jax.replay.device.sequences import KeptRows
from ddpg_jax.training.device.carry import Clock, Lane, Totals, copy_lanes, start_clock, zero_totals
from ddpg_jax.training.device.program import program
from ddpg_jax.types import Array, Batch, DeviceEnv, Evaluation, HostArray, StopFn, TrainState, Tree, never_stop
from ddpg_jax.xla.compiler import compile_all, compiler_options
from ddpg_jax.xla.memory import available_bytes
from ddpg_jax.xla.squeeze import squeezed_vmap

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config


class Compiled(NamedTuple):
    """The programs of L lanes, compiled.

    Attributes:
      init: `(keys [L], hyper [L]) -> Lane [L]`.
      advance: `(lane, clock, totals [L], counts, keys, hyper) -> (lane, clock, totals [L])`; the first three are
        donated.
      evaluate: `(learner, hyper) -> Evaluation [L, episodes]`.
      copy: `(lane, children, parents, whole) -> lane`, see `copy_lanes`; the first is donated. Compiled when called.
      counts: as in `Program`.
      shard: puts what has a leading `[L]` where the lanes are.
      replicate: puts what is the same for all lanes on every device.
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
    copy: Callable[..., Lane]
    counts: Callable[[int, int], HostArray]
    shard: Callable[[Tree], Any]
    replicate: Callable[[Tree], Any]
    clock: Callable[[], Clock]
    totals: Callable[[], Totals]
    like: tuple[Lane, Clock, Totals]
    lanes: int
    replay: DeviceReplay
    mesh: Mesh
    lane_bytes: dict[str, int]
    program_bytes: int


def lane_mesh(lanes: int, data_parallel: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Local devices, divided over the lanes and, within a lane, over the rows of a batch: axes "seed" and "data".

    Args:
      lanes: L; those of a run are padded to `round_up_lanes(L, mesh)`, so that all devices bear alike.
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


def round_up_lanes(lanes: int, mesh: Mesh) -> int:
    """The number of lanes, rounded up to a multiple of the devices that bear them."""
    return -(-lanes // mesh.shape["seed"]) * mesh.shape["seed"]


def compile_program(
    config: Config, env: DeviceEnv, keys: Array, hyper: Tree, mesh: Mesh, stop: StopFn = never_stop
) -> Compiled:
    """Compiles the training of L lanes; nothing is allocated.

    Args:
      config: the run.
      env: the environment.
      keys: of the lanes, `[L]`.
      hyper: numbers by path, each `[L]`; `{}` for none.
      mesh: where the lanes go.
      stop: as in `compile_all`.

    Raises:
      ConfigError: the batch cannot be shared by as many devices as asked for.
      Interrupted: `stop` said so.
    """
    shared = mesh.shape["data"]
    if config.algorithm.batch_size % shared:
        raise ConfigError(
            f"algorithm.batch_size={config.algorithm.batch_size} is not a multiple of data_parallel={shared}"
        )
    squeeze_seed = len(keys) == 1
    shard_batch = _shard_batch(mesh) if shared > 1 else lambda batch: batch
    one = program(config, env, shard_batch, stored=with_lane_axis if squeeze_seed else lambda replay: replay)
    by_lane, everywhere = NamedSharding(mesh, P("seed")), NamedSharding(mesh, P())
    over_lanes: Any = (
        partial(squeezed_vmap, keeps=_is_store) if squeeze_seed else partial(jax.vmap, spmd_axis_name="seed")
    )
    init = jax.jit(over_lanes(one.init), in_shardings=by_lane, out_shardings=by_lane)
    advance = jax.jit(
        over_lanes(one.advance, in_axes=(0, None, 0, None, 0, 0), out_axes=(0, None, 0)),
        in_shardings=(by_lane, everywhere, by_lane, everywhere, by_lane, by_lane),
        out_shardings=(by_lane, everywhere, by_lane),
        donate_argnums=(0, 1, 2),
    )
    evaluate = jax.jit(over_lanes(one.evaluate), in_shardings=by_lane, out_shardings=by_lane)
    lane, clock = jax.eval_shape(init, keys, hyper), jax.eval_shape(start_clock)
    begin = jax.jit(lambda: jax.vmap(lambda _: zero_totals())(jnp.arange(len(keys))), out_shardings=by_lane)
    totals, counts = jax.eval_shape(begin), one.counts(0, 0)
    often, run_once = compiler_options(mesh), compiler_options(mesh, run_once=True)
    init, advance, evaluate = programs = compile_all(
        [
            (init, (keys, hyper), run_once),
            (advance, (lane, clock, totals, counts, keys, hyper), often),
            (evaluate, (lane.learner, hyper), run_once),
        ],
        stop,
    )
    return Compiled(
        init,
        advance,
        evaluate,
        copy=jax.jit(copy_lanes, static_argnames="whole", out_shardings=by_lane, donate_argnums=0),
        counts=one.counts,
        shard=lambda tree: jax.device_put(tree, by_lane),
        replicate=lambda tree: jax.device_put(tree, everywhere),
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


def _is_store(part: Tree) -> bool:
    """Whether it is what a replay stores, which keeps its axis of lanes; see `with_lane_axis`."""
    return isinstance(part, Rows | FrameStore | PrioritizedRows | KeptRows)


def _shard_batch(mesh: Mesh) -> Callable[[Batch], Batch]:
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
