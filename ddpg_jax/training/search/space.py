"""What is searched: ranges of numbers and choices of anything by the path of a field, some only under a condition.

The rules of a space are checked here. Whether a field exists and takes a value is for the configuration to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ddpg_jax.config.mistakes import nearest, shown
from ddpg_jax.config.schema import sections, takes_fractions
from ddpg_jax.errors import ConfigError, printable

MAX_SETTINGS = 65536
"""Most settings of a grid."""

_SHOWN = 20
"""Mistakes that are shown."""

_LARGEST = 2**53
"""Ends of a range of whole numbers; beyond, floating-point numbers leave some out."""

Values = dict[str, Any]
"""A setting: what it sets, by path."""

When = dict[str, Annotated[list[Any], Field(min_length=1)]]
"""The values that other paths must have, each one of those listed."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Range(_Strict):
    """A number from `low` to `high`, both included; spread evenly, or its logarithm if `log`."""

    low: float
    high: float
    log: bool = False
    integer: bool = False
    points: Annotated[int, Field(ge=2, le=MAX_SETTINGS)] | None = None
    """how many values a grid takes, the ends among them; no other sampler looks at it"""
    when: When = Field(default_factory=dict)
    """the range is searched only where these hold"""

    @model_validator(mode="after")
    def _check_ends(self) -> Range:
        ends = f"low={self.low:.16g}, high={self.high:.16g}"
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"{ends}: low must be below high, and positive for log = true")
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"{ends}: high - low must be finite")
        whole = self.low.is_integer() and self.high.is_integer()
        if self.integer and not (whole and max(-self.low, self.high) <= _LARGEST):
            raise ValueError(f"{ends}: must be whole numbers up to 2**53 for integer = true")
        return self


class Choice(_Strict):
    """One of the values listed, of any kind that TOML has."""

    choice: Annotated[list[Any], Field(min_length=1)]
    when: When = Field(default_factory=dict)
    """the choice is made only where these hold"""

    @model_validator(mode="after")
    def _check_different(self) -> Choice:
        twice = [each for i, each in enumerate(self.choice) if each in self.choice[:i]]
        if twice:
            raise ValueError(f"{shown(twice[0])} stands in it twice")
        return self


Space = dict[str, Range | Choice]
"""What is searched, by path, in the order of the file."""

_KEYS = list(dict.fromkeys([*Range.model_fields, *Choice.model_fields]))


def parse_space(table: Mapping[str, Any], where: str) -> Space:
    """Reads `[search.space]`; paths may be quoted, or tables inside each other.

    Args:
      table: `{ low, high, log, integer, points, when }` or `{ choice, when }` by path.
      where: what it stands in, for messages.

    Raises:
      ConfigError: the table is no space; it lists the mistakes.
    """
    problems, space = list[str](), Space()
    entries = _entries(table, "", problems)
    for path, entry in entries.items():
        found = _read(path, entry, problems)
        if found is not None:
            space[path] = found
    if not entries and not problems:
        problems.append("is empty: there is nothing to search")
    for path, each in space.items():
        problems += [f"{path}.when: {problem}" for problem in _wrong_conditions(each.when, space, entries)]
    if not problems and (circle := _order(space)[1]):
        problems.append(f"{circle[0]}.when: waits for itself: {' needs '.join([*circle, circle[0]])}")
    if problems:
        lines = [f"  search.space.{line}" if entries else f"  search.space {line}" for line in problems[:_SHOWN]]
        lines += [f"  ... and {len(problems) - _SHOWN} more"] * (len(problems) > _SHOWN)
        raise ConfigError("\n".join(map(printable, [f"{where} is not a search:", *lines])))
    return space


def active(space: Space, values: Mapping[str, Any]) -> list[str]:
    """The paths whose conditions hold, each after those that it waits for.

    Args:
      space: what is searched.
      values: what is decided by now, by path; a condition on what is undecided, or not active, doesn't hold.
    """
    decided, found = Values(), list[str]()
    for path in _order(space)[0]:
        if _holds(space[path].when, decided):
            found.append(path)
            decided |= {path: values[path]} if path in values else {}
    return found


def settle(space: Space, decide: Callable[[str], Any]) -> Values:
    """The setting that comes of asking for one active path after the other; in the order of the file."""
    values = Values()
    for path in _order(space)[0]:
        if _holds(space[path].when, values):
            values[path] = decide(path)
    return {path: values[path] for path in space if path in values}


def from_unit(space: Space, unit: np.ndarray[Any, Any]) -> Values:
    """The setting at a point of the unit cube.

    Args:
      space: what is searched, D paths.
      unit: one coordinate in [0, 1) for each path, in the order of the file, `[D]`; those of inactive paths are unused.
    """
    coordinates = dict(zip(space, unit.tolist(), strict=True))
    return settle(space, lambda path: _place(space[path], coordinates[path]))


def to_unit(each: Range, value: float) -> float:
    """The coordinate in [0, 1] of a number; of a whole one the middle of those that lead to it."""
    low, high = _ends(each)
    at = math.log(value) if each.log else value
    return min(max((at - low) / (high - low), 0.0), 1.0)


def contains(space: Space, values: Mapping[str, Any]) -> bool:
    """Whether a setting is one of this space: it sets just the active paths, and each to one of its values."""
    return set(active(space, values)) == set(values) and all(_allows(space[path], values[path]) for path in values)


