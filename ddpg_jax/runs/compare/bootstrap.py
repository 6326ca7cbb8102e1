"""Statistics of few runs on one or more tasks, with intervals by the stratified bootstrap.

Scores are a list of arrays, one for each task, of one number for each run (a seed); tasks may have unequal numbers of
runs. A resample draws as many runs as there are, with replacement, within each task; tasks are not drawn. Every draw is
a function of a name, so that files repeat and a group's interval does not depend on what stands beside it.

References:
  Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (arXiv:2108.13264).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np

from ddpg_jax.rng import HostStream
from ddpg_jax.runs.statistics import Interval, interquartile_mean
from ddpg_jax.types import HostArray

CURVE_REPETITIONS = 2_000
TABLE_REPETITIONS = 50_000
LEAST_SEEDS = 3
"""With fewer there is no interval: a resample of two runs is one of three numbers."""

_CONFIDENCE = 0.95
_AT_ONCE = 2**22

Scores: TypeAlias = Sequence[HostArray]


class Estimate(NamedTuple):
    """A statistic and its 95% interval; None: there are too few runs for one."""

    value: float
    interval: Interval | None


class Band(NamedTuple):
    """A statistic at each of K places, with the ends of its 95% interval; None: there are too few runs for one.

    Attributes:
      centre: `[K]`.
      low: `[K]`.
      high: `[K]`.
    """

    centre: HostArray
    low: HostArray | None
    high: HostArray | None


def draw_runs(num_runs: int, repetitions: int, name: str) -> HostArray:
    """Indices of the runs in each resample, `[repetitions, num_runs]`; the same for the same name."""
    return HostStream(0, f"bootstrap/{name}").at(0).integers(0, num_runs, (repetitions, num_runs))


def interval_of(estimates: HostArray, method: str = "linear") -> tuple[HostArray, HostArray]:
    """The ends of the percentile interval, `[repetitions, ...] -> [...]` each."""
    tails = [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]
    low, high = np.quantile(estimates, tails, axis=0, method=method)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return low, high


def optimality_gap(scores: HostArray, optimum: float = 1.0) -> HostArray:
    """How far scores stay behind an optimum, those above it counting as it, `[..., S] -> [...]`."""
    return optimum - np.minimum(scores, optimum).mean(-1)


def resample_curve(returns: HostArray, name: str) -> HostArray:
    """Interquartile means of a curve's resamples, in which a run is drawn with all of its evaluations.

    Args:
      returns: of each evaluation and run, `[N, S]`.
      name: of the draws.

    Returns:
      `[CURVE_REPETITIONS, N]`.
    """
    draws = draw_runs(returns.shape[1], CURVE_REPETITIONS, name)
    rows = max(1, _AT_ONCE // draws.size)
    parts = [interquartile_mean(returns[i : i + rows][:, draws]) for i in range(0, len(returns), rows)]
    return np.concatenate(parts).T


def estimate_centre(scores: Scores, names: Sequence[str]) -> Estimate:
    """The interquartile mean of all runs of all tasks together.

    Args:
      scores: of each task, `[S]`.
      names: of the draws of each task.
    """
    value = interquartile_mean(np.concatenate(scores)).item()
    if not _enough(scores):
        return Estimate(value, None)
    return Estimate(value, _ends(interquartile_mean(_resample(scores, names))))


def estimate_gap(scores: Scores, names: Sequence[str]) -> Estimate:
    """The optimality gap of scores in which 1 is the optimum; arguments as in `estimate_centre`."""
    value = optimality_gap(np.concatenate(scores)).item()
    return Estimate(value, _ends(optimality_gap(_resample(scores, names))) if _enough(scores) else None)


def performance_profile(scores: Scores, thresholds: HostArray, names: Sequence[str]) -> Band:
    """The share of runs whose score lies above each of some thresholds, over all tasks together.

    Args:
      scores: of each task, `[S]`.
      thresholds: `[K]`.
      names: of the draws of each task.
    """
    above = [(each[:, None] > thresholds).astype(np.float64) for each in scores]
    total = sum(map(len, scores))
    centre = np.concatenate(above).mean(0)
    if not _enough(scores):
        return Band(centre, None, None)
    counts = [_count(len(each), CURVE_REPETITIONS, name) for each, name in zip(scores, names, strict=True)]
    drawn = sum((count @ each for count, each in zip(counts, above, strict=True)), np.zeros(()))
    return Band(centre, *interval_of(drawn / total))


def probability_of_improvement(first: Scores, second: Scores, names: Sequence[tuple[str, str]]) -> Estimate:
    """How probable it is that a run of the first is better than one of the second on the same task, tasks averaged.

    Args:
      first: scores of each task, `[Sx]`.
      second: scores of the same tasks, `[Sy]`.
      names: of the draws of both, task by task.

    Returns:
      The mean over tasks of P(X > Y) + P(X = Y) / 2.
    """
    won = [(x[:, None] > y).astype(np.float64) + 0.5 * (x[:, None] == y) for x, y in zip(first, second, strict=True)]
    value = float(np.mean([each.mean() for each in won]))
    if not (_enough(first) and _enough(second)):
        return Estimate(value, None)
    drawn = np.zeros(TABLE_REPETITIONS)
    for each, (x, y) in zip(won, names, strict=True):
        counts_x, counts_y = (_count(n, TABLE_REPETITIONS, name) for n, name in zip(each.shape, (x, y), strict=True))
        drawn += ((counts_x @ each) * counts_y).sum(1) / each.size
    return Estimate(value, _ends(drawn / len(won)))


def steps_to_reach(steps: HostArray, curves: HostArray, levels: HostArray) -> HostArray:
    """The first evaluation at which a curve is at each level; infinite where it never is.

    Args:
      steps: of the evaluations, `[N]`.
      curves: `[R, N]`.
      levels: `[K]`.

    Returns:
      `[R, K]`.
    """
    highest = np.maximum.accumulate(curves, axis=1)
    never = np.append(steps.astype(np.float64), np.inf)
    return np.stack([never[np.searchsorted(each, levels)] for each in highest])


@lru_cache(maxsize=16)  # each group is compared with all others
def _count(num_runs: int, repetitions: int, name: str) -> HostArray:
    """How often each run is drawn in each resample, `[repetitions, num_runs]`; not to be written to."""
    draws = draw_runs(num_runs, repetitions, name) + num_runs * np.arange(repetitions)[:, None]
    return np.bincount(draws.ravel(), minlength=draws.size).reshape(draws.shape).astype(np.float64)


def _resample(scores: Scores, names: Sequence[str]) -> HostArray:
    """The scores of all tasks together in each resample, `[repetitions, runs]`."""
    return np.concatenate(
        [each[draw_runs(len(each), TABLE_REPETITIONS, name)] for each, name in zip(scores, names, strict=True)], 1
    )


def _enough(scores: Scores) -> bool:
    return min(map(len, scores)) >= LEAST_SEEDS


def _ends(estimates: HostArray) -> Interval:
    low, high = interval_of(estimates)
    return float(low), float(high)
