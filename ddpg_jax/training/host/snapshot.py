"""What the host loop is between two iterations, how it is put into a snapshot, and how it is taken up again.

Batches that were drawn already are not kept: a draw is a function of the seed, the number of its call and the ring, and
the ring is as it was then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.errors import StorageError
from ddpg_jax.replay.host.frames import FRAMES, frame_row_dtype
from ddpg_jax.replay.host.ring import row_dtype
from ddpg_jax.runs.pytrees import form, from_host, to_host
from ddpg_jax.training.host.episodes import EpisodeLog, PastEpisodes, replay_episodes
from ddpg_jax.training.host.metrics import END_INFO, EpisodeMetrics
from ddpg_jax.training.host.rewards import RewardScale
from ddpg_jax.types import EnvSpec, HostArray, Snapshot, TrainState, Tree

if TYPE_CHECKING:
    from ddpg_jax.envs.host.workers import HostEnv
    from ddpg_jax.replay.host.ring import Ring

_BLOCK = 2**12

_REWARDS = "reward_scale"

Errors = list[tuple[HostArray, Any]]
"""Of calls of the update: where their transitions stand, `[S, U, B]`, and their errors, likewise or `()`."""


class HostCarry(NamedTuple):
    """What an iteration begins with.

    Attributes:
      iteration: iterations that are done.
      learner: the learner, leaves `[S, ...]`.
      act_state: of the exploration, leaves `[S, E, ...]`.
      obs: to act on next, `[S, E, *O]`.
      first: whether an episode begins with it, `[S, E]`.
      pending_action: the action, `[S, E, A]`, if it was chosen and the updates were made before an environment failed;
        else None.
      delayed_errors: errors to be written back after the next step, if an action was chosen.
      new_errors: errors of the updates made last.
    """

    iteration: int
    learner: TrainState
    act_state: Tree
    obs: HostArray
    first: HostArray
    pending_action: HostArray | None
    delayed_errors: Errors
    new_errors: Errors


class HostBuffers(NamedTuple):
    """What the loop keeps in place."""

    ring: Ring
    metrics: EpisodeMetrics
    episodes: EpisodeLog
    rewards: RewardScale | None = None


class ReplayedEpisodes(NamedTuple):
    """A snapshot, and environments that have played its episodes again.

    Attributes:
      snapshot: the loop, as it was.
      obs: to act on next, `[S, E, *O]`.
      again: where that is the first of a new episode, as the old one did not repeat itself, bool `[S, E]`.
      doubts: why the loop may not go on to the bit, though no episode in progress says so; a line for each reason.
    """

    snapshot: Snapshot
    obs: HostArray
    again: HostArray
    doubts: tuple[str, ...] = ()


def init_carry(learner: TrainState, act_state: Tree, lanes: HostEnv) -> HostCarry:
    """The state of a run that begins."""
    obs = lanes.reset()
    return HostCarry(0, learner, act_state, obs, np.ones(obs.shape[:2], bool), None, [], [])


def snapshot(carry: HostCarry, buffers: HostBuffers, seconds: Mapping[str, float]) -> Snapshot:
    """Everything as arrays by name."""
    ring, action_size = buffers.ring, buffers.ring.spec.action_size
    pending_action = (
        np.zeros((0, *carry.first.shape, action_size), np.float32)
        if carry.pending_action is None
        else carry.pending_action[None]
    )
    arrays = to_host(
        {
            "iteration": np.int64(carry.iteration),
            "learner": carry.learner,
            "act_state": carry.act_state,
            "obs": carry.obs,
            "first": carry.first,
            "chosen": pending_action,
            "late": _stack(carry.delayed_errors, ring),
            "returned": _stack(carry.new_errors, ring),
            "ring": ring.extra_state(),
            "meter": buffers.metrics.state(),
            "journal": buffers.episodes.state(action_size),
        }
        | ({} if buffers.rewards is None else {_REWARDS: buffers.rewards.state()})
    )
    first, stop = ring.row_range
    return Snapshot(arrays, first, stop, ring.rows, dict(seconds))


def replay_snapshot(snapshot: Snapshot, lanes: HostEnv) -> ReplayedEpisodes:
    """Plays the episodes of a snapshot again, and where there is none in progress the one before.

    Raises:
      StorageError: it is not one of these environments.
      EnvironmentFault: an environment failed.
    """
    arrays, fresh = snapshot.arrays, lanes.reset()
    shape = fresh.shape[0], fresh.shape[1]
    obs = _check_forms(arrays, {"obs": fresh})["obs"]
    episodes = _part(arrays, "journal", EpisodeLog(shape).state(lanes.spec.action_size), free=("actions",))
    if not (episodes["length"].min() >= 0 and episodes["length"].max() == len(episodes["actions"])):
        raise StorageError("the checkpoint does not hold the actions of its episodes")
    returns = _check_forms(arrays, {"meter/return": np.zeros(shape)})["meter/return"]
    between = (episodes["length"] == 0) & (episodes["episode"] > 0)
    past = _past_episodes(snapshot, lanes.spec, between)
    replay = replay_episodes(lanes, episodes, obs, returns, past)
    unknown = between & (past.length == 0)
    return ReplayedEpisodes(
        snapshot, replay.obs, replay.again, _doubts(replay.unlike, unknown, lanes.traits.statistics)
    )


def _doubts(unlike: HostArray, unknown: HostArray, statistics: tuple[str, ...]) -> tuple[str, ...]:
    found = {
        f"the last whole episode of {unlike.sum()} environments did not repeat itself to the bit: something in them "
        "outlives an episode, and begins anew here": unlike.any(),
        f"the last whole episode of {unknown.sum()} environments could not be compared: the replay does not hold it": (
            unknown.any()
        ),
        f"the statistics of {', '.join(statistics)} begin anew here": bool(statistics),
    }
    return tuple(line for line, holds in found.items() if holds)


def _past_episodes(snapshot: Snapshot, spec: EnvSpec, between: HostArray) -> PastEpisodes:
    """The last whole episodes of the lanes that are between two, bool `[S, E]`, as the replay holds them."""
    first, start = snapshot.first_row, snapshot.stop_row
    once = FRAMES in snapshot.read_rows(first, first)
    dtype = frame_row_dtype(spec) if once else row_dtype(spec)
    pictures = {FRAMES: np.empty((0, *between.shape, *spec.obs_shape[1:]), spec.obs_dtype)} if once else {}
    blocks, frames = [np.zeros((0, *between.shape), dtype)], list(pictures.values())
    length, sought = np.zeros(between.shape, np.int64), between.copy()
    while sought.any() and start > first:
        stop, start = start, max(first, start - _BLOCK)
        like = {"rows": np.empty((0, *between.shape, dtype.itemsize), np.uint8)} | pictures
        like = {name: np.empty((stop - start, *x.shape[1:]), x.dtype) for name, x in like.items()}
        read = _check_forms(snapshot.read_rows(start, stop), like)
        blocks.insert(0, block := np.ascontiguousarray(read["rows"]).view(dtype)[..., 0])
        frames[:0] = [read[FRAMES]] if once else []
        done = block["terminated"] | block["truncated"]
        for lane in np.argwhere(sought):
            s, e = lane.tolist()
            ends = np.flatnonzero(done[: snapshot.stop_row - 1 - start, s, e])  # but for that of the episode itself
            if len(ends) or start == 0:
                began = start + int(ends[-1]) + 1 if len(ends) else 0
                length[s, e], sought[s, e] = snapshot.stop_row - began, False
    rows = np.concatenate(blocks)
    needed = slice(len(rows) - int(length.max()), None)
    next_obs = np.concatenate(frames) if once else rows["next_obs"]
    return PastEpisodes(length, rows["action"][needed], rows["reward"][needed], next_obs[needed])


def restore(begun: ReplayedEpisodes, learner: TrainState, act_state: Tree, buffers: HostBuffers) -> HostCarry:
    """Fills what the loop keeps, and returns where it was.

    Args:
      begun: where that was.
      learner: any of its states, of the structure that is expected.
      act_state: likewise.
      buffers: empty.

    Raises:
      StorageError: the snapshot is not one of this configuration.
    """
    arrays, again = begun.snapshot.arrays, begun.again
    lanes = (1, *again.shape, buffers.ring.spec.action_size)
    source = "the checkpoint"
    learner, act_state = (
        jax.tree.map(jnp.array, from_host(like, arrays, name, source))
        for name, like in (("learner", learner), ("act_state", act_state))
    )
    loose = {"iteration": np.array(0, np.int64), "first": again, "chosen": np.zeros(lanes, np.float32)}
    plain = _check_forms(arrays, loose, free=("chosen",))
    _restore_ring(begun.snapshot, buffers.ring)
    noted = {
        name: array
        for name, array in buffers.metrics.state().items()
        if f"meter/{name}" in arrays or not name.startswith(END_INFO)
    }
    ends = "ends", "end_returns", *(name for name in noted if name.startswith(END_INFO))
    buffers.metrics.restore(_part(arrays, "meter", noted, free=("pending", *ends)))
    buffers.episodes.restore(_part(arrays, "journal", buffers.episodes.state(lanes[-1]), free=("actions",)), again)
    if buffers.rewards is not None:
        buffers.rewards.restore(_part(arrays, _REWARDS, buffers.rewards.state()))
    cut_episodes(buffers, again)
    delayed_errors, new_errors = (_unstack(arrays, name, buffers.ring) for name in ("late", "returned"))
    pending_action = plain["chosen"][0] if len(plain["chosen"]) else None
    return HostCarry(
        int(plain["iteration"]),
        learner,
        act_state,
        begun.obs,
        plain["first"] | again,
        pending_action,
        delayed_errors,
        new_errors,
    )


def cut_episodes(buffers: HostBuffers, lanes: HostArray) -> None:
    """Ends the episodes in progress of some lanes, bool `[S, E]`, where they are: they could not be taken up again."""
    buffers.metrics.abandon(lanes)
    if buffers.rewards is not None:
        buffers.rewards.abandon(lanes)
    if lanes.any():
        buffers.ring.cut(lanes)


def _restore_ring(snapshot: Snapshot, ring: Ring) -> None:
    def read(first: int, stop: int) -> dict[str, HostArray]:
        like = {name: np.empty((stop - first, *x.shape[1:]), x.dtype) for name, x in none.items()}
        return _check_forms(snapshot.read_rows(first, stop), like, free=tuple(name for name in none if "@" in name))

    none = ring.rows(0, 0)
    extra_state = _part(snapshot.arrays, "ring", ring.extra_state())
    try:
        ring.restore(snapshot.first_row, snapshot.stop_row, read, extra_state)
    except ValueError as error:
        raise StorageError(f"the checkpoint does not fit the configuration: {error}") from error


def _part(
    arrays: Mapping[str, HostArray], prefix: str, like: Mapping[str, HostArray], free: tuple[str, ...] = ()
) -> dict[str, HostArray]:
    """The arrays whose names begin with a prefix, without it."""
    expected = {f"{prefix}/{name}": array for name, array in like.items()}
    found = _check_forms(arrays, expected, tuple(f"{prefix}/{name}" for name in free))
    return {name.removeprefix(f"{prefix}/"): array for name, array in found.items()}


def _check_forms(
    arrays: Mapping[str, HostArray], like: Mapping[str, HostArray], free: tuple[str, ...] = ()
) -> dict[str, HostArray]:
    """Arrays by name, of the forms expected, but for the first axis where it is free, and the second of "pending".

    Raises:
      StorageError: one is missing, or another.
    """

    def shown(array: HostArray | None, name: str) -> str:
        return f"{array.dtype.name} {array.ndim}" if name in free and array is not None else form(array)

    wrong = [name for name, array in like.items() if shown(arrays.get(name), name) != shown(array, name)]
    if wrong:
        lines = [f"{name}: expected {form(like[name])}, found {form(arrays.get(name))}" for name in wrong[:10]]
        raise StorageError("the checkpoint does not fit the configuration:\n  " + "\n  ".join(lines))
    return {name: arrays[name] for name in like}


def _stack(errors: Errors, ring: Ring) -> dict[str, Any]:
    """Errors of several calls, one array for each part; nothing where nobody asks for them."""
    if not ring.weighted or not errors:
        return {}
    return {"index": np.stack([index for index, _ in errors]), "td_error": jnp.stack([error for _, error in errors])}


def _unstack(arrays: Mapping[str, HostArray], name: str, ring: Ring) -> Errors:
    index, td_error = (arrays.get(f"{name}/{part}") for part in ("index", "td_error"))
    if not ring.weighted or index is None or td_error is None:
        return []
    if index.shape != td_error.shape or index.dtype != np.int64 or index.ndim != 4:
        raise StorageError(f"the checkpoint does not fit the configuration: {name}: {form(index)}, {form(td_error)}")
    return list(zip(index, td_error, strict=True))
