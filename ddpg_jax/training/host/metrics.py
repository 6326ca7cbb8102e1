"""Bookkeeping of the host loop: episode statistics, and update metrics that stay on the device until they are wanted.

An episode's predicted Q is averaged over the updates applied while it lasted. Those numbers are on the device when the
episode ends, so an end is only noted, and settled at the next report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.errors import NotFiniteError
from ddpg_jax.types import Array, HostArray, Row, Step

_NOTED = ("return", "length", "episode", "began", "began_q", "q_sum", "applied")
"""The arrays of a meter that have a fixed shape."""

END_INFO = "end_info/"
"""Before the keys of the info in the names of a meter's arrays; which there are may change at a resume."""

_ADVICE = "lower algorithm.critic_learning_rate, or set algorithm.max_grad_norm"


class _End(NamedTuple):
    step: int
    updates: int
    seed: int
    env: int
    episode_return: float
    length: int
    info: tuple[float, ...] = ()


class EpisodeMetrics:
    """Statistics of S x E lanes and of the updates of S seeds.

    Args:
      seeds: the seeds of the run, for the rows.
      num_envs: E.
      names: names of the metrics, in the order of the arrays given to `on_update`.
      info_keys: names of the numbers that come with an episode's end.
    """

    def __init__(
        self, seeds: tuple[int, ...], num_envs: int, names: tuple[str, ...], info_keys: tuple[str, ...] = ()
    ) -> None:
        shape = (len(seeds), num_envs)
        self._seeds, self._names, self._keys = seeds, names, info_keys
        self._max_q, self._rejected = names.index("max_q"), names.index("rejected")
        self._return, self._length = np.zeros(shape), np.zeros(shape, np.int64)
        self._episode = np.zeros(shape, np.int64)
        self._began = np.zeros(shape, np.int64)  # updates applied when the episode began
        self._began_q = np.zeros(shape)  # running sum of the largest Q at that update
        self._q_sum = np.zeros(len(seeds))  # the same sum at the last report
        self._applied = np.zeros(len(seeds), np.int64)  # updates applied until then
        self._settled = 0  # updates made at the last report
        self._updates = 0
        self._pending: list[Array] = []
        self._ends: list[_End] = []

    def on_step(self, step: Step, at: int, info: HostArray | None = None) -> HostArray:
        """Notes a step of all lanes.

        Args:
          step: what the lanes reported, leaves `[S, E]`.
          at: environment steps of each seed, this one included.
          info: what the ends say under `info_keys`, `[S, E, K]`.

        Returns:
          Where an episode ended, bool `[S, E]`.
        """
        self._return += step.reward
        self._length += 1
        done: HostArray = step.terminated | step.truncated
        if done.any():
            for seed, env in np.argwhere(done).tolist():
                ended = float(self._return[seed, env]), int(self._length[seed, env])
                said = () if info is None else tuple(info[seed, env].tolist())
                self._ends.append(_End(at, self._updates, seed, env, *ended, said))
            self._return[done], self._length[done] = 0.0, 0
        return done

    def on_update(self, metrics: Array) -> None:
        """Notes the metrics `[S, U, K]` of a call, without waiting for them."""
        self._pending.append(metrics)
        self._updates += metrics.shape[1]

    def flush(self, step: int, diagnostics: Mapping[str, Array] | None = None) -> list[Row]:
        """Fetches what is pending and turns it into rows.

        Args:
          step: environment steps of each seed so far.
          diagnostics: of the learners of now, `[S]` by name, for the rows of updates.

        Returns:
          A row for each episode that ended and, if there were updates, one for each seed with their means.

        Raises:
          NotFiniteError: a metric is NaN or infinite; it names the seed, the metric and the first such update. Or one
            of the diagnostics is, where the last update itself broke the parameters.
        """
        blocks: list[HostArray] = jax.device_get(self._pending)
        num_seeds = len(self._seeds)
        metrics = np.concatenate(blocks, 1) if blocks else np.zeros((num_seeds, 0, len(self._names)), np.float32)
        self._check(metrics)
        sums, applied = self._running(metrics)
        rows: list[Row] = []
        for end in self._ends:
            at = end.seed, end.updates - self._settled
            rows.append(self._episode_row(end, float(sums[at]), int(applied[at])))
        found = jax.device_get(dict(diagnostics or {}))
        diverging = metrics[:, -1:, self._rejected].any(1)  # such a seed may be odd, and is marked
        for name, values in found.items():
            if not (whole := np.isfinite(values) | diverging).all():
                seed = self._seeds[int(np.argmin(whole))]
                raise NotFiniteError(f"seed {seed}: {name} is not finite after {self._updates} updates; {_ADVICE}")
        of_seed = [{name: float(x[i]) for name, x in found.items() if np.isfinite(x[i])} for i in range(num_seeds)]
        rows += [self._update_row(i, step, metrics[i]) | of_seed[i] for i in range(num_seeds) if metrics.shape[1]]
        self._q_sum, self._applied, self._settled = sums[:, -1], applied[:, -1], self._updates
        self._pending, self._ends = [], []
        return rows

    def abandon(self, lanes: HostArray) -> None:
        """Forgets the episodes in progress of some lanes, bool `[S, E]`: they could not be taken up again."""
        if not lanes.any():
            return
        blocks: list[HostArray] = jax.device_get(self._pending)
        empty = np.zeros((len(self._seeds), 0, len(self._names)), np.float32)
        sums, applied = self._running(np.concatenate([empty, *blocks], 1))
        self._return[lanes], self._length[lanes] = 0.0, 0
        self._episode[lanes] += 1
        self._began[lanes] = np.broadcast_to(applied[:, -1:], lanes.shape)[lanes]
        self._began_q[lanes] = np.broadcast_to(sums[:, -1:], lanes.shape)[lanes]

    @property
    def returns(self) -> HostArray:
        """Sums of rewards of the episodes in progress, `[S, E]`; do not write into it."""
        return self._return

    def state(self) -> dict[str, HostArray]:
        """All that is noted, by name, copies."""
        counters = np.array([self._updates, self._settled], np.int64)
        blocks: list[HostArray] = jax.device_get(self._pending)
        empty = np.zeros((len(self._seeds), 0, len(self._names)), np.float32)
        ends = np.array([(*end[:4], end.length) for end in self._ends], np.int64).reshape(-1, 5)
        infos = np.array([end.info for end in self._ends]).reshape(len(self._ends), len(self._keys))
        return {
            **{name: getattr(self, f"_{name}").copy() for name in _NOTED},
            "counters": counters,
            "pending": np.concatenate([empty, *blocks], 1),
            "ends": ends,
            "end_returns": np.array([end.episode_return for end in self._ends], np.float64),
            **{f"{END_INFO}{key}": infos[:, k].copy() for k, key in enumerate(self._keys)},
        }

    def restore(self, state: Mapping[str, HostArray]) -> None:
        """Takes up what another meter had noted; what it was not told of an end is left out."""
        for name in _NOTED:
            getattr(self, f"_{name}")[...] = state[name]
        self._updates, self._settled = state["counters"].tolist()
        self._pending = [jnp.asarray(state["pending"])] if state["pending"].shape[1] else []
        ends = zip(state["ends"].tolist(), state["end_returns"].tolist(), strict=True)
        unknown = np.full(len(state["ends"]), np.nan)
        infos = np.array([state.get(f"{END_INFO}{key}", unknown) for key in self._keys])
        self._ends = [
            _End(step, updates, seed, env, episode_return, length, tuple(infos[:, i].tolist()) if self._keys else ())
            for i, ((step, updates, seed, env, length), episode_return) in enumerate(ends)
        ]

    @property
    def updates(self) -> int:
        """Critic updates of each seed so far."""
        return self._updates

    def _running(self, metrics: HostArray) -> tuple[HostArray, HostArray]:
        """Running sums of the largest Q, and updates applied, before each of the pending updates and after the last."""
        q, taken = metrics[..., self._max_q], metrics[..., self._rejected] == 0
        starts = self._q_sum[:, None], self._applied[:, None]
        sums = np.cumsum(np.concatenate([starts[0], np.where(taken, q, 0.0)], 1, dtype=np.float64), 1)
        return sums, np.cumsum(np.concatenate([starts[1], taken], 1, dtype=np.int64), 1)

    def _episode_row(self, end: _End, q_sum: float, applied: int) -> Row:
        lane = end.seed, end.env
        row: Row = {
            "event": "episode",
            "seed": self._seeds[end.seed],
            "step": end.step,
            "env": end.env,
            "episode": int(self._episode[lane]),
            "episode_return": end.episode_return,
            "episode_length": end.length,
        }
        count = applied - int(self._began[lane])
        if count:
            row["episode_max_q"] = (q_sum - float(self._began_q[lane])) / count
        row |= {f"info/{key}": x for key, x in zip(self._keys, end.info, strict=True) if np.isfinite(x)}
        self._episode[lane] += 1
        self._began[lane], self._began_q[lane] = applied, q_sum
        return row

    def _update_row(self, i: int, step: int, metrics: HostArray) -> Row:
        rejected = metrics[:, self._rejected]
        applied = metrics[rejected == 0]
        row: Row = {"event": "update", "seed": self._seeds[i], "step": step, "updates": self._updates}
        if len(applied):
            row |= zip(self._names, applied.mean(0, np.float64).tolist(), strict=True)
            row["max_q"] = float(applied[:, self._max_q].max())
        return row | {"rejected": float(rejected.mean(dtype=np.float64))}

    def _check(self, metrics: HostArray) -> None:
        if np.isfinite(metrics).all():
            return
        seed, update, k = np.argwhere(~np.isfinite(metrics))[0].tolist()
        raise NotFiniteError(
            f"seed {self._seeds[seed]}: {self._names[k]} is {metrics[seed, update, k]} at update "
            f"{self._settled + update + 1}; {_ADVICE}"
        )
