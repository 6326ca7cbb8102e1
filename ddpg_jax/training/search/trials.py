"""Settings and what became of them: on each task, on all of them together, and from rung to rung."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.config.schema import Config
from ddpg_jax.config.sweep_file import Values
from ddpg_jax.errors import ConfigError
from ddpg_jax.runs.statistics import interquartile_mean
from ddpg_jax.training.search.file import Search
from ddpg_jax.training.search.tasks import SearchTask

FAILED = {2: "its configuration is wrong", 3: "its environment failed", 4: "all seeds diverged"}
"""By exit codes of the command line."""


class Part(NamedTuple):
    """What a setting has reached on one task.

    Attributes:
      pack: name of its run, in the folder of the runs.
      step: of its last score.
      score: by the metric of the search, not on the scale of the tasks; None: it failed.
      per_seed: likewise of each seed.
      said: why it failed; empty: it did not.
    """

    pack: str
    step: int
    score: float | None
    per_seed: tuple[float | None, ...]
    said: str = ""


class Trial(NamedTuple):
    """A setting, and what became of it.

    Attributes:
      number: in the order of asking.
      values: what it sets, by path.
      parts: what it has reached on each task, by the task's name.
      step: of its last score; of several tasks their sum.
      score: by the metric of the search; of several tasks on their scale, their mean; None: it failed.
      per_seed: likewise of each seed.
      said: why it failed; empty: it did not.
      stopped: whether others went on in its place.
    """

    number: int
    values: Values
    parts: Mapping[str, Part] = {}
    step: int = 0
    score: float | None = None
    per_seed: tuple[float | None, ...] = ()
    said: str = ""
    stopped: bool = False


def join_parts(trial: Trial, tasks: Sequence[SearchTask]) -> Trial:
    """The trial with what its parts come to; of one that has not been trained on every task yet, as it was.

    On several tasks the figure of a seed is the mean of its normalised figures, and the score the interquartile mean of
    these over the seeds; so each seed counts once, and the interval is that of the score.
    """
    parts = trial.parts
    if any(task.name not in parts for task in tasks):
        return trial
    step = sum(part.step for part in parts.values())
    names = {task.name: f"{task.name}: " if task.name else "" for task in tasks}
    said = "; ".join(names[name] + part.said for name, part in parts.items() if part.said)
    if not tasks[0].name:
        part = parts[""]
        return trial._replace(step=step, score=part.score, per_seed=part.per_seed, said=said)
    columns = [[_scaled(task, each) for each in parts[task.name].per_seed] for task in tasks]
    per_seed = () if any(not column for column in columns) else tuple(map(_mean, zip(*columns, strict=True)))
    whole = [each for each in per_seed if each is not None]
    score = float(interquartile_mean(np.array(whole))) if whole and len(whole) == len(per_seed) else None
    return trial._replace(step=step, score=score, per_seed=per_seed, said=said)


def _scaled(task: SearchTask, figure: float | None) -> float | None:
    return None if figure is None else task.normalize(figure)


def _mean(figures: Iterable[float | None]) -> float | None:
    """Of all of them; None if one is missing."""
    each = list(figures)
    whole = [figure for figure in each if figure is not None]
    return float(np.mean(whole)) if len(whole) == len(each) else None


def part_of(line: Mapping[str, Any], code: int) -> Part:
    """What a line of the record, "scored", says of a run that ended with a code."""
    said = FAILED.get(code, f"ended with exit code {code}") if code else ""
    said = said or ("" if line["score"] is not None else "a seed diverged")
    return Part(line["pack"], line["step"], line["score"], tuple(line["per_seed"]), said)


def score_of(trial: Trial) -> float:
    """Its score; of one that failed the worst there is."""
    return float("-inf") if trial.score is None else trial.score


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The best of those that were not stopped; None: none has a score."""
    ended = [trial for trial in trials if trial.score is not None and not trial.stopped]
    return max(ended, key=score_of, default=None)


def rungs(search: Search, config: Config) -> list[int | None]:
    """The steps to which settings are trained, one after the other; the last, None, is their end.

    Raises:
      ConfigError: a rung is at no evaluation before the end.
    """
    shares = () if search.stop is None else search.stop.rungs
    return [*(_at_evaluation(config, share) for share in shares), None]


def last_step(config: Config, until: int | None = None) -> int:
    """The step of the last evaluation of a run that is trained to a step, or to its end: all environments step."""
    steps = config.total_steps if until is None else until
    return -(-steps // config.env.num_envs) * config.env.num_envs


def _at_evaluation(config: Config, share: float) -> int:
    """The first evaluation at which a share of the steps is made."""
    every = config.evaluation.every
    wanted = max(every, ceil(share * config.total_steps / every) * every)
    if wanted >= config.total_steps:
        raise ConfigError(
            f"stop.rungs: {share} of {config.total_steps} steps is at no evaluation before the end: lower "
            f"evaluation.every={every}"
        )
    return wanted
