"""What the lanes of a sweep have reached, and the ranking that comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.importance import importance
from ddpg_jax.runs.statistics import bootstrap_interval, interquartile_mean
from ddpg_jax.training.sweep.grid import Sweep
from ddpg_jax.training.sweep.lanes import LaneBatch, SweepReport
from ddpg_jax.types import HostArray


class Ranking:
    """The final evaluations of all lanes as they come in, and which lanes have diverged.

    Args:
      sweep: whose lanes they are.
      kept: from `arrays`, of the same sweep; None: nothing is reached yet.

    Raises:
      StorageError: what was kept is of another sweep.
    """

    def __init__(self, sweep: Sweep, kept: Mapping[str, HostArray] | None = None) -> None:
        self._sweep = sweep
        self._seeds = sweep.configs[0].seed_list
        shape = len(sweep.combinations), len(self._seeds)
        self.arrays: dict[str, HostArray] = {
            "mean": np.full(shape, np.nan),
            "step": np.zeros(shape, np.int64),
            "diverged": np.zeros(shape, bool),
            "faulty": np.zeros(shape, bool),
        }
        """all that it holds, `[combinations, seeds]` each"""
        if kept is not None:
            for name, array in self.arrays.items():
                if name not in kept or (kept[name].shape, kept[name].dtype) != (array.shape, array.dtype):
                    raise StorageError(f"the checkpoint is of another sweep: {name} is missing or of another shape")
                array[...] = kept[name]
        self._mean, self._step, self._diverged, self._faulty = self.arrays.values()

    def mark_failed(self, report: SweepReport) -> None:
        """Marks the lanes whose environment reported a number that is not finite, or that are frozen."""
        rejected = np.asarray(report.report.state.rejected)
        for i, lane in enumerate(report.batch.lanes):
            self._faulty[lane] |= bool(report.told.faulty[i]) and not self._diverged[lane]
            limit = self._sweep.configs[lane[0]].algorithm.max_rejected
            self._diverged[lane] |= bool(rejected[i].max() >= limit) and not self._faulty[lane]

    def record_evaluation(self, batch: LaneBatch, step: int, returns: HostArray) -> list[dict[str, Any]]:
        """Notes an evaluation `[L, episodes]` and returns its rows, of the lanes that have not diverged."""
        rows: list[dict[str, Any]] = []
        for lane, each in zip(batch.lanes, returns, strict=False):
            self._diverged[lane] |= not np.isfinite(each).all() and not self._faulty[lane]
            lost = self._diverged[lane] or self._faulty[lane]
            self._mean[lane] = np.nan if lost else each.mean()
            self._step[lane] = step
            if not lost:
                where = {"combination": lane[0], "event": "evaluation", "seed": self._seeds[lane[1]], "step": step}
                rows.append({**where, "mean_return": float(each.mean()), "returns": each.tolist()})
        return rows

    def median(self, batch: LaneBatch) -> float | None:
        """The median of the last evaluations of a turn's lanes."""
        means = np.array([self._mean[lane] for lane in batch.lanes])
        return float(np.median(means[np.isfinite(means)])) if np.isfinite(means).any() else None

    def result(self) -> dict[str, Any]:
        """The combinations: those run to their end first, the best on top, those without a finite evaluation last."""
        entries = [self._entry(i) for i in range(len(self._mean))]
        ended = {i: entry["step"] >= self._sweep.configs[i].total_steps for i, entry in enumerate(entries)}
        entries.sort(key=lambda entry: (ended[entry["combination"]], _score(entry)), reverse=True)
        complete = all(ended.values())
        env = self._sweep.configs[0].env.id
        finished = sorted(number for number, at_end in ended.items() if at_end)
        seeds = list(self._seeds)
        told = {"env": env, "seeds": seeds, "complete": complete, "finished": finished}
        return told | {"importance": importance(entries), "combinations": entries}

    def _entry(self, number: int) -> dict[str, Any]:
        means = self._mean[number]
        whole = bool(np.isfinite(means).all())
        return {
            "combination": number,
            "values": self._sweep.combinations[number],
            "step": int(self._step[number].min()),
            "interquartile_mean": float(interquartile_mean(means)) if whole else None,
            "interval": bootstrap_interval(means) if whole else None,
            "per_seed": [float(mean) if np.isfinite(mean) else None for mean in means],
            "diverged_seeds": int(self._diverged[number].sum()),
            "faulty_seeds": int(self._faulty[number].sum()),
        }


def _score(entry: dict[str, Any]) -> float:
    return -np.inf if entry["interquartile_mean"] is None else entry["interquartile_mean"]
