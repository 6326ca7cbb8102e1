"""Groups as curves: seeds put together at the steps that all have, as far as the shortest run goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Literal, NamedTuple

import numpy as np

from ddpg_jax.errors import ConfigError, StorageError, printable
from ddpg_jax.runs.compare.evaluations import NEVER, Evaluations, Groups
from ddpg_jax.runs.statistics import show_return
from ddpg_jax.types import HostArray

Diverged = Literal["worst", "exclude"]
"""What becomes of seeds that diverged."""

SayFn = Callable[[str], None]


class Curve(NamedTuple):
    """A group on a task.

    Attributes:
      steps: environment steps of each seed, `[N]`.
      seeds: their names, S.
      returns: mean return of an evaluation's episodes, `[N, S]`.
      diverged: step at which each seed diverged, `[S]`.
      seconds: that the group's runs had taken, their mean, `[N]`; NaN: unknown.
      side_by_side: how many seeds each run trained at once.
      machines: on what the runs ran.
    """

    steps: HostArray
    seeds: tuple[str, ...]
    returns: HostArray
    diverged: HostArray
    seconds: HostArray
    side_by_side: tuple[int, ...]
    machines: tuple[str, ...]

    def at(self, step: int) -> HostArray:
        """The returns of the seeds at a step that is among the curve's, `[S]`."""
        return self.returns[int(np.searchsorted(self.steps, step))]


Curves = dict[str, dict[str, Curve]]
"""By task and group."""


def align(groups: Groups, diverged: Diverged, say: SayFn) -> Curves:
    """Puts the seeds of each group together, task by task, and cuts all curves of a task where the shortest ends.

    Steps are compared exactly: a step that a seed lacks is left out, and nothing is interpolated. Whatever is left out,
    or replaced as a seed diverged, is said.

    Args:
      groups: what is compared.
      diverged: "worst": from the step on at which a seed diverged, its return is the worst that any seed of any group
        had on the task; "exclude": such seeds are left out.
      say: is told a line.

    Raises:
      StorageError: the seeds of a group share no step, or two groups share no range of steps.
      ConfigError: no seed is left.
    """
    curves: Curves = {}
    for task in dict.fromkeys(each.task for members in groups.values() for each in members):
        of_task = {name: [each for each in found if each.task == task] for name, found in groups.items()}
        parts = {name: found for name, found in of_task.items() if found}
        if diverged == "exclude":
            parts = {name: kept for name, found in parts.items() if (kept := _without_diverged(name, found, say))}
        else:
            parts = _with_worst(task, parts, say)
        if not parts:
            raise ConfigError(f"every seed on {printable(task)} diverged: nothing is left to compare")
        curves[task] = _cut(task, {name: _join(name, task, found, say) for name, found in parts.items()}, say)
    return curves


def common_steps(curves: dict[str, Curve]) -> HostArray:
    """The steps that all curves of a task have, `[N]`; there may be none."""
    return reduce(np.intersect1d, (curve.steps for curve in curves.values()))


def _without_diverged(name: str, parts: Sequence[Evaluations], say: SayFn) -> list[Evaluations]:
    kept: list[Evaluations] = []
    for part in parts:
        lost = part.diverged < NEVER
        if lost.any():
            say(f"{name} on {part.task}: {_diverged_seeds(part)}; left out, so what is left flatters {name}")
        if not lost.all():
            seeds = tuple(seed for seed, gone in zip(part.seeds, lost, strict=True) if not gone)
            kept.append(part._replace(seeds=seeds, returns=part.returns[:, ~lost], diverged=part.diverged[~lost]))
    return kept


def _with_worst(task: str, parts: dict[str, list[Evaluations]], say: SayFn) -> dict[str, list[Evaluations]]:
    """Parts in which a seed that diverged has the worst return of all; a run that is all lost goes on with it."""
    every = [part for found in parts.values() for part in found]
    sound = [part.returns[part.steps[:, None] < part.diverged] for part in every]
    worst = min((each.min().item() for each in sound if each.size), default=np.nan)
    if np.isnan(worst):
        raise ConfigError(f"every seed on {printable(task)} diverged before its first evaluation: nothing is left")
    steps = np.unique(np.concatenate([part.steps for part in every]))
    replaced: dict[str, list[Evaluations]] = {}
    for name, found in parts.items():
        for part in found:
            if (part.diverged < NEVER).any():
                lost = f"{_diverged_seeds(part)}; from there {show_return(worst)}"
                say(f"{name} on {task}: {lost}, the worst return of all")
            replaced.setdefault(name, []).append(_replace_diverged(part, worst, steps))
    return replaced


