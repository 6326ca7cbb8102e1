"""How mistakes in a configuration are described: their path, the value, what is allowed, and the nearest key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ddpg_jax.config.schema import TAGS, Config, sections
from ddpg_jax.config.wording import at_command_line
from ddpg_jax.errors import printable

MAX_LINES = 50
"""Mistakes that are told one by one."""

_MAX_WIDTH = 200

_LEARNING_RATES = ("algorithm.actor_learning_rate", "algorithm.critic_learning_rate")

_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "lr": _LEARNING_RATES,
    "learning_rate": _LEARNING_RATES,
    "actor_lr": _LEARNING_RATES[:1],
    "critic_lr": _LEARNING_RATES[1:],
    "hidden_sizes": ("algorithm.hidden",),
    "net_arch": ("algorithm.hidden",),
    "discount": ("algorithm.gamma",),
    "polyak": ("algorithm.tau",),
    "start_steps": ("algorithm.warmup_steps",),
    "policy_freq": ("algorithm.policy_delay",),
    "policy_noise": ("algorithm.target_noise",),
    "noise_clip": ("algorithm.target_noise_clip",),
    "noise": ("exploration.sigma",),
    "exploration_noise": ("exploration.sigma",),
    "buffer_size": ("replay.capacity",),
    "memory_size": ("replay.capacity",),
    "seed": ("seeds",),
    "total_timesteps": ("total_steps",),
    "eval_freq": ("evaluation.every",),
    "eval_episodes": ("evaluation.episodes",),
}
"""Names that fields have in other codes."""


def nearest(word: str, words: Sequence[str]) -> str:
    """`; did you mean X?`, or what there is, or nothing."""
    close = difflib.get_close_matches(word[:_MAX_WIDTH], words, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(words)}" if 0 < len(words) <= 24 else ""


def shown(value: object) -> str:
    """A value as Python writes it, on one line of a bounded length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; a list in a list, thousands deep
        return "a value that is too long to be shown"
    text = printable(text)
    return text if len(text) <= _MAX_WIDTH else f"{text[:_MAX_WIDTH]}..."


def lookup(values: Mapping[str, Any], path: Sequence[str]) -> Any:
    """What stands at a path of keys, and of positions in lists; None if nothing does."""
    node: Any = values
    for part in path:
        if isinstance(node, Mapping) and part in node:
            node = cast("Mapping[str, Any]", node)[part]
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(cast("list[Any]", node)):
            node = cast("list[Any]", node)[int(part)]
        else:
            return None
    return node


def only_kind(model: type[BaseModel], tag: str) -> str:
    """What the tag of a model says."""
    return model.model_fields[tag].annotation.__args__[0]  # type: ignore[union-attr]


def describe_allowed(field: FieldInfo) -> str:
    """What a field may be: its choices, or the ends of its range; nothing where any value of its type is right."""
    parts = [field.annotation, *(part for part in get_args(field.annotation) if part is not type(None))]
    choices = next((get_args(part) for part in parts if get_origin(part) is Literal), ())
    if choices:
        return either(list(map(str, choices))) if len(choices) > 1 else ""
    inner = [mark for part in parts for mark in getattr(part, "__metadata__", ())]
    marks = [*field.metadata, *(each for mark in inner for each in (mark, *getattr(mark, "metadata", ())))]
    ends = {name: getattr(mark, name) for mark in marks for name in _ENDS if hasattr(mark, name)}
    ends = {name: end for name, end in ends.items() if end < 2**53}  # beyond, it is no limit to anybody
    return ", ".join(f"{word} {ends[name]:.16g}" for name, word in _ENDS.items() if name in ends)


_ENDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def find_non_numbers(merged: Mapping[str, Any]) -> dict[str, str]:
    """Booleans and texts where a number belongs; pydantic would turn them into numbers. Some fields may be texts."""
    found = {name: lookup(merged, name.split(".")) for name in sections()}
    tables = {name: cast("Mapping[str, Any]", table) for name, table in found.items() if isinstance(table, Mapping)}
    given = {f"{section}.{name}": value for section, table in tables.items() for name, value in table.items()}
    return {
        path: f"must be a number, not {type(value).__name__}"
        for path, value in (dict(merged) | given).items()
        if path in (_number_paths() if isinstance(value, bool) else _number_paths() - _text_paths())
        and isinstance(value, (bool, str))
    }


@cache
def _number_paths() -> frozenset[str]:
    """The fields that are numbers."""
    return frozenset(path for path, annotation in _annotations().items() if _is_number(annotation))


@cache
def _text_paths() -> frozenset[str]:
    """The fields that are texts, or may be."""
    return frozenset(path for path, annotation in _annotations().items() if str in (annotation, *get_args(annotation)))


