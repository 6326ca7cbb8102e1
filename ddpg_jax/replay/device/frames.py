"""The replay of the device loop for stacks of pictures: a ring that keeps each picture once, and rebuilds the stacks.

As on the host (`replay.host.frames`): which pictures a stack is made of is arithmetic, told in `replay.stacks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.equations.priorities import Prioritization
from ddpg_jax.equations.returns import fold_steps
from ddpg_jax.replay.device import sum_tree as device_tree
from ddpg_jax.replay.device.prioritized import with_priorities
from ddpg_jax.replay.device.ring import DeviceReplay, Position, write_row
from ddpg_jax.replay.stacks import BEGINS, FIRSTS, StackShape, stack_shape
from ddpg_jax.types import Array, Batch, EnvSpec, HostArray, Step, Transition
from ddpg_jax.xla.gather import prefetch

_SINCE, _EPISODE, _ENDED = 0, 1, 2


class FrameRows(NamedTuple):
    """The rows of one seed, T steps of E environments.

    Attributes:
      columns: float32 `[T, E, A + 3]`: action, reward and ends.
      counts: int32 `[T, E, 2]`: steps since the episode began, and its number in the lane, from 1.
      pictures: uint8 `[T + X, E, H·W·C]`: the newest of each successor, and the first ones of episodes; see
        `StackShape`.
    """

    columns: Array
    counts: Array
    pictures: Array


class FrameStore(NamedTuple):
    """What one seed has stored.

    Attributes:
      rows: as they are kept.
      newest: int32 `[E, 3]`: the counts of the newest row, and whether its episode ended with it. It stands by itself,
        as a ring that is read at one place and written at another is copied for it.
    """

    rows: FrameRows
    newest: Array


def frames(spec: EnvSpec, *, num_envs: int, capacity: int, n_step: int, gamma: Array | float) -> DeviceReplay:
    """A ring of stacks of pictures, each kept once, whose transitions are drawn uniformly, with replacement.

    A transition may begin at the newest T - k rows. Where the first picture of an episode is wanted and lost, as more
    than T / 8 episodes lie in the ring, it has weight 0.

    Args:
      spec: what observations and actions look like, with `stack`.
      num_envs: E.
      capacity: transitions; rounded up to a multiple of E.
      n_step: rows folded into a transition at most.
      gamma: discount of one step, `[]`.

    Raises:
      ConfigError: it holds no stack.
    """
    shape = stack_shape(spec, capacity, num_envs)

    def init() -> FrameStore:
        columns = jnp.zeros((shape.steps, num_envs, spec.action_size + 3))
        counts = jnp.zeros((shape.steps, num_envs, 2), jnp.int32)
        pictures = jnp.zeros((shape.places, num_envs, prod(spec.obs_shape[1:])), spec.obs_dtype)
        newest = jnp.zeros((num_envs, 3), jnp.int32).at[:, _ENDED].set(1)
        return FrameStore(FrameRows(columns, counts, pictures), newest)

    def add(store: FrameStore, position: Position, obs: Array, action: Array, step: Step) -> FrameStore:
        return _add(store, position, obs, action, step, shape)

    def sample(store: FrameStore, position: Position, key: Array, step: Array, updates: int, batch_size: int) -> Batch:
        starts = jnp.minimum(position.length, shape.most_starts)
        index = jax.random.randint(key, (updates, batch_size), 0, starts * num_envs)
        index = index + (position.length - starts) * num_envs
        return gather(store, position, index, spec, shape, n_step=n_step, gamma=gamma)

    def beside(rows: FrameRows, read: Mapping[str, HostArray]) -> dict[str, HostArray]:
        return _fetch_firsts(rows, read["counts"], shape)

    def put_beside(rows: FrameRows, read: Mapping[str, HostArray]) -> None:
        begins = read["counts"][..., _SINCE] == 0
        if len(read[FIRSTS]) != begins.sum():
            raise ValueError(f"{len(read[FIRSTS])} first pictures are not those of {begins.sum()} episodes")
        _, seed, env = np.nonzero(begins)
        place = shape.first_place(read["counts"][begins][:, _EPISODE])
        rows.pictures[seed, place, env] = read[FIRSTS]  # of several at one place the last stays

    return DeviceReplay(
        init,
        add,
        sample,
        lambda store, index, td: store,
        rows=lambda store: store.rows,
        with_rows=lambda store, rows: store._replace(rows=rows),
        beside=beside,
        put_beside=put_beside,
    )


def prioritized_frames(
    spec: EnvSpec, *, num_envs: int, capacity: int, n_step: int, gamma: Array | float, rule: Prioritization
) -> DeviceReplay:
    """A ring of stacks of pictures whose transitions are drawn in proportion to their priorities.

    A row has none any more when one of the pictures before it is about to be overwritten.

    Args:
      spec: as in `frames`, and so is all but the last.
      num_envs: E.
      capacity: transitions; rounded up to a multiple of E.
      n_step: rows folded into a transition at most.
      gamma: discount of one step, `[]`.
      rule: how priorities and weights come about.

    Raises:
      ConfigError: it holds no stack.
    """
    shape = stack_shape(spec, capacity, num_envs)
    plain = frames(spec, num_envs=num_envs, capacity=capacity, n_step=n_step, gamma=gamma)

    def enter(tree: device_tree.SumTree, position: Position, largest: Array) -> device_tree.SumTree:
        gone = (position.head + shape.stack) % shape.steps
        new = (position.head * num_envs, largest), (gone * num_envs, jnp.zeros_like(largest))
        return device_tree.fill_several(tree, new, num_envs)

    def read(store: FrameStore, position: Position, index: Array) -> Batch:
        return gather(store, position, index, spec, shape, n_step=n_step, gamma=gamma)

    return with_priorities(plain, enter, read, steps=shape.steps, num_envs=num_envs, rule=rule)


def gather(
    store: FrameStore,
    position: Position,
    index: Array,
    spec: EnvSpec,
    shape: StackShape,
    *,
    n_step: int,
    gamma: Array | float,
) -> Batch:
    """The transitions that begin at given rows, each at most n rows folded into one.

    Args:
      store: of one seed.
      position: where its ring stands.
      index: int32 `[...]`, of rows at which a transition may begin, oldest first: age·E + environment.
      spec: what observations and actions look like.
      shape: of the table of pictures.
      n_step: n.
      gamma: discount of one step, `[]`.

    Returns:
      A batch with leaves `[..., *]`, and the same index; weights are 0 where a picture is lost, else 1.
    """
    rows, num_envs = store.rows, store.newest.shape[0]
    age, env = index // num_envs, index % num_envs
    row = age + position.head - position.length

    def take(leaf: Array, place: Array, env: Array) -> Array:
        table = leaf.reshape(-1, leaf.shape[-1])
        which = place * num_envs + env
        which = which if leaf is rows.pictures else prefetch(table, which)
        return table.at[which].get(mode="promise_in_bounds")

    def stack_of(newest: Array, known: Array) -> Array:
        places = shape.stack_places(newest, known, episode)
        return take(rows.pictures, places, env[..., None]).reshape(*index.shape, *spec.obs_shape)

    cuts = [spec.action_size + i for i in range(3)]
    window = [jnp.split(take(rows.columns, (row + i) % shape.steps, env), cuts, -1) for i in range(n_step)]
    reward, terminated, truncated = (jnp.concatenate([each[i] for each in window], -1) for i in (1, 2, 3))
    reward, discount, last = fold_steps(reward, terminated > 0, truncated > 0, position.length - age, gamma)
    counts = take(rows.counts, row % shape.steps, env)
    since, episode = counts[..., _SINCE], counts[..., _EPISODE]
    obs, next_obs = stack_of(row - 1, since), stack_of(row + last, since + last + 1)
    newest = store.newest[:, _EPISODE].at[env].get(mode="promise_in_bounds")
    weight = jnp.where(shape.is_lost(since, episode, newest), jnp.zeros(index.shape), jnp.ones(index.shape))
    return Batch(Transition(obs, window[0][0], reward, discount, next_obs), weight, index)


def _add(store: FrameStore, position: Position, obs: Array, action: Array, step: Step, shape: StackShape) -> FrameStore:
    """Writes one step of every environment, and the first pictures of the episodes that begin with it."""
    rows, before, num_envs = store.rows, store.newest, obs.shape[0]
    begins = before[:, _ENDED] > 0
    since = jnp.where(begins, jnp.zeros_like(before[:, _SINCE]), before[:, _SINCE] + 1)
    counts = jnp.stack([since, before[:, _EPISODE] + before[:, _ENDED]], -1)
    done = (step.terminated | step.truncated).astype(jnp.int32)
    ends = [x.astype(jnp.float32)[:, None] for x in (step.reward, step.terminated, step.truncated)]
    first = shape.first_place(counts[:, _EPISODE])
    place = jnp.where(begins, first, jnp.full_like(first, shape.places))  # beyond the table, nothing is written
    pictures = write_row(rows.pictures, position, step.next_obs[:, -1].reshape(num_envs, -1))
    pictures = pictures.at[place, jnp.arange(num_envs)].set(obs[:, -1].reshape(num_envs, -1), mode="drop")
    columns = write_row(rows.columns, position, jnp.concatenate([action, *ends], -1))
    rows = FrameRows(columns, write_row(rows.counts, position, counts), pictures)
    return FrameStore(rows, jnp.concatenate([counts, done[:, None]], -1))


def _fetch_firsts(rows: FrameRows, counts: HostArray, shape: StackShape) -> dict[str, HostArray]:
    """First pictures of the episodes that begin with rows whose counts are `[n, S, E, 2]`."""
    begins = counts[..., _SINCE] == 0
    _, seed, env = np.nonzero(begins)
    place, lanes = shape.first_place(counts[begins][:, _EPISODE]), rows.pictures.shape[0]
    of_seed = np.bincount(seed, minlength=lanes)
    room = 1 << int(of_seed.max() - 1).bit_length() if len(seed) else 0  # few sizes, as each is a program
    wanted = np.zeros((2, lanes, room), np.int32)
    found = np.zeros((len(seed), rows.pictures.shape[-1]), rows.pictures.dtype)
    for s in range(lanes):
        wanted[:, s, : of_seed[s]] = place[seed == s], env[seed == s]
    taken = np.asarray(_take_pictures(rows.pictures, *wanted)) if room else found[None]
    for s in range(counts.shape[1]):
        found[seed == s] = taken[s, : of_seed[s]] if room else found
    return {BEGINS: begins, FIRSTS: found}


@jax.jit
def _take_pictures(pictures: Array, place: Array, env: Array) -> Array:
    """Pictures of every lane, `[L, m, H·W·C]`; lanes stay where they are."""
    return jax.vmap(lambda pictures, place, env: pictures[place, env])(pictures, place, env)
