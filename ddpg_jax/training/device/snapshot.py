"""What the device loop is between two pieces of its program, how that becomes a snapshot, and how it is taken up again.

Lanes that were added for padding are not kept: they are the last seed again, whatever the number of devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ddpg_jax.errors import StorageError
from ddpg_jax.replay.device.ring import DeviceReplay
from ddpg_jax.replay.stacks import BEGINS, FIRSTS
from ddpg_jax.runs.pytrees import from_host, to_host
from ddpg_jax.training.device.carry import Clock, Lane, Totals
from ddpg_jax.types import Array, HostArray, Snapshot, Tree

if TYPE_CHECKING:
    from ddpg_jax.training.device.compile import Compiled

_BLOCK, _BLOCK_BYTES = 2**14, 2**26

_ROWS = "rows/"
"""What the names of rows begin with."""

_BESIDE = f"{_ROWS}{BEGINS}", f"{_ROWS}{FIRSTS}"


class DeviceCarry(NamedTuple):
    """Where the loop is.

    Attributes:
      iteration: iterations that are done.
      updates: critic updates of each lane before the chunk that is in progress.
      lane: of all lanes, leaves `[L, ...]`.
      clock: the same for all.
      totals: of the chunk that is in progress, `[L]`.
    """

    iteration: int
    updates: int
    lane: Lane
    clock: Clock
    totals: Totals


def snapshot(carry: DeviceCarry, replay: DeviceReplay, num_seeds: int, seconds: dict[str, float]) -> Snapshot:
    """Everything as arrays by name, of the first lanes; rows are fetched when they are asked for."""
    store = carry.lane.store
    rows: Any = replay.rows(store)
    lane = carry.lane._replace(store=replay.with_rows(store, ()))
    by_lane = to_host({"lane": lane, "totals": carry.totals})
    counters = {"iteration": np.int64(carry.iteration), "updates": np.int64(carry.updates), "clock": carry.clock}
    steps = rows.columns.shape[1]

    def read(first: int, stop: int) -> dict[str, HostArray]:
        where = np.arange(first, stop) % steps
        taken = to_host(jax.tree.map(lambda x: _taken(x, where), rows))
        found = {name: np.moveaxis(x[:num_seeds], 1, 0).copy() for name, x in taken.items()}
        return {f"{_ROWS}{name}": x for name, x in (found | replay.beside(rows, found)).items()}

    first = max(0, carry.iteration - steps)
    arrays = {name: x[:num_seeds] for name, x in by_lane.items()} | to_host(counters)
    return Snapshot(arrays, first, carry.iteration, read, seconds)


def restore(compiled: Compiled, snapshot: Snapshot, num_seeds: int) -> DeviceCarry:
    """Where the loop was, put where its lanes are.

    Args:
      compiled: its programs.
      snapshot: of a loop of the same configuration.
      num_seeds: how many lanes are no padding.

    Raises:
      StorageError: it is not.
    """
    source, replay, seeds = "the checkpoint", compiled.replay, num_seeds
    lane, clock, totals = compiled.like
    rows_like = replay.rows(lane.store)
    bare = _of_seeds({"lane": lane._replace(store=replay.with_rows(lane.store, ())), "totals": totals}, seeds)
    counters = {name: np.int64(0) for name in ("iteration", "updates")}
    whole = from_host(counters | {"clock": clock} | bare, snapshot.arrays, "", source)
    rows = _fill_rows(_of_seeds(rows_like, seeds), replay, snapshot, source)
    padding = np.minimum(np.arange(compiled.lanes), seeds - 1)
    of_lanes = jax.tree.map(lambda x: x[padding], {"lane": whole["lane"], "totals": whole["totals"], "rows": rows})
    placed = compiled.shard(of_lanes)
    lane = placed["lane"]._replace(store=replay.with_rows(placed["lane"].store, placed["rows"]))
    clock = compiled.replicate(whole["clock"])
    return DeviceCarry(int(whole["iteration"]), int(whole["updates"]), lane, clock, placed["totals"])


@jax.jit
def _taken(leaf: Array, where: Array) -> Array:
    return leaf[:, where]


def _of_seeds(tree: Tree, seeds: int) -> Tree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds, *x.shape[1:]), x.dtype), tree)


def _block(rows: Tree, count: int) -> Tree:
    """What so many rows of all seeds look like, as they are kept."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, x.shape[0], *x.shape[2:]), x.dtype), rows)


def _fill_rows(like: Tree, replay: DeviceReplay, snapshot: Snapshot, source: str) -> Tree:
    """The rows of all seeds, each where it was in its ring."""
    leaves: list[HostArray] = [np.zeros(x.shape, x.dtype) for x in jax.tree.leaves(like)]
    rows = jax.tree.unflatten(jax.tree.structure(like), leaves)
    steps, (first, stop) = leaves[0].shape[1], (snapshot.first_row, snapshot.stop_row)
    if stop - first != min(stop, steps):
        raise StorageError(f"{source} does not fit the configuration: it holds rows {first} to {stop} of {steps}")
    count = max(1, min(_BLOCK, _BLOCK_BYTES // max(1, sum(x.nbytes // x.shape[1] for x in leaves))))
    for start in range(first, stop, count):
        end = min(start + count, stop)
        where = np.arange(start, end) % steps
        found = snapshot.read_rows(start, end)
        own = {name: x for name, x in found.items() if name not in _BESIDE}
        read = from_host(_block(like, len(where)), own, "rows", source)
        for leaf, new in zip(leaves, jax.tree.leaves(read), strict=True):
            leaf[:, where] = np.moveaxis(new, 0, 1)
        try:
            replay.put_beside(rows, {name.removeprefix(_ROWS): x for name, x in found.items()})
        except (KeyError, ValueError) as error:
            raise StorageError(f"{source} does not fit the configuration: {error}") from error
    return rows