def _replace_diverged(part: Evaluations, worst: float, steps: HostArray) -> Evaluations:
    if (part.diverged < NEVER).all():
        later = steps[steps > part.steps[-1]]
        rows = np.full((len(later), len(part.seeds)), worst)
        part = part._replace(
            steps=np.append(part.steps, later),
            returns=np.concatenate([part.returns, rows]),
            seconds=np.append(part.seconds, np.full(len(later), np.nan)),
        )
    return part._replace(returns=np.where(part.steps[:, None] < part.diverged, part.returns, worst))


def _diverged_seeds(part: Evaluations) -> str:
    lost = [f"{s} (step {d})" for s, d in zip(part.seeds, part.diverged.tolist(), strict=True) if d < NEVER]
    return f"{len(lost)} of {len(part.seeds)} seeds of {part.source} diverged, {', '.join(lost)}"


def _join(name: str, task: str, parts: Sequence[Evaluations], say: SayFn) -> Curve:
    """The seeds of all parts at the steps that every part has, up to where the first of them ends."""
    end = min(part.steps[-1].item() for part in parts)
    steps = reduce(np.intersect1d, (part.steps for part in parts))
    if not len(steps):
        firsts = "; ".join(f"{part.source}: {', '.join(map(str, part.steps[:3].tolist()))}" for part in parts)
        raise StorageError(
            f"the runs of {printable(name)} on {printable(task)} share no step of evaluation "
            f"({printable(firsts)[:300]}); nothing is interpolated: make groups of them by --group"
        )
    if lost := sum(len(np.setdiff1d(part.steps[part.steps <= end], steps)) for part in parts):
        say(f"{name} on {task}: {lost} evaluations are left out, as not all of its runs have one at their step")
    _say_if_seeds_repeat(name, task, parts, say)
    rows = [np.searchsorted(part.steps, steps) for part in parts]
    return Curve(
        steps=steps,
        seeds=tuple(seed for part in parts for seed in part.seeds),
        returns=np.concatenate([part.returns[row] for part, row in zip(parts, rows, strict=True)], 1),
        diverged=np.concatenate([part.diverged for part in parts]),
        seconds=np.mean([part.seconds[row] for part, row in zip(parts, rows, strict=True)], 0),
        side_by_side=tuple(part.at_once for part in parts),
        machines=tuple(dict.fromkeys(part.machine for part in parts if part.machine)),
    )


def _say_if_seeds_repeat(name: str, task: str, parts: Sequence[Evaluations], say: SayFn) -> None:
    seeds = [seed for part in parts for seed in part.seeds]
    twice = [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]
    if twice:
        say(f"{name} on {task}: several of its runs have seed {', '.join(twice[:5])}; they count as different seeds")


def _cut(task: str, curves: dict[str, Curve], say: SayFn) -> dict[str, Curve]:
    """The curves up to where the first of them ends."""
    ends = {name: curve.steps[-1].item() for name, curve in curves.items()}
    end = min(ends.values())
    if max(ends.values()) > end:
        first = min(ends, key=lambda name: ends[name])
        say(f"{task}: compared up to step {end}, where {first} ends; later evaluations of the others are left out")
    for name, curve in curves.items():
        if curve.steps[0] > end:
            raise StorageError(
                f"{printable(name)} on {printable(task)} has its first evaluation at step {curve.steps[0]}, after the "
                f"last one of another group, at {end}: there is nothing to compare"
            )
    return {name: _up_to(curve, end) for name, curve in curves.items()}


def _up_to(curve: Curve, end: int) -> Curve:
    kept = curve.steps <= end
    return curve._replace(steps=curve.steps[kept], returns=curve.returns[kept], seconds=curve.seconds[kept])
