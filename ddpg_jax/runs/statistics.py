"""Statistics over seeds: the interquartile mean with a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np

if TYPE_CHECKING:
    from ddpg_jax.types import Evaluation, HostArray

Interval: TypeAlias = tuple[float, float]


class Summary(TypedDict):
    """What is said of the returns `[S, episodes]` of an evaluation; the statistics are over the means of the seeds."""

    per_seed: list[float]
    mean: float
    median: float
    interquartile_mean: float
    interval: Interval | None
    confidence: float
    meaning: str
    returns: list[list[float]]


def interquartile_mean(scores: HostArray, axis: int = -1) -> HostArray:
    """The mean of the middle half, `[..., S] -> [...]`.

    A quarter of the scores, rounded down, is left out at each end. It is the trimmed mean of SciPy to the bit, whose
    import takes longer than all that is computed here.

    References:
      Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (arXiv:2108.13264).
    """
    scores = np.asarray(scores)
    count = scores.shape[axis]
    low, high = count // 4, count - count // 4
    parted = np.moveaxis(np.partition(scores, (low, high - 1), axis), axis, 0)
    return np.asarray(np.mean(np.moveaxis(parted[low:high], 0, axis), axis=axis))


def bootstrap_interval(scores: HostArray, confidence: float = 0.95) -> Interval | None:
    """Percentile bootstrap interval of the interquartile mean over seeds.

    Args:
      scores: one for each seed, `[S]`.
      confidence: coverage in (0, 1).

    Returns:
      Lower and upper end; None with fewer than two seeds. The 2000 resamples are always the same. With few seeds it
      is too narrow: see `COVERAGE`.
    """
    if len(scores) < 2:
        return None
    draws = np.random.default_rng(0).integers(0, len(scores), (2000, len(scores)))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(interquartile_mean(np.asarray(scores)[draws]), tails)
    return float(low), float(high)


def centre_name(num_seeds: int) -> str:
    """What the interquartile mean of so many seeds is: with fewer than four none is left out."""
    return "interquartile mean" if num_seeds > 3 else "mean" if num_seeds > 1 else "return"


COVERAGE = {3: 75, 4: 87, 5: 89, 6: 90, 7: 92}
"""How many per cent of the 95% bootstrap intervals of so few seeds cover the centre of a normal distribution."""


def interval_name(num_seeds: int) -> str:
    """What the interval of so many seeds is: the bootstrap's of two is their range, and of few it covers less."""
    if num_seeds < 3:
        return "range"
    covered = f" (covers {COVERAGE[num_seeds]}% with so few seeds)" if num_seeds in COVERAGE else ""
    return f"95% bootstrap interval{covered}"


def _meaning(num_seeds: int) -> str:
    """What the interquartile mean and the interval of so many seeds are, for who reads them in a file."""
    if num_seeds < 2:
        return "interquartile_mean is the return of the one seed"
    centre, interval = centre_name(num_seeds), interval_name(num_seeds)
    return f"interquartile_mean is the {centre} of {num_seeds} seeds, interval their {interval}"


def show_return(value: float) -> str:
    """A return for people to read: with one decimal, and with more where that leaves fewer than four figures."""
    exact = f"{value:.4g}"
    return exact if abs(value) < 100 and "." in exact else f"{value:.1f}"


def show_setting(value: Any) -> str:
    """A value of a configuration for people to read: numbers by three figures, those near 1 by what they lack to it."""
    if value is None:
        return "none"
    if not isinstance(value, float):
        return str(value)
    if not 0.9 < value < 1:
        return f"{value:.3g}"
    decimals = 2 - math.floor(math.log10(1 - value))
    return f"{value:.{decimals}f}".rstrip("0")


def score_line(summary: Summary | Mapping[str, Any]) -> str:
    """The centre of the seeds with its interval, and the median, in a line, each by the name that it deserves."""
    seeds, interval = len(summary["per_seed"]), summary["interval"]
    shown = f"{centre_name(seeds)} {show_return(summary['interquartile_mean'])}"
    if seeds < 2 or interval is None:
        return shown
    shown += f" [{', '.join(map(show_return, interval))}]" + ("" if seeds > 2 else ", the two seeds")
    return f"{shown}, median {show_return(summary['median'])}" if seeds > 2 else shown


def summarize(returns: HostArray, confidence: float = 0.95) -> Summary:
    """Summary of the returns `[S, episodes]` of an evaluation."""
    per_seed = returns.mean(1)
    return Summary(
        per_seed=per_seed.tolist(),
        mean=float(per_seed.mean()),
        median=float(np.median(per_seed)),
        interquartile_mean=float(interquartile_mean(per_seed)),
        interval=bootstrap_interval(per_seed, confidence),
        confidence=confidence,
        meaning=_meaning(len(per_seed)),
        returns=returns.tolist(),
    )


def mean_info(evaluation: Evaluation, i: int) -> dict[str, float]:
    """What the ends of the episodes of seed number i said, on average over those that said something."""
    said = {key: values[i][np.isfinite(values[i])] for key, values in dict(evaluation.info).items()}
    return {f"info/{key}": float(values.mean()) for key, values in said.items() if len(values)}
