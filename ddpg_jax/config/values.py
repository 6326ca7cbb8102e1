"""What may be written in several ways, brought into one: ranges of actions, wrappers; and which values name modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast


def as_pairs(value: object) -> object:
    """Ranges as pairs, where one was given for all.

    Raises:
      ValueError: it is a list of numbers that are not two.
    """
    if not isinstance(value, (list, tuple)):
        return value
    ends = cast("list[object]", value)
    if any(isinstance(each, (list, tuple)) for each in ends):
        return ends
    if len(ends) != 2:
        raise ValueError("must be the lowest and the highest action, as in [-2, 2], or a list of such pairs")
    return [ends]


def check_pairs(pairs: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """The pairs, if the first of each is below the second.

    Raises:
      ValueError: it is not.
    """
    for low, high in pairs:
        if not low < high:
            raise ValueError(f"{low} is not below {high}")
    return pairs


def as_names(value: object) -> object:
    """Names as a list, where they were given as one text, divided by commas."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def as_tables(value: object) -> object:
    """Wrappers as tables, those that were given by name alone too."""
    if not isinstance(value, (list, tuple)):
        return value
    return [{"name": one} if isinstance(one, str) else one for one in cast("list[object]", value)]


def named_wrappers(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The wrappers in the nested values of a configuration: where each stands, and its name."""
    env = values.get("env")
    wrappers: Any = as_tables(cast("Mapping[str, Any]", env).get("wrappers")) if isinstance(env, Mapping) else None
    each = cast("list[Any]", wrappers) if isinstance(wrappers, list) else []
    names = [cast("Mapping[str, Any]", one).get("name") if isinstance(one, Mapping) else None for one in each]
    return [(f"env.wrappers.{i}", name) for i, name in enumerate(names) if isinstance(name, str)]