def _annotations() -> dict[str, Any]:
    """What every field may be, by `section.field`."""
    places = dict(Config.model_fields)
    for section, models in sections().items():
        places |= {f"{section}.{name}": field for model in models for name, field in model.model_fields.items()}
    return {path: field.annotation for path, field in places.items()}


def _is_number(annotation: Any) -> bool:
    return annotation in (int, float) or (
        get_origin(annotation) is not tuple and any(_is_number(part) for part in get_args(annotation))
    )


def describe(details: ErrorDetails, merged: Mapping[str, Any]) -> tuple[str, str]:
    """Path and message of one pydantic error, without the tags that pydantic puts into paths."""
    where: list[str] = []
    node: Any = merged
    for part in details["loc"]:
        if isinstance(node, Mapping) and part in node:
            node = node[part]
            where.append(str(part))
        elif isinstance(node, (list, tuple)) and isinstance(part, int):
            node = node[part]  # pyright: ignore[reportUnknownVariableType]
            where.append(str(part))
    path, kind = ".".join(where), details["type"]
    if kind == "missing":
        return _missing([*where, str(details["loc"][-1])])
    if kind == "extra_forbidden":
        return path, _unknown_key(where, merged)
    if kind in ("model_type", "model_attributes_type") and path in sections():
        first = TAGS.get(path) or next(iter(sections()[path][0].model_fields))
        how = f"--{path}.{first}" if at_command_line() else f'{path} = {{"{first}": ...}}'
        return path, f"is a section; write {how}"
    if kind == "union_tag_invalid":
        return _unknown_kind(path, merged)
    other_branch = kind == "int_type" if isinstance(node, list) else kind == "tuple_type" and path == "seeds"
    message = "" if other_branch else details["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be").replace("a valid tuple", "a list, as in [64, 64]")
    message = message.replace("a valid dictionary", "a table, as in {g = 9.81}")
    return path, message[:1].lower() + message[1:]


def _missing(where: list[str]) -> tuple[str, str]:
    """Path and message of a field that must be given and is not."""
    path = ".".join(where)
    if path in ("algorithm.v_min", "algorithm.v_max"):
        return path, "must be given, or env.value_range, the lowest and the highest return of the task"
    return path, "must be given"


def _unknown_kind(path: str, merged: Mapping[str, Any]) -> tuple[str, str]:
    tag = TAGS[path]
    kinds = [only_kind(model, tag) for model in sections()[path]]
    close = difflib.get_close_matches(str(lookup(merged, (path, tag)))[:_MAX_WIDTH], kinds, n=1)
    choices = f"must be {', '.join(map(repr, kinds[:-1]))} or {kinds[-1]!r}"
    return f"{path}.{tag}", choices + (f"; did you mean {close[0]}?" if close else "")


def _unknown_key(where: list[str], merged: Mapping[str, Any]) -> str:
    """What is said of a key that the models do not know where it stands."""
    section, name = ".".join(where[:-1]), where[-1]
    tag = TAGS.get(section, "")
    owners = [only_kind(model, tag) for model in sections().get(section, ()) if tag and name in model.model_fields]
    if owners:
        kinds = " or ".join(f'"{kind}"' for kind in owners)
        return f"{name} belongs to {section}.{tag} = {kinds}"
    elsewhere = [
        f"{other}.{name}"
        for other, models in sections().items()
        if any(name in model.model_fields for model in models) and name not in TAGS.values()
    ]
    elsewhere += [name] if name in Config.model_fields and name not in sections() else []
    elsewhere += _OTHER_NAMES.get(name, ())
    if elsewhere and not _is_close(name, _fields_at(tuple(where[:-1]), merged)):
        return f"unknown key; did you mean {either(elsewhere)}?"
    return f"unknown key{nearest(name, _fields_at(tuple(where[:-1]), merged))}"


def _is_close(name: str, known: Iterable[str]) -> bool:
    """Whether a key is a slip of the pen for a neighbour, whatever else it may be called elsewhere."""
    return bool(difflib.get_close_matches(name[:_MAX_WIDTH], list(known), n=1, cutoff=0.9))


def either(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


def _fields_at(path: tuple[str, ...], merged: Mapping[str, Any]) -> list[str]:
    """The keys that are known where an unknown one was found."""
    if not path:
        return list(Config.model_fields)
    section = ".".join(path)
    models, tag = sections().get(section, ()), TAGS.get(section, "")
    kind = lookup(merged, (*path, tag))
    chosen = [m for m in models if len(models) == 1 or kind in (m.model_fields[tag].default, only_kind(m, tag))]
    return sorted({name for model in chosen or models for name in model.model_fields})
