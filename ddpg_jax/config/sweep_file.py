"""What a sweep file holds, and which values each of its combinations sets; no configuration is made of them here."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ddpg_jax.config.load import merge, read_toml
from ddpg_jax.config.mistakes import nearest, shown
from ddpg_jax.config.schema import takes_fractions
from ddpg_jax.errors import ConfigError, printable

_SHOWN = 20
"""Mistakes that are shown."""

MAX_COMBINATIONS = 65536
"""Most combinations of a sweep."""

Values = dict[str, Any]
"""What a combination sets, by path."""

RANGE = frozenset({"low", "high"})
"""Keys of a table in `[random]` that is a value, and no section."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Draw(_Strict):
    """A number drawn uniformly between `low` and `high`, or its logarithm if `log`."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _check_order(self) -> Draw:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low={self.low}, high={self.high}: low must be below high, and positive for log = true")
        return self


class PopulationConfig(_Strict):
    """`[population]`: combinations are its members; those that do worst go on from those that do best."""

    every: Annotated[int, Field(ge=1, le=2**53)]
    """environment steps of each seed from one ranking of the members to the next; a multiple of evaluation.every"""
    replace: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    """share of the members that are replaced by copies of as many of the best; 0: none"""
    perturb: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.8, 1.25)
    """a copy multiplies each of its settings by one of these, within the bounds of [random]"""
    resample: Annotated[float, Field(ge=0, le=1)] = 0.1
    """probability that it draws a setting anew instead"""
    replay: bool = True
    """whether a copy takes replay and environments too, and not the learner alone"""


class StartSource(_Strict):
    """A combination of another sweep, whose lanes one of this sweep goes on from."""

    run: Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]
    """directory of that sweep, beside that of this one"""
    combination: Annotated[int, Field(ge=0)]
    """its number there"""


class StartConfig(_Strict):
    """`[start]`: where the combinations go on from, lanes of other sweeps that were stopped by `--until`."""

    step: Annotated[int, Field(ge=1, le=2**53)]
    """environment steps of each seed that they have made there"""
    sources: Annotated[tuple[StartSource, ...], Field(min_length=1, max_length=65536)]
    """of each combination, in order"""


class SweepFile(_Strict):
    """What a sweep file may hold."""

    base: str | tuple[str, ...] | dict[str, Any] | None = None
    """a preset, or a configuration file relative to this one; or several, in order; or what stands in them; left out:
    the defaults"""
    config: dict[str, Any] = Field(default_factory=dict[str, Any])
    """[config]: what differs from it, for all combinations"""
    grid: dict[str, Any] = Field(default_factory=dict[str, Any])
    """[grid]: lists of values by path; every combination of them is run"""
    random: dict[str, Any] = Field(default_factory=dict[str, Any])
    """[random]: `{ low = , high = , log = }` by path"""
    settings: Annotated[tuple[dict[str, Any], ...], Field(max_length=65536)] = ()
    """[[settings]]: combinations one by one, in the place of [grid] and [random]"""
    draws: Annotated[int, Field(ge=0, le=65536)] = 0
    """random draws, for each combination of the grid"""
    draw_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """of the random draws, and of those of a population"""
    population: PopulationConfig | None = None
    start: StartConfig | None = None


def read_sweep_file(path: Path) -> SweepFile:
    """Reads a sweep file.

    Raises:
      ConfigError: there is none, or something in it has no place in a sweep file.
      StorageError: it is there and cannot be read.
    """
    try:
        return SweepFile.model_validate(read_toml(path))
    except ValidationError as error:
        raise ConfigError("\n".join(mistakes(error, path, SweepFile, "a sweep"))) from error


def mistakes(error: ValidationError, path: Path, model: type[BaseModel], what: str) -> list[str]:
    """What is wrong with a file that is to be `what`, a line each."""
    lines = [f"{printable(path)} is not {what}:"]
    for details in error.errors(include_url=False):
        where, key = ".".join(map(str, details["loc"])), str(details["loc"][-1])
        unknown = details["type"] == "extra_forbidden"
        said = f"unknown key{nearest(key, _fields(model, details['loc'][:-1]))}" if unknown else details["msg"]
        lines.append(f"  {where}: {said}")
    return lines


def _fields(model: type[BaseModel], where: tuple[int | str, ...]) -> list[str]:
    """The fields of a file, or of the table there."""
    for name in where:
        if isinstance(name, int):  # an entry of a list, whose model is that of the list
            continue
        annotation: Any = model.model_fields[name].annotation
        parts = (annotation, *get_args(annotation))
        model = next(each for each in parts if isinstance(each, type) and issubclass(each, BaseModel))
    return list(model.model_fields)


def list_combinations(file: SweepFile, path: Path, fixed: Values) -> tuple[Values, ...]:
    """What each combination sets: every corner of the grid, with every random draw.

    Args:
      file: what was read.
      path: of the file, for messages.
      fixed: what is set for all, by path.

    Raises:
      ConfigError: it lists no values, or sets something twice; every mistake is named.
    """
    grid, draws = flatten(file.grid), flatten(file.random, leaf=RANGE)
    if file.settings:
        return _listed(file, path, fixed)
    problems = [
        f"  grid.{name} = {shown(values)}: must be a list of values"
        for name, values in grid.items()
        if not isinstance(values, list) or not values
    ]
    problems += [f"  {name}: stands in both [grid] and [random]" for name in grid.keys() & draws.keys()]
    twice = fixed.keys() & (grid.keys() | draws.keys())
    problems += [f"  {name}: is swept, and set to {shown(fixed[name])} for all; leave one out" for name in twice]
    if not grid and not draws:
        problems.append("  there is neither [grid] nor [random] nor [[settings]]: nothing is swept")
    if bool(draws) != bool(file.draws):
        problems.append(f"  draws = {file.draws} with {len(draws)} fields in [random]: set both or neither")
    ranges: dict[str, Draw] = {}
    for name, value in draws.items():
        if not takes_fractions(name):
            problems.append(f"  random.{name}: takes no fractions, so it cannot be drawn; list its values in [grid]")
            continue
        try:
            ranges[name] = Draw.model_validate(value)
        except ValidationError as error:
            problems += [f"  random.{name}: {_said(details)}" for details in error.errors(include_url=False)]
    count = prod(len(values) for values in grid.values() if isinstance(values, list)) * max(1, file.draws)
    if count > MAX_COMBINATIONS:
        problems.append(f"  {count} combinations are more than {MAX_COMBINATIONS}")
    if problems:
        raise ConfigError("\n".join([f"{printable(path)} is not a sweep:", *map(printable, problems[:_SHOWN])]))
    corners = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return tuple(corner | drawn for corner in corners for drawn in _random_draws(ranges, file.draws, file.draw_seed))


def _listed(file: SweepFile, path: Path, fixed: Values) -> tuple[Values, ...]:
    """The combinations of a file that names each of them."""
    settings = tuple(flatten(each) for each in file.settings)
    beside = [name for name in ("grid", "random", "draws") if getattr(file, name)]
    problems = [f"  {name}: has no effect beside [[settings]]; leave it out" for name in beside]
    twice = sorted(fixed.keys() & {name for each in settings for name in each})
    problems += [f"  {name}: is set to {shown(fixed[name])} for all, and in [[settings]]" for name in twice]
    problems += [f"  settings: number {i + 1} sets nothing" for i, each in enumerate(settings) if not each]
    if problems:
        raise ConfigError("\n".join([f"{printable(path)} is not a sweep:", *map(printable, problems[:_SHOWN])]))
    return settings


def _said(details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ")
    return f"{details['loc'][0]}: {message}" if details["loc"] else message


def _random_draws(ranges: Mapping[str, Draw], count: int, seed: int) -> list[Values]:
    """Random combinations; the same for every corner of the grid."""
    if not ranges:
        return [{}]
    rng = np.random.default_rng(seed)
    columns = {
        name: np.exp(rng.uniform(np.log(r.low), np.log(r.high), count)) if r.log else rng.uniform(r.low, r.high, count)
        for name, r in ranges.items()
    }
    return [{name: float(values[i]) for name, values in columns.items()} for i in range(count)]


def flatten(values: Mapping[str, Any], prefix: str = "", leaf: frozenset[str] = frozenset()) -> Values:
    """Nested tables by path; a table that has a key of `leaf` is a value."""
    flat: Values = {}
    for name, value in values.items():
        if isinstance(value, dict) and not (leaf & value.keys()):
            flat |= flatten(cast("dict[str, Any]", value), f"{prefix}{name}.", leaf)
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def nest(values: Values) -> dict[str, Any]:
    """Values by path as nested tables."""
    nested: dict[str, Any] = {}
    for path, value in values.items():
        *parents, last = path.split(".")
        node: dict[str, Any] = {last: value}
        for parent in reversed(parents):
            node = {parent: node}
        nested = merge(nested, node)
    return nested
