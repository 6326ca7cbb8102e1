"""A population: combinations that learn side by side, of which the worst go on from the best, with settings changed.

Truncation selection as in population based training. The members are ranked where they are evaluated; what is decided
there is a function of their scores, their settings and the step, so a population that is cut anywhere and resumed
decides the same again. A member has a lane for each seed, which goes on from the lane of its parent with that seed:
the score of a member is over all its seeds, as everywhere in a sweep, so that no seed wins by luck alone.

References:
  Jaderberg et al., "Population based training of neural networks" (arXiv:1711.09846).
  Flajolet et al., "Fast population-based reinforcement learning on a single machine" (arXiv:2206.08888).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ddpg_jax.config.schema import Config, hyper_paths
from ddpg_jax.config.sweep_file import Draw, PopulationConfig, Values
from ddpg_jax.errors import StorageError
from ddpg_jax.rng import HostStream
from ddpg_jax.runs import filesystem
from ddpg_jax.training.sweep.lanes import Copies
from ddpg_jax.types import HostArray, Row

if TYPE_CHECKING:
    from ddpg_jax.runs.loggers.jsonl import JsonLines
    from ddpg_jax.training.sweep.lanes import LaneBatch


class PopulationPlan(NamedTuple):
    """How the combinations of a sweep copy each other.

    Attributes:
      config: how often, and how.
      ranges: between what each setting is drawn, by path.
      seed: of all that is drawn.
    """

    config: PopulationConfig
    ranges: Mapping[str, Draw]
    seed: int

    def stored(self) -> list[Any]:
        """All that it says, for JSON."""
        ranges = {path: each.model_dump() for path, each in self.ranges.items()}
        return [self.config.model_dump(mode="json"), ranges, self.seed]

    def is_due(self, step: int, config: Config) -> bool:
        """Whether members are replaced after so many environment steps of each seed."""
        every, stride = self.config.every, config.env.num_envs
        return 0 < step < config.total_steps and step // every > (step - stride) // every


def refuse_population(
    population: PopulationConfig,
    configs: Sequence[Config],
    settings: Sequence[Values],
    ranges: Mapping[str, Draw],
) -> str | None:
    """Why the combinations of a sweep cannot be a population, on one line; None: they can.

    Args:
      population: how they would copy each other.
      configs: the configuration of each.
      settings: what each sets.
      ranges: those of its settings that are drawn.
    """
    first, every = configs[0], population.every
    if not first.on_device:
        return f"a population runs environments written in JAX, as jax:pendulum; env.id = {first.env.id!r} is not one"
    listed = sorted({path for values in settings for path in values} - ranges.keys())
    if listed:
        return f"{listed[0]}: the settings of a population are drawn, so that they have bounds; put it into [random]"
    for path in ranges:
        if path not in hyper_paths(first):
            return f"{path} is structure, which members of a population have in common; set it in [config]"
    if len(settings) < 2:
        return f"draws = {len(settings)}: a population has two members at least"
    if not first.evaluation.every or every % first.evaluation.every:
        return (
            f"population.every = {every} is no multiple of evaluation.every = {first.evaluation.every}: members are "
            "ranked where they are evaluated"
        )
    if every >= first.total_steps:
        return f"population.every = {every}: no member is replaced before total_steps = {first.total_steps}"
    return None


def corners(ranges: Mapping[str, Draw]) -> tuple[Values, ...]:
    """Settings at their bounds: all low, and one or two of them high; what two fields forbid each other shows there."""
    low = {path: each.low for path, each in ranges.items()}
    some = [chosen for count in (0, 1, 2) for chosen in combinations(ranges, count)]
    return tuple(low | {path: ranges[path].high for path in chosen} for chosen in some)


def count_replaced(replace: float, members: int) -> int:
    """How many members are replaced at a time: their share, rounded, but one at least, and not more than half."""
    return min(max(1, round(replace * members)), members // 2) if replace else 0


def select_parents(scores: HostArray, count: int, draws: HostArray) -> HostArray:
    """Who goes on from whom: each of the `count` worst from one of the `count` best.

    Args:
      scores: higher is better, `[C]`; NaN is worse than any. Of equal ones the first is better.
      count: K, at most C / 2.
      draws: uniform in [0, 1), which chooses the parent of each, `[C]`.

    Returns:
      The number of the member that each goes on from, `[C]`; its own where it stays. No parent has a parent, nor a
      score that is NaN or not better than its child's.
    """
    parents, ranked = np.arange(len(scores)), np.argsort(-scores, kind="stable")
    best = [member for member in ranked[:count] if np.isfinite(scores[member])]
    for child in ranked[len(scores) - count :] if best else ():
        parent = best[int(draws[child] * len(best))]
        if not scores[child] >= scores[parent]:
            parents[child] = parent
    return parents


def perturb(values: HostArray, limits: Draw, factors: Sequence[float], resample: float, draws: HostArray) -> HostArray:
    """Settings, each multiplied by one of the factors or drawn anew, within their bounds.

    Args:
      values: of one field, `[C]`.
      limits: their bounds, and how they are drawn.
      factors: each as likely as the others.
      resample: probability of a new draw.
      draws: uniform in [0, 1), `[3, C]`: which factor, whether anew, and the new draw.

    Returns:
      Settings `[C]`.
    """
    which, anew, place = draws
    moved = values * np.asarray(factors, float)[(which * len(factors)).astype(int)]
    low, high = (np.log(limits.low), np.log(limits.high)) if limits.log else (limits.low, limits.high)
    fresh = low + place * (high - low)
    fresh = np.exp(fresh) if limits.log else fresh
    return np.clip(np.where(anew < resample, fresh, moved), limits.low, limits.high)


def lane_copies(lanes: Sequence[tuple[int, int]], size: int, parents: HostArray) -> Copies:
    """The lanes of the members that go on from others: each seed from the same seed.

    Args:
      lanes: combination and seed of each.
      size: how many there are with the padding, which is the last of them again.
      parents: which combination each goes on from.
    """
    places = {lane: i for i, lane in enumerate(lanes)}
    sources = [places[int(parents[number]), seed] for number, seed in lanes]
    sources += sources[-1:] * (size - len(lanes))
    own = np.minimum(np.arange(size), len(lanes) - 1)
    children = np.flatnonzero(sources != own)
    return Copies(children.astype(np.int32), np.array(sources, np.int32)[children])


class Population:
    """What the members of a population set, as it changes, and the record of who went on from whom.

    Args:
      plan: how they copy each other.
      settings: what each sets at the beginning.
      lineage: the record.
      path: of the record.
      kept: from `arrays`, of the same population; None: nothing has changed yet.

    Raises:
      StorageError: what was kept is of another population.
    """

    def __init__(
        self,
        plan: PopulationPlan,
        settings: Sequence[Values],
        lineage: JsonLines,
        path: Path,
        kept: Mapping[str, HostArray] | None = None,
    ) -> None:
        self._plan, self._first, self._lineage, self._path = plan, settings, lineage, path
        self.arrays: dict[str, HostArray] = {
            name: np.array([values[name] for values in settings], np.float64) for name in plan.ranges
        }
        """the settings by path, float64 `[C]` each"""
        for name, array in self.arrays.items() if kept is not None else ():
            found = (kept or {}).get(name)
            if found is None or (found.shape, found.dtype) != (array.shape, array.dtype):
                raise StorageError(f"the checkpoint is of another population: {name} is missing or of another shape")
            array[...] = found

    @property
    def settings(self) -> tuple[Values, ...]:
        """What each member sets."""
        return tuple(self._values(member) for member in range(len(self._first)))

    def _values(self, member: int) -> Values:
        return {path: float(array[member]) for path, array in self.arrays.items()}

    def hyper(self, batch: LaneBatch) -> dict[str, HostArray]:
        """The settings as numbers of the lanes, float32 `[L]` each."""
        lanes = [number for number, _ in batch.lanes]
        lanes += lanes[-1:] * (batch.size - len(lanes))
        return {name: array[lanes].astype(np.float32) for name, array in self.arrays.items()}

    def sync(self) -> dict[str, Any]:
        """What a checkpoint says of the record, which is on the disk.

        Raises:
          StorageError: it is not.
        """
        return {"lineage_bytes": self._lineage.sync(), "lineage_sha256": self._lineage.sha256}

    def exploit(self, step: int, scores: HostArray) -> HostArray:
        """Has the worst members go on from the best, with their settings perturbed; a line of the record for each.

        Args:
          step: environment steps of each seed.
          scores: of the members, as `select_parents` has them.

        Returns:
          Who goes on from whom, as `select_parents` does.
        """
        config, members = self._plan.config, len(scores)
        draws = HostStream(self._plan.seed, "population/parents").at(step).random(members)
        parents = select_parents(scores, count_replaced(config.replace, members), draws)
        children = np.flatnonzero(parents != np.arange(members))
        before = {child: self._values(child) for child in children.tolist()}
        for path, array in self.arrays.items():
            draws = HostStream(self._plan.seed, f"population/{path}").at(step).random((3, members))
            taken = perturb(array[parents], self._plan.ranges[path], config.perturb, config.resample, draws)
            array[children] = taken[children]
        rows: list[Row] = [
            {
                "step": step,
                "combination": child,
                "parent": int(parents[child]),
                "score": _number(scores[child]),
                "parent_score": _number(scores[parents[child]]),
                "before": before[child],
                "after": self._values(child),
            }
            for child in children.tolist()
        ]
        self._lineage.write(rows)
        return parents

    def result(self, best: int | None) -> dict[str, Any]:
        """What `result.json` says of it: how it came about; and, at the end, the settings that led to the best member.

        Raises:
          StorageError: the record cannot be read.
        """
        config = self._plan.config.model_dump(mode="json")
        if best is None:
            return config
        self._lineage.sync()
        try:
            lines = b"".join(filesystem.read_pieces(self._path)).splitlines()
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {error}") from error
        rows = [json.loads(line) for line in lines]
        return config | {"replacements": len(rows), "schedule": trace_schedule(rows, self._first, best)}


def _number(score: Any) -> float | None:
    return float(score) if np.isfinite(score) else None


def trace_schedule(lineage: Sequence[Mapping[str, Any]], settings: Sequence[Values], member: int) -> list[Row]:
    """The settings that led to a member as it is at the end, earliest first: each with the step that it began at.

    Args:
      lineage: its lines, in order.
      settings: what each member set at the beginning.
      member: whose history is asked for.
    """
    found: list[Row] = []
    for row in reversed(lineage):
        if row["combination"] == member:
            found.append({"step": row["step"], "combination": member, "values": row["after"]})
            member = row["parent"]
    return [{"step": 0, "combination": member, "values": settings[member]}, *reversed(found)]
