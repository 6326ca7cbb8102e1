"""Prioritised replay of the device loop: the ring, and a sum tree of the priorities of its rows.

As on the host (`replay.prioritized`), but an update's errors are written back before the next batch is drawn, so no row
is overwritten in between, and an index is simply the place of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp

from ddpg_jax.equations.priorities import Prioritization, annealed_beta, fading, importance_weight, priority
from ddpg_jax.replay.device import sum_tree as device_tree
from ddpg_jax.replay.device.ring import DeviceReplay, Position, Rows, gather, ring_steps, uniform
from ddpg_jax.types import Array, Batch, EnvSpec, Tree

SMALLEST_PRIORITY = 1e-30
"""Priorities are no smaller: float32 would lose them."""


class PrioritizedRows(NamedTuple):
    """What one seed has stored.

    Attributes:
      rows: as in the replay without priorities.
      tree: priorities, slot step·E + environment of the ring.
      largest: priority so far, `[]`.
    """

    rows: Tree
    tree: device_tree.SumTree
    largest: Array


def prioritized(
    spec: EnvSpec, *, num_envs: int, capacity: int, n_step: int, gamma: Array | float, rule: Prioritization
) -> DeviceReplay:
    """A ring whose transitions are drawn in proportion to their priorities, in O(batch · log capacity).

    Args:
      spec: what observations and actions look like.
      num_envs: E.
      capacity: transitions; rounded up to a multiple of E.
      n_step: rows folded into a transition at most.
      gamma: discount of one step, `[]`.
      rule: how priorities and weights come about.

    References:
      Schaul et al., "Prioritized experience replay" (arXiv:1511.05952).
    """
    steps = ring_steps(capacity, num_envs)
    plain = uniform(spec, num_envs=num_envs, capacity=capacity, n_step=n_step, gamma=gamma)

    def enter(tree: device_tree.SumTree, position: Position, largest: Array) -> device_tree.SumTree:
        return device_tree.fill(tree, position.head * num_envs, num_envs, largest)

    def read(rows: Rows, position: Position, index: Array) -> Batch:
        return gather(rows, position, index, spec, n_step=n_step, gamma=gamma)

    return with_priorities(plain, enter, read, steps=steps, num_envs=num_envs, rule=rule)


EnterFn: TypeAlias = Callable[[device_tree.SumTree, Position, Array], device_tree.SumTree]
"""`(tree, position, largest []) -> tree` with the priorities that a step brings with it, written at the position."""

ReadFn: TypeAlias = Callable[[Tree, Position, Array], Batch]
"""`(store, position, index [U, B]) -> Batch [U, B, ...]`."""


def with_priorities(
    plain: DeviceReplay, enter: EnterFn, read: ReadFn, *, steps: int, num_envs: int, rule: Prioritization
) -> DeviceReplay:
    """The same replay, drawn in proportion to priorities.

    Args:
      plain: what stores the rows.
      enter: gives new rows their priorities.
      read: what begins at given rows, age·E + environment; its weights are multiplied.
      steps: T.
      num_envs: E.
      rule: how priorities and weights come about.
    """

    def faded(tree: device_tree.SumTree, position: Position) -> device_tree.SumTree:
        """By the age of the first row below each of many nodes."""
        if not rule.fades:
            return tree
        level = device_tree.coarse_level(tree)
        place = device_tree.first_slots(tree, level) // num_envs
        age = (position.head - 1 - place) % steps * num_envs
        return device_tree.scale(tree, level, fading(age.astype(jnp.float32), rule))

    def init() -> PrioritizedRows:
        return PrioritizedRows(plain.init(), device_tree.empty(steps * num_envs), jnp.ones(()))

    def add(store: PrioritizedRows, position: Position, *row: Any) -> PrioritizedRows:
        tree = enter(store.tree, position, store.largest)
        return store._replace(rows=plain.add(store.rows, position, *row), tree=tree)

    def sample(
        store: PrioritizedRows, position: Position, key: Array, step: Array, updates: int, batch_size: int
    ) -> Batch:
        slots = device_tree.draw(faded(store.tree, position), key, (updates, batch_size))
        age = (slots // num_envs - position.head + position.length) % steps
        batch = read(store.rows, position, age * num_envs + slots % num_envs)
        weight = importance_weight(device_tree.get(store.tree, slots), annealed_beta(step, rule)) * batch.weight
        # Always the slots; but what is written at them now waits for the weights, so that no copy of the tree is kept
        # to read those from.
        return batch._replace(weight=weight, index=jnp.where(weight >= 0, slots, jnp.zeros_like(slots)))

    def write_back(store: PrioritizedRows, index: Array, td_error: Array) -> PrioritizedRows:
        values = jnp.maximum(priority(td_error.reshape(-1), rule), SMALLEST_PRIORITY)
        tree = device_tree.set_slots(store.tree, index.reshape(-1), values)
        return store._replace(tree=tree, largest=jnp.maximum(store.largest, values.max()))

    return DeviceReplay(
        init,
        add,
        sample,
        write_back,
        rows=lambda store: plain.rows(store.rows),
        with_rows=lambda store, rows: store._replace(rows=plain.with_rows(store.rows, rows)),
        beside=plain.beside,
        put_beside=plain.put_beside,
    )
