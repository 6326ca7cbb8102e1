"""Where a run or a sweep goes on: what a checkpoint holds beside the state of the loop, and how it is read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint
from ddpg_jax.runs.pytrees import form
from ddpg_jax.runs.result import Evaluated
from ddpg_jax.types import Evaluation, HostArray, Row, Snapshot

EVALUATIONS, DIVERGED, RANKING, POPULATION = "evaluations/", "diverged", "board/", "population/"
"""Names, or beginnings of names, of arrays that are not the loop's."""

_NUMBERS = tuple(name for name in Evaluation._fields if name != "info")
"""What is kept of an evaluation; what was said at its episodes' ends is in the record."""


class ResumePoint(NamedTuple):
    """What a run or a sweep goes on from.

    Attributes:
      checkpoint: all that was kept; None: nothing, it begins at the beginning.
      level: of resumption so far: "exact", or "episode" where an environment did not repeat itself, or "weights".
      changes: how its configuration was changed, over all times it was resumed.
    """

    checkpoint: Checkpoint | None = None
    level: str = "exact"
    changes: tuple[str, ...] = ()

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the checkpoint says beside its arrays; nothing at the beginning."""
        return {} if self.checkpoint is None else self.checkpoint.facts

    @property
    def step(self) -> int:
        """Environment steps of each seed; of a sweep, over all its batches of lanes."""
        return 0 if self.checkpoint is None else self.checkpoint.step

    @property
    def snapshot(self) -> Snapshot | None:
        """Where the loop was."""
        if self.checkpoint is None:
            return None
        rows, arrays = self.checkpoint.rows, self.checkpoint.arrays
        others = EVALUATIONS, DIVERGED, RANKING, POPULATION
        own = {name: x for name, x in arrays.items() if not name.startswith(others)}
        return Snapshot(own, rows.first, rows.stop, rows.read, self.seconds, self.unrecorded)

    @property
    def seconds(self) -> dict[str, float]:
        """Spent so far, by phase of a run; of a sweep, in "sweep"."""
        seconds: Any = self.metadata.get("seconds", {})
        by_phase = seconds if isinstance(seconds, Mapping) else {"sweep": seconds}
        return {str(name): float(spent) for name, spent in by_phase.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]

    @property
    def unrecorded(self) -> list[Row] | None:
        """The rows of the report that the checkpoint is at, where its evaluation failed."""
        rows: Any = self.metadata.get("untaken")
        return None if rows is None else [dict(row) for row in rows]

    @property
    def evaluated(self) -> list[Evaluated]:
        """The evaluations of a run so far.

        Raises:
          StorageError: the arrays do not belong together.
        """
        if self.checkpoint is None:
            return []
        arrays = self.checkpoint.arrays
        _check_evaluations(arrays)
        steps, cuts = arrays[f"{EVALUATIONS}step"].tolist(), np.cumsum(arrays[f"{EVALUATIONS}episodes"])[:-1]
        parts = [np.split(arrays[EVALUATIONS + name], cuts, axis=1) for name in _NUMBERS]
        return [Evaluated(step, Evaluation(*(part[i] for part in parts))) for i, step in enumerate(steps)]

    def diverged(self, seeds: int) -> HostArray:
        """Which seeds were frozen, bool `[S]`."""
        none = np.zeros(seeds, bool)
        found = none if self.checkpoint is None else self.checkpoint.arrays.get(DIVERGED, none)
        if (found.shape, found.dtype) != (none.shape, none.dtype):
            raise StorageError(f"the checkpoint does not fit the configuration: {DIVERGED}: {form(found)}")
        return found

    @property
    def ranking(self) -> dict[str, HostArray] | None:
        """What the lanes of a sweep had reached."""
        return self._arrays(RANKING)

    @property
    def population(self) -> dict[str, HostArray] | None:
        """What the members of a population had set."""
        return self._arrays(POPULATION)

    def _arrays(self, prefix: str) -> dict[str, HostArray] | None:
        if self.checkpoint is None:
            return None
        arrays = self.checkpoint.arrays.items()
        return {name.removeprefix(prefix): x for name, x in arrays if name.startswith(prefix)}

    @property
    def metrics_bytes(self) -> int:
        """Size of the record when it was saved."""
        return int(self.metadata.get("metrics_bytes", 0))

    @property
    def metrics_sha256(self) -> str | None:
        """Hash of the record then; None: it was not kept."""
        sha256 = self.metadata.get("metrics_sha256")
        return None if sha256 is None else str(sha256)

    @property
    def timing_bytes(self) -> int:
        """Size of the timing when it was saved."""
        return int(self.metadata.get("timing_bytes", 0))


def _check_evaluations(arrays: Mapping[str, HostArray]) -> None:
    """Refuses evaluations of which there are not as many as is said, or not of as many seeds.

    Raises:
      StorageError: they are such.
    """
    nothing = np.zeros(())
    names = [EVALUATIONS + name for name in ("step", "episodes", *_NUMBERS)]
    step, episodes, *each = (arrays.get(name, nothing) for name in names)
    shapes, seeds = {x.shape for x in each}, arrays.get(DIVERGED, each[0])
    counted = (
        step.ndim == episodes.ndim == 1 and len(step) == len(episodes) and step.dtype == episodes.dtype == np.int64
    )
    right = counted and seeds.ndim and bool((episodes > 0).all()) and all(x.dtype.kind in "fiu" for x in each)
    if not right or shapes != {(len(seeds), int(episodes.sum()))}:
        shown = ", ".join(f"{name}: {form(arrays.get(name))}" for name in names)
        raise StorageError(f"the checkpoint does not hold the evaluations of a run: {shown}")


def evaluation_arrays(evaluated: Sequence[Evaluated], seeds: int) -> dict[str, HostArray]:
    """Evaluations side by side, `[S, episodes of all]`, as their number may be another after a resume."""
    found: dict[str, HostArray] = {
        f"{EVALUATIONS}step": np.array([each.step for each in evaluated], np.int64),
        f"{EVALUATIONS}episodes": np.array([each.evaluation.returns.shape[1] for each in evaluated], np.int64),
    }
    for name in _NUMBERS:
        each = [np.asarray(getattr(e.evaluation, name)) for e in evaluated]
        found[EVALUATIONS + name] = np.concatenate(each, 1) if each else np.zeros((seeds, 0))
    return found
