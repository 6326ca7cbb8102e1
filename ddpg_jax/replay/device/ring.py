"""The replay of the device loop: a ring in device memory, as pure functions for one seed.

It stores what the ring of the host stores, one row a step, and folds n rows by the same `fold_steps`. Its position is
not part of the rows: all seeds write together, so one `Position` serves them all and stays out of `vmap`, and what is
compiled writes a row in place by a `dynamic_update_slice`, not by a scatter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.equations.returns import fold_steps
from ddpg_jax.types import Array, Batch, EnvSpec, HostArray, Step, Transition, Tree
from ddpg_jax.xla.gather import prefetch


class Position(NamedTuple):
    """Where a ring stands; the same for all seeds.

    Attributes:
      head: where the next row goes, int32 `[]`.
      length: rows stored, int32 `[]`.
    """

    head: Array
    length: Array


class Rows(NamedTuple):
    """The rows of one seed, T steps of E environments.

    Attributes:
      columns: float32 `[T, E, K]`: what a row holds side by side, so that drawing it is one gather.
      images: `(obs, next_obs)`, each `[T, E, *O]`, where observations are not float32; else `()`.
    """

    columns: Array
    images: tuple[Array, ...]


InitFn: TypeAlias = Callable[[], Tree]
"""`() -> store`."""

AddFn: TypeAlias = Callable[..., Tree]
"""`(store, position, obs [E, *O], action [E, A], step [E, ...]) -> store`; `carry [E, K]` last where kept."""

SampleFn: TypeAlias = Callable[[Tree, Position, Array, Array, int, int], Batch]
"""`(store, position, key, step [], updates U, batch_size B) -> Batch [U, B, ...]`; step counts the updates so far. The
key is consumed."""

WriteBackFn: TypeAlias = Callable[[Tree, Array, Array], Tree]
"""`(store, index [U, B], td_error [U, B]) -> store`."""


class DeviceReplay(NamedTuple):
    """A replay of one seed, as pure functions.

    Attributes:
      init: an empty store.
      add: writes one step of every environment at the position, over the oldest.
      sample: draws batches from what is stored; the position is the one after the last `add`.
      write_back: hands back what an update said of its transitions; nothing for uniform replay.
      rows: the rows of a store: what `add` writes and nothing changes afterwards.
      with_rows: `(store, rows) -> store` with others.
      beside: `(rows [L, ...], read) -> more`, both by name: what belongs to rows that were read, leaves `[n, S, ...]`
        of the host, and lies elsewhere. A name `a@b` is of one entry for each that is true of `b`, in order.
      put_beside: `(rows [S, ...], read)`: puts that back into rows of the host, in order.
    """

    init: InitFn
    add: AddFn
    sample: SampleFn
    write_back: WriteBackFn
    rows: Callable[[Tree], Any] = lambda store: store
    with_rows: Callable[[Tree, Any], Tree] = lambda store, rows: rows
    beside: Callable[[Any, Mapping[str, HostArray]], dict[str, HostArray]] = lambda rows, read: {}
    put_beside: Callable[[Any, Mapping[str, HostArray]], None] = lambda rows, read: None


def with_lane_axis(replay: DeviceReplay) -> DeviceReplay:
    """The same replay of one seed, whose store has a leading `[1]`; so have its rows.

    For a seed that is alone: to XLA `[1, T, 1, K]` without its first axis is another layout than without its third, and
    where a store is carried without it, the program copies all of it where it begins and ends.
    """

    def init() -> Tree:
        return jax.tree.map(lambda x: x[None], replay.init())

    def add(store: Tree, *arguments: Any) -> Tree:
        return jax.vmap(lambda one: replay.add(one, *arguments))(store)

    def sample(store: Tree, *arguments: Any) -> Batch:
        return replay.sample(jax.tree.map(lambda x: x[0], store), *arguments)

    def write_back(store: Tree, *arguments: Any) -> Tree:
        return jax.vmap(lambda one: replay.write_back(one, *arguments))(store)

    return replay._replace(init=init, add=add, sample=sample, write_back=write_back)


def start() -> Position:
    """The position of an empty ring."""
    return Position(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def advance(position: Position, steps: int) -> Position:
    """The position after one more row, in a ring of T = `steps`."""
    return Position((position.head + 1) % steps, jnp.minimum(position.length + 1, steps))


def ring_steps(capacity: int, num_envs: int) -> int:
    """T: steps that hold `capacity` transitions of E environments, rounded up."""
    return -(-capacity // num_envs)


def uniform(spec: EnvSpec, *, num_envs: int, capacity: int, n_step: int, gamma: Array | float) -> DeviceReplay:
    """A ring whose transitions are drawn uniformly, with replacement, in O(batch).

    Args:
      spec: what observations and actions look like.
      num_envs: E.
      capacity: transitions; rounded up to a multiple of E.
      n_step: rows folded into a transition at most.
      gamma: discount of one step, `[]`.
    """
    steps = ring_steps(capacity, num_envs)

    def sample(rows: Rows, position: Position, key: Array, step: Array, updates: int, batch_size: int) -> Batch:
        index = jax.random.randint(key, (updates, batch_size), 0, position.length * num_envs)
        return gather(rows, position, index, spec, n_step=n_step, gamma=gamma)

    return DeviceReplay(
        init=lambda: empty_rows(spec, steps, num_envs), add=add, sample=sample, write_back=lambda rows, index, td: rows
    )


def empty_rows(spec: EnvSpec, steps: int, num_envs: int) -> Rows:
    """Rows `[T, E]` of zeros."""
    width = spec.action_size + 3
    if spec.obs_dtype == "float32":
        return Rows(jnp.zeros((steps, num_envs, width + 2 * prod(spec.obs_shape))), ())
    images = [jnp.zeros((steps, num_envs, *spec.obs_shape), spec.obs_dtype) for _ in range(2)]
    return Rows(jnp.zeros((steps, num_envs, width)), tuple(images))


def add(rows: Rows, position: Position, obs: Array, action: Array, step: Step) -> Rows:
    """Writes one step of every environment; see `DeviceReplay.add`."""
    ends = [x.astype(jnp.float32)[:, None] for x in (step.reward, step.terminated, step.truncated)]
    observed = obs, step.next_obs
    vectors = [] if rows.images else [x.reshape(x.shape[0], -1) for x in observed]
    row = jnp.concatenate([action, *ends, *vectors], -1)
    images = [write_row(image, position, x) for image, x in zip(rows.images, observed, strict=False)]
    return Rows(write_row(rows.columns, position, row), tuple(images))


def gather(rows: Rows, position: Position, index: Array, spec: EnvSpec, *, n_step: int, gamma: Array | float) -> Batch:
    """The transitions that begin at given rows, each at most n rows folded into one.

    Args:
      rows: of one seed.
      position: where its ring stands.
      index: int32 `[...]`, from 0 to length·E − 1, oldest first: age·E + environment.
      spec: what observations and actions look like.
      n_step: n.
      gamma: discount of one step, `[]`.

    Returns:
      A batch with leaves `[..., *]`, and the same index.
    """
    steps, num_envs = rows.columns.shape[:2]
    age, env = index // num_envs, index % num_envs

    def take(leaf: Array, offset: Array) -> Array:
        """Rows `offset` steps after the first, as far as they are stored; what lies beyond is cut by the folding."""
        row = (age + offset + position.head - position.length) % steps * num_envs + env
        table = leaf.reshape(steps * num_envs, *leaf.shape[2:])
        row = prefetch(table, row) if table.ndim == 2 else row  # an image is long enough to be on the way by itself
        return table.at[row].get(mode="promise_in_bounds")

    widths = [spec.action_size, 1, 1, 1, prod(spec.obs_shape)]
    cuts = np.cumsum(widths[:3] if rows.images else widths)
    window = [jnp.split(take(rows.columns, jnp.int32(i)), cuts, -1) for i in range(n_step)]
    reward, terminated, truncated = (jnp.concatenate([row[i] for row in window], -1) for i in (1, 2, 3))
    folded = fold_steps(reward, terminated > 0, truncated > 0, available=position.length - age, gamma=gamma)
    reward, discount, last = folded
    if rows.images:
        obs, next_obs = take(rows.images[0], jnp.int32(0)), take(rows.images[1], last)
    else:
        end = window[0] if n_step == 1 else jnp.split(take(rows.columns, last), cuts, -1)
        obs, next_obs = (x.reshape(*index.shape, *spec.obs_shape) for x in (window[0][4], end[5]))
    data = Transition(obs, window[0][0], reward, discount, next_obs)
    return Batch(data, jnp.ones(index.shape), index)


def write_row(leaf: Array, position: Position, row: Array) -> Array:
    """A leaf `[T, ...]` with a row `[...]` at the head."""
    return jax.lax.dynamic_update_index_in_dim(leaf, row, position.head, 0)
