"""The comparison itself: what is drawn and written in tables, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ddpg_jax.errors import ConfigError, printable
from ddpg_jax.runs.compare.bootstrap import (
    LEAST_SEEDS,
    Band,
    Estimate,
    Scores,
    estimate_centre,
    estimate_gap,
    interval_of,
    performance_profile,
    probability_of_improvement,
    resample_curve,
    steps_to_reach,
)
from ddpg_jax.runs.compare.curves import Curve, Curves, Diverged, align, common_steps
from ddpg_jax.runs.compare.evaluations import Groups
from ddpg_jax.runs.statistics import Interval, interquartile_mean
from ddpg_jax.types import HostArray

ALL_TASKS = "all tasks"
_LEVELS = 101


class Score(NamedTuple):
    """What a group reached at one evaluation.

    Attributes:
      step: of the evaluation.
      seeds: mean return of each seed, `[S]`.
      centre: their interquartile mean.
    """

    step: int
    seeds: HostArray
    centre: Estimate


class Reach(NamedTuple):
    """How many steps a group needs to a return.

    Attributes:
      steps: until its interquartile mean is there; infinite: it never is.
      interval: of them; None: there are too few seeds.
      reached: how many of its seeds are there at some evaluation.
      seconds: that its runs had taken by then; NaN: unknown.
    """

    steps: float
    interval: Interval | None
    reached: int
    seconds: float


class Compared(NamedTuple):
    """A group on a task.

    Attributes:
      curve: its seeds.
      band: their interquartile mean at each step of the curve.
      final: at the last evaluation that all groups of the task have.
      best: at the evaluation with its highest interquartile mean, among those that all groups have.
      profile: share of seeds whose final return lies above each of `Task.thresholds`.
      efficiency: steps until the interquartile mean is at each of `Task.levels`.
      reach: the same to the return `Task.target`.
    """

    curve: Curve
    band: Band
    final: Score
    best: Score
    profile: Band
    efficiency: Band
    reach: Reach


class Task(NamedTuple):
    """All groups on a task.

    Attributes:
      groups: by name.
      thresholds: returns at which the profiles are told, `[K]`.
      levels: returns to which steps are counted, `[K]`.
      target: the return of `Compared.reach`.
    """

    groups: dict[str, Compared]
    thresholds: HostArray
    levels: HostArray
    target: float


class Improvement(NamedTuple):
    """How probable it is that a seed of `better` ends above one of `worse`, and on how many tasks both were."""

    better: str
    worse: str
    probability: Estimate
    tasks: int


class Aggregate(NamedTuple):
    """A group over all tasks, by returns of which 0 and 1 were named for each."""

    centre: Estimate
    gap: Estimate
    profile: Band
    seeds: int


class Comparison(NamedTuple):
    """Groups beside each other.

    Attributes:
      groups: their names, in order.
      tasks: by name.
      improvements: of every pair of groups that have a task in common.
      aggregates: by group, of those that have every task; empty where no scale was given.
      thresholds: normalised returns at which the profiles of the aggregates are told, `[K]`.
      notes: what was left out, replaced or could not be told.
    """

    groups: tuple[str, ...]
    tasks: dict[str, Task]
    improvements: list[Improvement]
    aggregates: dict[str, Aggregate]
    thresholds: HostArray
    notes: tuple[str, ...]


Scales = Mapping[str, tuple[float, float]]
"""The returns that count as 0 and as 1, by task."""


def compare_groups(
    groups: Groups,
    *,
    diverged: Diverged = "worst",
    targets: Mapping[str, float] | None = None,
    scales: Scales | None = None,
) -> Comparison:
    """Compares groups task by task, and over all tasks.

    Args:
      groups: what is compared.
      diverged: what becomes of seeds that diverged, as in `align`.
      targets: by task, the return to which steps are counted; left out: the highest that every group ends with.
      scales: by task, which returns count as 0 and as 1; without them returns of several tasks are never added up.

    Raises:
      ConfigError: a target or scale is of no task, or scales are not given for all of them.
      StorageError: there is nothing in common to compare.
    """
    notes: list[str] = []
    curves = align(groups, diverged, notes.append)
    _check_tasks("--target", targets or {}, curves)
    _check_tasks("--normalize", scales or {}, curves)
    if scales and (missing := [printable(task) for task in curves if task not in scales]):
        raise ConfigError(
            f"--normalize is not given for {', '.join(missing)}: returns of all tasks need a scale, or none"
        )
    tasks = {task: _compare_task(task, found, (targets or {}).get(task), notes) for task, found in curves.items()}
    names = tuple(name for name in groups if any(name in task.groups for task in tasks.values()))
    _note_few_seeds(tasks, notes)
    thresholds, aggregates = _aggregate(names, tasks, scales, notes) if scales else (np.zeros(0), {})
    return Comparison(names, tasks, _improvements(names, tasks), aggregates, thresholds, tuple(notes))


def _check_tasks(option: str, named: Mapping[str, object], curves: Curves) -> None:
    for task in named:
        if task not in curves:
            there = ", ".join(map(printable, curves))
            raise ConfigError(f"{option} {printable(task)}: no run is of this task; there are: {there}")


def _compare_task(task: str, curves: dict[str, Curve], target: float | None, notes: list[str]) -> Task:
    steps = common_steps(curves)
    if not len(steps):
        notes.append(f"{task}: the groups share no step of evaluation; each is scored at its own last one, as it says")
    drawn = {name: resample_curve(curve.returns, f"curve/{task}/{name}") for name, curve in curves.items()}
    bands = {name: _band(curve, drawn[name]) for name, curve in curves.items()}
    final = {
        name: _score(task, name, curve, (steps if len(steps) else curve.steps)[-1]) for name, curve in curves.items()
    }
    every = np.concatenate([curve.returns.ravel() for curve in curves.values()])
    levels = np.linspace(every.min(), every.max(), _LEVELS)
    thresholds = _thresholds(np.concatenate([score.seeds for score in final.values()]))
    # Read off the curves, whose last bits may differ from those of the scores.
    ends = [bands[name].centre[np.searchsorted(curves[name].steps, final[name].step)] for name in curves]
    goal = float(min(ends)) if target is None else target
    compared: dict[str, Compared] = {}
    for name, curve in curves.items():
        band, at = bands[name], steps if len(steps) else curve.steps
        best = at[int(np.argmax(band.centre[np.searchsorted(curve.steps, at)]))]
        compared[name] = Compared(
            curve,
            band,
            final[name],
            _score(task, name, curve, best),
            performance_profile([final[name].seeds], thresholds, [_stream(task, name)]),
            _efficiency(curve, band, drawn[name], levels),
            _reach(curve, band, drawn[name], goal),
        )
    return Task(compared, thresholds, levels, goal)


def _stream(task: str, group: str) -> str:
    return f"table/{task}/{group}"


def _band(curve: Curve, drawn: HostArray) -> Band:
    centre = interquartile_mean(curve.returns)
    return Band(centre, *interval_of(drawn)) if len(curve.seeds) >= LEAST_SEEDS else Band(centre, None, None)


def _score(task: str, group: str, curve: Curve, step: int) -> Score:
    seeds = curve.at(step)
    return Score(int(step), seeds, estimate_centre([seeds], [_stream(task, group)]))


def _thresholds(scores: HostArray) -> HostArray:
    """Where profiles are told: a little more than the range of the scores."""
    low, high = scores.min(), scores.max()
    margin = 0.05 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, 2 * _LEVELS - 1)


def _efficiency(curve: Curve, band: Band, drawn: HostArray, levels: HostArray) -> Band:
    centre = steps_to_reach(curve.steps, band.centre[None], levels)[0]
    if band.low is None:
        return Band(centre, None, None)
    return Band(centre, *interval_of(steps_to_reach(curve.steps, drawn, levels), "inverted_cdf"))


def _reach(curve: Curve, band: Band, drawn: HostArray, target: float) -> Reach:
    found = _efficiency(curve, band, drawn, np.array([target]))
    steps = found.centre.item()
    interval = None if found.low is None or found.high is None else (found.low.item(), found.high.item())
    seconds = curve.seconds[int(np.searchsorted(curve.steps, steps))].item() if np.isfinite(steps) else np.nan
    return Reach(steps, interval, int((curve.returns.max(0) >= target).sum()), seconds)


def _note_few_seeds(tasks: Mapping[str, Task], notes: list[str]) -> None:
    for name, task in tasks.items():
        counts = {group: len(found.curve.seeds) for group, found in task.groups.items()}
        if few := [f"{group} ({count})" for group, count in counts.items() if count < LEAST_SEEDS]:
            notes.append(f"{name}: no interval for {', '.join(few)}: it takes at least {LEAST_SEEDS} seeds")
        if means := [f"{group} ({count})" for group, count in counts.items() if count == LEAST_SEEDS]:
            notes.append(
                f"{name}: the interquartile mean of {', '.join(means)} is the mean: a quarter of 3 seeds is none"
            )


def _improvements(names: tuple[str, ...], tasks: Mapping[str, Task]) -> list[Improvement]:
    """Every pair, the one that is ahead first."""
    found: list[Improvement] = []
    for pair in combinations(names, 2):
        shared = [name for name, task in tasks.items() if all(group in task.groups for group in pair)]
        if not shared:
            continue
        first, second = ([tasks[task].groups[group].final.seeds for task in shared] for group in pair)
        streams = [(_stream(task, pair[0]), _stream(task, pair[1])) for task in shared]
        probability = probability_of_improvement(first, second, streams)
        if probability.value < 0.5:
            ends = probability.interval
            turned = None if ends is None else (1 - ends[1], 1 - ends[0])
            found.append(Improvement(pair[1], pair[0], Estimate(1 - probability.value, turned), len(shared)))
        else:
            found.append(Improvement(*pair, probability, len(shared)))
    return found


def _aggregate(
    names: tuple[str, ...], tasks: Mapping[str, Task], scales: Scales, notes: list[str]
) -> tuple[HostArray, dict[str, Aggregate]]:
    """Groups that have every task, over all of them."""
    scores: dict[str, Scores] = {}
    for name in names:
        if lacking := [task for task, found in tasks.items() if name not in found.groups]:
            notes.append(f"{ALL_TASKS}: {name} is left out, as it has no run on {', '.join(lacking)}")
            continue
        scores[name] = [_normalize(found.groups[name].final.seeds, scales[task]) for task, found in tasks.items()]
    if not scores:
        return np.zeros(0), {}
    thresholds = _thresholds(np.concatenate([each for found in scores.values() for each in found]))
    aggregates: dict[str, Aggregate] = {}
    for name, found in scores.items():
        streams = [_stream(task, name) for task in tasks]
        profile = performance_profile(found, thresholds, streams)
        estimates = estimate_centre(found, streams), estimate_gap(found, streams)
        aggregates[name] = Aggregate(*estimates, profile, sum(map(len, found)))
    return thresholds, aggregates


def _normalize(returns: HostArray, scale: tuple[float, float]) -> HostArray:
    low, high = scale
    return (returns - low) / (high - low)
