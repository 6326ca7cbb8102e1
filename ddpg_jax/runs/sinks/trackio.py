"""trackio, with `pip install "ddpg-jax[trackio]"`: its local database, for `trackio show` and `trackio sync`.

`TRACKIO_DIR` says where it is and `TRACKIO_PROJECT` in which project, without it `ddpg_jax`. Rows are put into the
database at once, each number under an id that is made of the run, the step and its name, which it takes once, however
the numbers of a step are divided among calls: `trackio.log` would put them into a queue that is lost with the process.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddpg_jax.runs.sinks.sink import points

if TYPE_CHECKING:
    from ddpg_jax.runs.sinks.sink import Identity
    from ddpg_jax.types import Row


class TrackioSink:
    """A run of trackio for a run directory."""

    def __init__(self) -> None:
        self._run: Identity | None = None
        self._config: dict[str, Any] | None = None

    def destination(self, run: Identity) -> str:
        """The folder of its databases, and the project."""
        return f"{import_module('trackio.utils').TRACKIO_DIR} {_project()}"

    def open(self, run: Identity, *, resumes: bool) -> bool:
        """Looks for the run."""
        self._run = run
        self._config = run.config | {"_Created": datetime.now(UTC).isoformat(), "_Group": run.group, "_Username": None}
        return _storage().get_max_step_for_run(_project(), _name(run), run_id=run.id) is not None

    def send(self, rows: list[Row], when: float, *, again: bool) -> None:
        """Stores a row for each number."""
        assert self._run is not None  # noqa: S101 - it was opened
        steps = points(rows, one_seed=self._run.one_seed)
        found = [(point.step, name, value) for point in steps for name, value in point.values.items()]
        _storage().bulk_log(
            project=_project(),
            run=_name(self._run),
            metrics_list=[{name: value} for _, name, value in found],
            steps=[step for step, _, _ in found],
            timestamps=[datetime.fromtimestamp(when, UTC).isoformat()] * len(found),
            config=self._config,
            log_ids=[f"{self._run.id}-{step}-{name}" for step, name, _ in found],
            run_id=self._run.id,
        )
        self._config = None

    def close(self) -> None:
        """Does nothing: all of it is in the database."""


def _storage() -> Any:
    return import_module("trackio.sqlite_storage").SQLiteStorage


def _project() -> str:
    return os.environ.get("TRACKIO_PROJECT") or "ddpg_jax"


def _name(run: Identity) -> str:
    return f"{run.name}-{run.id[:4]}"