def grid(space: Space) -> list[Values]:
    """Every setting of a space of choices and of ranges with `points`; the first path changes slowest.

    Raises:
      ConfigError: a range has no `points`, or there are too many settings.
    """
    bare = [path for path, each in space.items() if isinstance(each, Range) and each.points is None]
    if bare:
        names = printable(", ".join(bare))
        raise ConfigError(f"search.space: a grid needs points = n in each range, or choices in its place: {names}")
    found: list[Values] = [{}]
    for path in _order(space)[0]:
        candidates, when = _candidates(space[path]), space[path].when
        if (count := sum(len(candidates) if _holds(when, values) else 1 for values in found)) > MAX_SETTINGS:
            raise ConfigError(f"search.space: a grid of {count} settings or more; at most {MAX_SETTINGS} are allowed")
        found = [
            values | setting
            for values in found
            for setting in ([{path: each} for each in candidates] if _holds(when, values) else [{}])
        ]
    return [{path: values[path] for path in space if path in values} for values in found]


def _entries(table: Mapping[str, Any], prefix: str, problems: list[str]) -> dict[str, dict[str, Any]]:
    """The table of each path; a table inside another belongs to a longer path, unless it has a key of an entry."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in table.items():
        path = f"{prefix}{name}"
        inner = cast("dict[str, Any]", value) if isinstance(value, dict) else None
        if inner is None:
            problems.append(f"{path} = {shown(value)}: must be {{ low = ..., high = ... }} or {{ choice = [...] }}")
            continue
        tables = path in sections() or any(isinstance(each, dict) for each in inner.values())
        nested = tables and inner.keys().isdisjoint(_KEYS)
        more = _entries(inner, f"{path}.", problems) if nested else {path: inner}
        problems += [f"{twice}: stands there twice" for twice in more if twice in found]
        found |= more
    return found


def _read(path: str, entry: dict[str, Any], problems: list[str]) -> Range | Choice | None:
    """What an entry is; None if it is wrong, which is added to the problems."""
    unknown = [f"{path}: unknown key {key}{nearest(key, _KEYS)}" for key in entry if key not in _KEYS]
    ranged = [key for key in Range.model_fields if key in entry and key != "when"]
    if unknown or ("choice" in entry and ranged):
        problems += unknown or [f"{path}: has both choice and {ranged[0]}; leave one out"]
        return None
    if isinstance(entry.get("when"), dict):
        entry = entry | {"when": _flat(entry["when"])}
    try:
        found = (Choice if "choice" in entry else Range).model_validate(entry)
    except ValidationError as error:
        problems += [f"{path}{_said(details)}" for details in error.errors(include_url=False)]
        return None
    if isinstance(found, Range) and not found.integer and not takes_fractions(path):
        problems.append(f"{path}: takes no fractions; add integer = true, or list its values in choice")
    return found


def _said(details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    where = "".join(f".{part}" for part in details["loc"])
    return f"{where}: must be given" if details["type"] == "missing" else f"{where}: {message}"


def _flat(when: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Conditions by path, where they are written as tables inside each other."""
    flat: dict[str, Any] = {}
    for name, value in when.items():
        flat |= (
            _flat(cast("dict[str, Any]", value), f"{prefix}{name}.")
            if isinstance(value, dict)
            else {f"{prefix}{name}": value}
        )
    return flat


def _wrong_conditions(when: When, space: Space, entries: Mapping[str, Any]) -> list[str]:
    """What keeps conditions from holding; one on an entry that is itself wrong is looked at later."""
    problems: list[str] = []
    for parent, allowed in when.items():
        if parent not in space:
            choices = [path for path, each in space.items() if isinstance(each, Choice)]
            problems += [f"{parent} is not in the space{nearest(parent, choices)}"] * (parent not in entries)
        elif isinstance(each := space[parent], Choice):
            strange = [value for value in allowed if value not in each.choice]
            problems += [f"{shown(value)} is no choice of {parent}: {shown(each.choice)}" for value in strange]
        else:
            problems.append(f"{parent} is a range; a condition needs a choice")
    return problems


def _order(space: Space) -> tuple[list[str], list[str]]:
    """The paths in the order of the file, but each after those that it waits for; and a circle of such, if any."""
    placed: dict[str, None] = {}
    for path in space:
        waiting = [path]
        while waiting:
            missing = next((parent for parent in space[waiting[-1]].when if parent not in placed), None)
            if missing in waiting:
                return [], waiting[waiting.index(missing) :]
            if missing is None:
                placed[waiting.pop()] = None
            else:
                waiting.append(missing)
    return list(placed), []


def _holds(when: When, decided: Mapping[str, Any]) -> bool:
    return all(parent in decided and decided[parent] in allowed for parent, allowed in when.items())


def _ends(each: Range) -> tuple[float, float]:
    """Between what a coordinate is spread; each whole number has a stretch around it, those at the ends too."""
    margin = 0.5 if each.integer else 0.0
    low, high = each.low - margin, each.high + margin
    return (math.log(low), math.log(high)) if each.log else (low, high)


def _place(each: Range | Choice, at: float) -> Any:
    """The value at a coordinate in [0, 1]."""
    if isinstance(each, Choice):
        return each.choice[min(int(at * len(each.choice)), len(each.choice) - 1)]
    low, high = _ends(each)
    value = low + at * (high - low)
    value = min(max(math.exp(value) if each.log else value, each.low), each.high)  # rounding may lead outside
    return round(value) if each.integer else value


def _candidates(each: Range | Choice) -> list[Any]:
    """What a grid takes."""
    if isinstance(each, Choice):
        return each.choice
    spread = np.geomspace if each.log else np.linspace
    values: list[float] = spread(each.low, each.high, each.points or 2).tolist()
    return list(dict.fromkeys(map(round, values))) if each.integer else values


def _allows(each: Range | Choice, value: Any) -> bool:
    if isinstance(each, Choice):
        return value in each.choice
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and each.low <= value <= each.high and (not each.integer or float(value).is_integer())
