"""The replay of the device loop for agents with memory: windows of consecutive steps out of the rows of the same ring.

As on the host (`replay.host.sequences`): nothing is stored twice, and an index is that of a window's first row.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.equations.priorities import Prioritization
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.device import sum_tree as device_tree
from ddpg_jax.replay.device.prioritized import with_priorities
from ddpg_jax.replay.device.ring import DeviceReplay, Position, Rows
from ddpg_jax.replay.windows import StepRows, WindowShape, kept_age, kept_places, make_windows
from ddpg_jax.types import Array, Batch, EnvSpec, Step, Tree
from ddpg_jax.xla.gather import prefetch


class KeptRows(NamedTuple):
    """What one seed has stored where states are kept.

    Attributes:
      rows: as in `uniform`.
      kept: `[⌈T/P⌉, E, K]`: what was remembered before the step at every place that is a multiple of P.
    """

    rows: Rows
    kept: Array


def sequences(
    spec: EnvSpec,
    *,
    num_envs: int,
    capacity: int,
    n_step: int,
    gamma: Array | float,
    length: int,
    burn_in: int,
    keep_every: int = 0,
    carry_size: int = 0,
) -> DeviceReplay:
    """A ring that hands out windows, drawn uniformly among those that are whole, with replacement.

    Where states are kept, `add` takes one more argument, `carry [E, K]`: what is remembered before the step. Where no
    window is whole yet, what is drawn holds rows that are not stored.

    Args:
      spec: what observations and actions look like.
      num_envs: E.
      capacity: transitions; rounded up to a multiple of E.
      n_step: rows folded into a transition at most.
      gamma: discount of one step, `[]`.
      length: steps of a window that are learned from, L.
      burn_in: steps before them, b; W = b + L.
      keep_every: P: windows begin at places of the ring that are multiples of it, where states are kept; 0: anywhere.
      carry_size: K, numbers of a state; 0 where none is kept.
    """
    shape, steps = WindowShape(length, burn_in, n_step, keep_every), replays.ring_steps(capacity, num_envs)

    def init() -> Tree:
        rows = replays.empty_rows(spec, steps, num_envs)
        return KeptRows(rows, jnp.zeros((-(-steps // keep_every), num_envs, carry_size))) if keep_every else rows

    def sample(store: Tree, position: Position, key: Array, step: Array, updates: int, batch_size: int) -> Batch:
        count = jnp.maximum(position.length - shape.whole + 1, 1)
        if not keep_every:
            index = jax.random.randint(key, (updates, batch_size), 0, count * num_envs)
            return gather(store, position, index, spec, shape, gamma=gamma)
        oldest = (position.head - position.length) % steps
        first, number = kept_places(oldest, count, steps, keep_every)
        which = jax.random.randint(key, (updates, batch_size), 0, jnp.maximum(number, 1) * num_envs)
        age = kept_age(which // num_envs, first, oldest, steps, keep_every)
        index = age * num_envs + which % num_envs
        return gather(store, position, index, spec, shape, gamma=gamma)

    plain = DeviceReplay(init, replays.add, sample, lambda store, index, td: store)
    if not keep_every:
        return plain
    return plain._replace(
        add=_keeping(keep_every),
        rows=lambda store: store.rows,
        with_rows=lambda store, rows: store._replace(rows=rows),
    )


def prioritized_sequences(
    spec: EnvSpec,
    *,
    num_envs: int,
    capacity: int,
    n_step: int,
    gamma: Array | float,
    length: int,
    burn_in: int,
    keep_every: int = 0,
    carry_size: int = 0,
    rule: Prioritization,
) -> DeviceReplay:
    """A ring that hands out windows in proportion to their priorities, each that of its first row in the tree.

    A row has none until its window is whole, and gets the largest so far then.

    Args:
      spec: as in `sequences`, and so is all but the last.
      num_envs: E.
      capacity: transitions; rounded up to a multiple of E.
      n_step: rows folded into a transition at most.
      gamma: discount of one step, `[]`.
      length: steps of a window that are learned from.
      burn_in: steps before them.
      keep_every: steps between two states that are kept; 0: none is.
      carry_size: numbers of a state.
      rule: how priorities and weights come about.

    References:
      Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning", section 2.3 (ICLR 2019).
    """
    shape, steps = WindowShape(length, burn_in, n_step, keep_every), replays.ring_steps(capacity, num_envs)
    plain = sequences(
        spec,
        num_envs=num_envs,
        capacity=capacity,
        n_step=n_step,
        gamma=gamma,
        length=length,
        burn_in=burn_in,
        keep_every=keep_every,
        carry_size=carry_size,
    )

    def enter(tree: device_tree.SumTree, position: Position, largest: Array) -> device_tree.SumTree:
        start = (position.head - shape.whole + 1) % steps
        whole = position.length + 1 >= shape.whole
        kept = whole & (start % keep_every == 0) if keep_every else whole
        new, begun = (position.head, jnp.zeros(())), (start, jnp.where(kept, largest, jnp.zeros(())))
        return device_tree.fill_several(tree, [(place * num_envs, value) for place, value in (new, begun)], num_envs)

    def read(store: Tree, position: Position, index: Array) -> Batch:
        return gather(store, position, index, spec, shape, gamma=gamma)

    replay = with_priorities(plain, enter, read, steps=steps, num_envs=num_envs, rule=rule)

    def sample(store: Tree, position: Position, *more: Any) -> Batch:
        batch = replay.sample(store, position, *more)
        whole = position.length >= shape.whole  # before, no row has a priority to be weighted by
        return batch._replace(weight=jnp.where(whole, batch.weight, jnp.ones_like(batch.weight)))

    return replay._replace(sample=sample)


def _keeping(every: int) -> replays.AddFn:
    """`add` that also keeps the state given, where the place of the step is a multiple of P."""

    def add(store: KeptRows, position: Position, obs: Array, action: Array, step: Step, carry: Array) -> KeptRows:
        where = position.head // every
        old = jax.lax.dynamic_index_in_dim(store.kept, where, 0, keepdims=False)
        new = jnp.where(position.head % every == 0, carry, old)
        kept = jax.lax.dynamic_update_index_in_dim(store.kept, new, where, 0)
        return KeptRows(replays.add(store.rows, position, obs, action, step), kept)

    return add


def gather(
    store: Tree, position: Position, index: Array, spec: EnvSpec, shape: WindowShape, *, gamma: Array | float
) -> Batch:
    """The windows that begin at given rows.

    Args:
      store: rows of one seed, or `KeptRows`.
      position: where its ring stands.
      index: int32 `[...]`, from 0 to length·E − 1, oldest first: age·E + environment.
      spec: what observations and actions look like.
      shape: of the windows.
      gamma: discount of one step, `[]`.

    Returns:
      A batch of windows with leaves `[..., *]`, and the same index.
    """
    rows: Rows = store.rows if shape.keep_every else store
    steps, num_envs = rows.columns.shape[:2]
    age, env = index // num_envs, index % num_envs
    offset = jnp.arange(-1, shape.steps, dtype=jnp.int32).reshape(*[1] * index.ndim, -1)
    place = (age[..., None] + offset + position.head - position.length) % steps
    taken = _take(rows, place * num_envs + env[..., None], spec)
    carry = ()
    if shape.keep_every:
        which = place[..., 1] // shape.keep_every * num_envs + env
        carry = _flat(store.kept).at[which].get(mode="promise_in_bounds")
    data = make_windows(taken, age > 0, position.length - age, n_step=shape.n_step, gamma=gamma, carry=carry)
    return Batch(data, jnp.ones(index.shape), index)


def _take(rows: Rows, which: Array, spec: EnvSpec) -> StepRows:
    """Rows of the flattened ring, `[..., 1 + N]`, in one gather where observations are float32."""
    table = _flat(rows.columns)
    taken = table.at[prefetch(table, which)].get(mode="promise_in_bounds")
    widths = [spec.action_size, 1, 1, 1, prod(spec.obs_shape)]
    action, reward, terminated, truncated, *rest = jnp.split(
        taken, np.cumsum(widths[:3] if rows.images else widths), -1
    )
    if rows.images:
        obs, next_obs = (_flat(x).at[which[..., 1:]].get(mode="promise_in_bounds") for x in rows.images)
    else:
        obs, next_obs = (x[..., 1:, :].reshape(*x.shape[:-2], -1, *spec.obs_shape) for x in rest)
    return StepRows(obs, action, reward[..., 0], next_obs, terminated[..., 0] > 0, truncated[..., 0] > 0)


def _flat(leaf: Array) -> Any:
    """`[T, E, ...]` as `[T·E, ...]`."""
    return leaf.reshape(-1, *leaf.shape[2:])
