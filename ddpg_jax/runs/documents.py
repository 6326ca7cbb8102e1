"""What stored documents must look like, one model each: whatever a file says, its reader knows what it holds.

A run directory may come from somebody else. Nothing of it is used before it has passed its model here, or, where it is
an array, before name, dtype and shape were compared.
"""

from __future__ import annotations

import json
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.arrays import NUMBERS, Size

Document = TypeVar("Document", bound=BaseModel)

WEIGHTS = "ddpg_jax weights 1", "spec"
"""Format of a file of weights, and what else its metadata say."""

FAILED_UPDATE = "ddpg_jax bundle 1", "config", "spec", "seed"
"""Likewise of an update that was not finite."""

_MOST_BYTES = 2**28
_Seconds = Annotated[float, Field(ge=0)]
_Key = Annotated[str, Field(max_length=256)]
_Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$")]


class Open(BaseModel):
    """A stored document: no conversion of types; what a later version adds is passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Format(Open):
    """`format.json`: marks a directory as one of ours, and says who wrote it."""

    format: Annotated[int, Field(ge=1)]
    version: Annotated[str, Field(max_length=64)]


class Owner(Open):
    """`run.lock`: who is using a directory; for people only."""

    host: Annotated[str, Field(max_length=256)]
    process: int
    started: Annotated[str, Field(max_length=64)]


class StoredSpec(Open):
    """The description of an environment."""

    obs_shape: Annotated[list[Size], Field(max_length=8)]
    obs_dtype: Annotated[str, Field(pattern=f"^({'|'.join(NUMBERS)})$")]
    action_low: Annotated[list[float], Field(min_length=1)]
    action_high: Annotated[list[float], Field(min_length=1)]
    action_shape: Annotated[list[Size], Field(max_length=8)] | None = None
    layout: list[tuple[list[_Key], Size, Size, Annotated[list[Size], Field(max_length=8)], _Key]] = Field(
        default_factory=list[Any]
    )
    stack: Annotated[int, Field(ge=0, le=65536)] = 0
    proprioception: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @model_validator(mode="after")
    def _bounds_fit(self) -> StoredSpec:
        pairs = list(zip(self.action_low, self.action_high, strict=False))
        if len(self.action_low) != len(self.action_high) or not all(low < high for low, high in pairs):
            raise ValueError("action_low must lie below action_high, component by component")
        if self.action_shape is not None and prod(self.action_shape) != len(self.action_low):
            raise ValueError("action_shape must hold as many numbers as action_low")
        return self

    @model_validator(mode="after")
    def _layout_fits(self) -> StoredSpec:
        ends = [0, *(stop for _, _, stop, _, _ in self.layout)]
        sizes = [prod(shape) for _, _, _, shape, _ in self.layout]
        if [start for _, start, _, _, _ in self.layout] != ends[:-1] or [b - a for a, b in pairwise(ends)] != sizes:
            raise ValueError("layout must divide the observation without gaps")
        if self.layout and self.obs_shape != ends[-1:]:
            raise ValueError("layout must cover the observation")
        if self.stack and self.obs_shape[:1] != [self.stack]:
            raise ValueError("stack must be the first axis of the observation")
        rows = 4 * self.proprioception > prod(self.obs_shape[1:])
        if self.proprioception and (rows or len(self.obs_shape) != 4 or self.obs_dtype != "uint8"):
            raise ValueError("proprioception must lie below pictures")
        return self


class _Device(Open):
    kind: str
    platform: str
    count: int


class _Machine(Open):
    system: str
    processor: str
    cores: int


class _System(Open):
    """On what something was computed."""

    versions: dict[str, str | None]
    device: _Device
    machine: _Machine
    settings: dict[str, str] = Field(default_factory=dict[str, str])


class StoredRow(BaseModel):
    """A row of the record that was to be written when a run was saved."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, int | float | str | list[float]]  # pyright: ignore[reportIncompatibleVariableOverride]

    event: _Name
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    step: Size


class _Facts(_System):
    level: Annotated[str, Field(pattern="^[a-z]{1,16}$")]
    metrics_bytes: Size
    metrics_sha256: Annotated[str | None, Field(pattern="^[0-9a-f]{64}$")] = None
    untaken: list[list[tuple[_Name, Any]]] | None = None

    @model_validator(mode="after")
    def _rows_are_rows(self) -> Self:
        for row in self.untaken or ():
            StoredRow.model_validate(dict(row))
        return self


class RunFacts(_Facts):
    """What a checkpoint of a run says beside its arrays."""

    complete: bool
    updates: Size
    config: dict[str, Any]
    changes: list[str]
    spec: StoredSpec
    seconds: dict[str, _Seconds]
    timing_bytes: Size
    best_step: Size | None = None


class SweepFacts(_Facts):
    """What a checkpoint of a sweep says beside its arrays."""

    sweep: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    position: tuple[Size, Size, Annotated[int, Field(ge=1)]]
    before: Size
    seconds: _Seconds
    lineage_bytes: Size = 0
    lineage_sha256: Annotated[str | None, Field(pattern="^[0-9a-f]{64}$")] = None


class StoredSummary(Open):
    """An evaluation, summarised."""

    step: Size
    per_seed: list[float]
    median: float
    interquartile_mean: float
    interval: tuple[float, float] | None
    returns: Annotated[list[list[float]], Field(min_length=1)]


class RunResult(Open):
    """`result.json` of a run."""

    env: str
    algorithm: str
    seeds: list[int]
    complete: bool
    env_steps_per_seed: Size
    updates_per_seed: Size
    final: StoredSummary
    best: StoredSummary
    seconds: dict[str, float]
    env_steps_per_second: float
    updates_per_second: float

    @model_validator(mode="after")
    def _is_timed(self) -> RunResult:
        if not {"compile", "training"} <= self.seconds.keys():
            raise ValueError("seconds must tell compile and training")
        return self


class _Combination(Open):
    combination: Size
    values: dict[str, Any]
    step: Size
    interquartile_mean: float | None
    interval: tuple[float, float] | None
    diverged_seeds: Size
    faulty_seeds: Size


class SweepResult(Open):
    """`result.json` of a sweep."""

    env: str
    seeds: list[int]
    complete: bool
    combinations: Annotated[list[_Combination], Field(min_length=1)]


def validate(model: type[Document], values: Any, source: object) -> Document:
    """A document, of which every part is what it must be.

    Args:
      model: what it must be.
      values: what JSON made of it.
      source: what it is called in the message.

    Raises:
      StorageError: it is not, in one line.
    """
    try:  # by way of JSON, whose lists are the tuples of a model
        return model.model_validate_json(json.dumps(values))
    except (ValidationError, ValueError, TypeError, RecursionError) as error:
        raise StorageError(f"{source} cannot be read: {_reason(error)}") from error


def read_json(path: Path, most: int = _MOST_BYTES) -> Any:
    """What a file of JSON says; nothing of it has been checked.

    Raises:
      StorageError: there is no such file, it is too large, or no JSON.
    """
    try:
        return json.loads(filesystem.read_whole(path, most))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first thing that is wrong, on one line, with nothing in it that a terminal would obey."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return printable(f"{where}: {first['msg']}" if where else first["msg"])[:300]
    return printable(str(error) or type(error).__name__)[:300]
