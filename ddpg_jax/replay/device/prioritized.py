"""Prioritised replay of the device loop: the ring, and a sum tree of the priorities of its rows.

As on the host (`replay.prioritized`), but an update's errors are written back before the next batch is drawn, so no row
is overwritten in between, and an index is simply the place of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from ddpg_jax.equations.priorities import Prioritization, annealed_beta, importance_weight, priority
from ddpg_jax.replay.device import sum_tree as device_tree
from ddpg_jax.replay.device.ring import DeviceReplay, Position, Rows, gather, ring_steps, uniform
from ddpg_jax.types import Array, Batch, EnvSpec, Step

SMALLEST_PRIORITY = 1e-30
"""Priorities are no smaller: float32 would lose them."""


class PrioritizedRows(NamedTuple):
    """What one seed has stored.

    Attributes:
      rows: as in uniform replay.
      tree: priorities, slot step·E + environment of the ring.
      largest: priority so far, `[]`.
    """

    rows: Rows
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

    def init() -> PrioritizedRows:
        return PrioritizedRows(plain.init(), device_tree.empty(steps * num_envs), jnp.ones(()))

    def add(store: PrioritizedRows, position: Position, obs: Array, action: Array, step: Step) -> PrioritizedRows:
        tree = device_tree.fill(store.tree, position.head * num_envs, num_envs, store.largest)
        return store._replace(rows=plain.add(store.rows, position, obs, action, step), tree=tree)

    def sample(
        store: PrioritizedRows, position: Position, key: Array, step: Array, updates: int, batch_size: int
    ) -> Batch:
        slots = device_tree.draw(store.tree, key, (updates, batch_size))
        age = (slots // num_envs - position.head + position.length) % steps
        index = age * num_envs + slots % num_envs
        batch = gather(store.rows, position, index, spec, n_step=n_step, gamma=gamma)
        weight = importance_weight(device_tree.get(store.tree, slots), annealed_beta(step, rule))
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
        rows=lambda store: store.rows,
        with_rows=lambda store, rows: store._replace(rows=rows),
    )
