"""A sweep: which configurations are compared, read from a TOML file and checked as a whole.

Numbers that a learner only computes with (learning rates, tau, gamma, noise scales) become lanes of one program; any
other difference, of networks or batches say, is structure and makes a group of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ddpg_jax.config.load import Source, compose, dump_toml, merge, read_source, read_toml, resolve_sources
from ddpg_jax.config.mistakes import nearest, shown
from ddpg_jax.config.parts import Parts
from ddpg_jax.config.presets import is_preset
from ddpg_jax.config.schema import Config, hyper_paths, takes_fractions, with_values
from ddpg_jax.config.wording import overrides_name
from ddpg_jax.errors import ConfigError, printable

_SHOWN, _ENOUGH = 20, 1000
"""Mistakes that are shown, and after which no more are looked for."""

MAX_COMBINATIONS = 65536
"""Most combinations of a sweep."""

Values = dict[str, Any]
"""What a combination sets, by path."""


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
    draws: Annotated[int, Field(ge=0, le=65536)] = 0
    """random draws, for each combination of the grid"""
    draw_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """of the random draws"""


class Group(NamedTuple):
    """Combinations of one structure, which are lanes of one program.

    Attributes:
      config: of the structure; its numbers at the paths of `hyper` are not used.
      numbers: positions of its combinations in the sweep, C of them.
      hyper: their numbers by path, float32 `[C]`.
    """

    config: Config
    numbers: tuple[int, ...]
    hyper: dict[str, np.ndarray[Any, np.dtype[np.float32]]]


class Sweep(NamedTuple):
    """A sweep that was checked.

    Attributes:
      combinations: what each sets, by path.
      configs: the configuration of each.
      groups: the combinations by structure.
      source: the file, with its base and what was set on the command line joined; it is a sweep file again.
    """

    combinations: tuple[Values, ...]
    configs: tuple[Config, ...]
    groups: tuple[Group, ...]
    source: dict[str, Any]


def load_sweep(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Sweep:
    """Reads a sweep file and checks every combination.

    Args:
      path: a TOML file; see `SweepFile`.
      overrides: nested values that win over those of its base and its `[config]`.

    Raises:
      ConfigError: the file or a combination is wrong; it lists the mistakes.
    """
    path = Path(path)
    values = read_toml(path)
    try:
        file = SweepFile.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_mistakes(error, path))) from error
    base = file.base if isinstance(file.base, dict) else _read_base(file.base or (), path.parent)
    fixed = merge(file.config, overrides or {})
    combinations = _combinations(file, path, _flat(fixed))
    swept = {"grid": _flat(file.grid), "random": _flat(file.random, leaf={"low", "high"})}
    source = {"draws": file.draws, "draw_seed": file.draw_seed, "base": base, "config": fixed, **swept}
    return _check_sweep(source, combinations, str(path), overrides or {})


def name_parts(sweep: Sweep, parts: Parts) -> Sweep:
    """The sweep with what was handed over, which its source names.

    Raises:
      ConfigError: a part is of another type, or a combination does not go with it.
    """
    if parts == Parts():
        return sweep
    named = parts.name_in(sweep.configs[0])
    names: dict[str, Any] = {"env": {"id": named.env.id}, "algorithm": {"make_agent": named.algorithm.make_agent}}
    given = {"env": parts.env, "algorithm": parts.make_agent}
    names = {section: table for section, table in names.items() if given[section] is not None}
    source = sweep.source | {"config": merge(sweep.source["config"], names)}
    return _check_sweep(source, sweep.combinations, "the sweep", names)


def swept_values(path: Path) -> dict[str, Any]:
    """What all combinations of a stored sweep share, nested."""
    values = read_toml(path)
    return compose((values.get("base", {}), values.get("config", {})))


def _read_base(base: str | tuple[str, ...], folder: Path) -> dict[str, Any]:
    """The values of the presets and files that a sweep starts from."""
    words = (base,) if isinstance(base, str) else base
    return compose(read_source(word if is_preset(word) else folder / word).values for word in words)


def _mistakes(error: ValidationError, path: Path) -> list[str]:
    lines = [f"{path} is not a sweep:"]
    for details in error.errors(include_url=False):
        where, key = ".".join(map(str, details["loc"])), str(details["loc"][-1])
        unknown = details["type"] == "extra_forbidden"
        lines.append(
            f"  {where}: " + (f"unknown key{nearest(key, list(SweepFile.model_fields))}" if unknown else details["msg"])
        )
    return lines


def _combinations(file: SweepFile, path: Path, fixed: Values) -> tuple[Values, ...]:
    grid, draws = _flat(file.grid), _flat(file.random, leaf={"low", "high"})
    problems = [
        f"  grid.{name} = {shown(values)}: must be a list of values"
        for name, values in grid.items()
        if not isinstance(values, list) or not values
    ]
    problems += [f"  {name}: stands in both [grid] and [random]" for name in grid.keys() & draws.keys()]
    twice = fixed.keys() & (grid.keys() | draws.keys())
    problems += [f"  {name}: is swept, and set to {shown(fixed[name])} for all; leave one out" for name in twice]
    if not grid and not draws:
        problems.append("  there is neither [grid] nor [random]: nothing is swept")
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


def _check_sweep(
    file: dict[str, Any], combinations: tuple[Values, ...], source: str, overrides: Mapping[str, Any]
) -> Sweep:
    """The sweep of a file; the overrides are in it already, and may name modules to import, as nothing else may."""
    own = Source(overrides_name(), overrides, trusted=True)
    base, problems = compose((file["base"], file["config"])), list[str]()
    configs: list[Config] = []
    for values in combinations:
        if "seeds" in values:
            problems.append("  seeds: every combination runs the same seeds; set them in [config]")
        try:
            configs.append(resolve_sources([Source(source, base), own, Source("a combination", _nest(values))]))
        except ConfigError as error:
            problems += str(error).splitlines()[1:]
        if len(problems) > _ENOUGH:
            break
    if problems:
        unique = list(dict.fromkeys(problems))
        more = [f"  ... and {len(unique) - _SHOWN} more"] if len(unique) > _SHOWN else []
        raise ConfigError("\n".join([f"{printable(source)}: mistakes in the combinations:", *unique[:_SHOWN], *more]))
    members: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        members.setdefault(_structure(config, combinations[i]), []).append(i)
    groups: list[Group] = []
    for numbers in members.values():
        first = numbers[0]
        paths = [name for name in combinations[first] if name in hyper_paths(configs[first])]
        hyper = {name: np.array([combinations[i][name] for i in numbers], np.float32) for name in paths}
        groups.append(Group(configs[first], tuple(numbers), hyper))
    return Sweep(combinations, tuple(configs), tuple(groups), file)


def _structure(config: Config, values: Values) -> str:
    """The configuration without the numbers that may differ within a group."""
    return dump_toml(with_values(config, {name: 0.0 for name in values if name in hyper_paths(config)}))


def _flat(values: Mapping[str, Any], prefix: str = "", leaf: frozenset[str] | set[str] = frozenset()) -> Values:
    """Nested tables by path; a table that has a key of `leaf` is a value."""
    flat: Values = {}
    for name, value in values.items():
        if isinstance(value, dict) and not (leaf & value.keys()):
            flat |= _flat(cast("dict[str, Any]", value), f"{prefix}{name}.", leaf)
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _nest(values: Values) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in values.items():
        *parents, last = path.split(".")
        node: dict[str, Any] = {last: value}
        for parent in reversed(parents):
            node = {parent: node}
        nested = merge(nested, node)
    return nested
