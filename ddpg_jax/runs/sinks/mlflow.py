"""MLflow, with `pip install "ddpg-jax[mlflow]"`: a database, or a server.

`MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME` say where; without them it is the file `mlflow.db` beside the run
directory, and the experiment `ddpg_jax`. A metric is stored once for each key, step, value and time, so a batch that is
sent again with its first time adds nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ddpg_jax.runs.sinks.sink import points

if TYPE_CHECKING:
    from ddpg_jax.runs.sinks.sink import Identity
    from ddpg_jax.types import Row

T = TypeVar("T")

_TAG = "ddpg_jax.run"
_MOST_METRICS, _MOST_PARAMS = 1000, 100
"""That MLflow takes at once."""


class MlflowSink:
    """A run of MLflow for a run directory, found again by a tag."""

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._client: Any = None
        self._id, self._one_seed = "", False

    def destination(self, run: Identity) -> str:
        """The database or the server, without a password, and the experiment."""
        uri, where = _uri(run), urlsplit(_uri(run)).netloc
        return f"{uri.replace(where, where.rpartition('@')[2], 1)} {_experiment()}"

    def open(self, run: Identity, *, resumes: bool) -> bool:
        """Makes the run, or finds it."""
        mlflow: Any = import_module("mlflow")
        self._client = client = mlflow.MlflowClient(tracking_uri=_uri(run))
        found = client.get_experiment_by_name(_experiment())
        artifacts = None if "MLFLOW_TRACKING_URI" in os.environ else (run.directory.parent / "mlartifacts").as_uri()
        where = client.create_experiment(_experiment(), artifacts) if found is None else found.experiment_id
        known = client.search_runs([where], f"tags.`{_TAG}` = '{run.id}'")
        tags = {_TAG: run.id, "task": run.title, "group": run.group}
        there = known[0] if known else client.create_run(where, run_name=run.name, tags=tags)
        self._id, self._one_seed = there.info.run_id, run.one_seed
        client.update_run(self._id, status="RUNNING")
        lacking = [
            mlflow.entities.Param(name, text) for name, text in _flat(run.config) if name not in there.data.params
        ]
        for params in _pieces(lacking, _MOST_PARAMS):
            client.log_batch(self._id, params=params)
        return bool(known)

    def send(self, rows: list[Row], when: float, *, again: bool) -> None:
        """Stores the metrics, at the time of the batch."""
        metric, time = import_module("mlflow").entities.Metric, round(when * 1000)
        metrics = [
            metric(name, value, time, point.step)
            for point in points(rows, one_seed=self._one_seed)
            for name, value in point.values.items()
        ]
        for some in _pieces(metrics, _MOST_METRICS):
            self._client.log_batch(self._id, metrics=some)

    def close(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self._id)


def _uri(run: Identity) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.directory.parent / 'mlflow.db'}"


def _experiment() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "ddpg_jax"


def _pieces(values: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), most):
        yield values[start : start + most]


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """The fields of a configuration by their paths, as text."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(value)[:500]
