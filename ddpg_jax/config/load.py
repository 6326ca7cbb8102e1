"""How files and command lines become a configuration, and how mistakes in them are reported.

Order: defaults, then the file, then the command line. All mistakes are found at once and reported with their path, the
value, what is allowed and the nearest key, before jax is imported.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ddpg_jax.config.schema import TAGS, Config, is_device_env, sections
from ddpg_jax.errors import ConfigError


def load_config(path: str | Path | None = None, **overrides: Any) -> Config:
    """Reads a configuration: defaults, then the file, then the overrides.

    Args:
      path: a TOML file; None for the defaults.
      **overrides: top-level fields; a mapping for a section, as in `load_config(seeds=5, algorithm={"tau": 0.01})`.

    Returns:
      The configuration.

    Raises:
      ConfigError: listing every mistake.
    """
    return resolve(read_toml(path) if path is not None else {}, overrides, source=str(path) if path else "the file")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
      ConfigError: there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def resolve(
    values: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    source: str,
    overrides_name: str = "command line",
    extra_errors: Mapping[str, str] | None = None,
) -> Config:
    """Merges values and overrides over the defaults and checks them.

    Args:
      values: nested values of a file.
      overrides: nested values that win over them.
      source: what the file is called in messages.
      overrides_name: what the overrides are called.
      extra_errors: mistakes already found, message by path; reported with the others.

    Raises:
      ConfigError: listing every mistake.
    """
    merged = merge(_without_other_kind(values, overrides), overrides)
    problems = dict(extra_errors or {}) | _not_numbers(merged)
    identifier = merged.get("env", {}).get("id", "") if isinstance(merged.get("env"), dict) else ""
    config = None
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            path, message = _describe(details, merged)
            if message and not any(known.startswith(f"{path}.") for known in problems):
                problems.setdefault(path, message)
    module = isinstance(identifier, str) and ":" in identifier and not is_device_env(identifier)
    if module and not _lookup(overrides, ("env", "id")):
        problems["env.id"] = f"{identifier!r}: a module to import may be named on the command line only"
    if problems or config is None:
        raise ConfigError(_report(problems, overrides, merged, source, overrides_name))
    return config


def dump_toml(config: Config) -> str:
    """The configuration as TOML, every field; reads back equal."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def merge(base: Mapping[str, Any], overrides_name: Mapping[str, Any]) -> dict[str, Any]:
    """Joins two nested mappings; the second wins."""
    joined = dict(base)
    for key, value in overrides_name.items():
        both = isinstance(value, Mapping) and isinstance(joined.get(key), Mapping)
        joined[key] = merge(joined[key], cast("Mapping[str, Any]", value)) if both else value
    return joined


def nearest(word: str, words: list[str]) -> str:
    """`; did you mean X?`, or what there is, or nothing."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(words)}" if 0 < len(words) <= 24 else ""


def _without_other_kind(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values without what another kind of noise, algorithm or replay, asked for by the overrides, does not share.

    Kinds of noise share nothing, as their fields mean different things; the others share what both of them know.
    """
    kept = dict(values)
    kind, other = (_lookup(each, ("exploration", "kind")) for each in (values, overrides))
    if other is not None and other != kind:
        kept.pop("exploration", None)
    for section in ("algorithm", "replay"):
        tag = TAGS[section]
        name, other = (_lookup(each, (section, tag)) for each in (values, overrides))
        models = {_only_kind(model, tag): model for model in sections()[section]}
        if other is not None and other != name and other in models and isinstance(values.get(section), Mapping):
            known = models[other].model_fields
            kept[section] = {field: value for field, value in values[section].items() if field in known}
    return kept


def _not_numbers(merged: Mapping[str, Any]) -> dict[str, str]:
    """Booleans and texts where a number belongs; pydantic would turn them into numbers."""
    places = [((name,), field) for name, field in Config.model_fields.items()]
    for section, models in sections().items():
        places += [((section, name), field) for model in models for name, field in model.model_fields.items()]
    given = [(path, _lookup(merged, path)) for path, field in places if _is_number(field.annotation)]
    return {
        ".".join(path): f"must be a number, not {type(value).__name__}"
        for path, value in given
        if isinstance(value, (bool, str))
    }


def _is_number(annotation: Any) -> bool:
    return annotation in (int, float) or (
        get_origin(annotation) is not tuple and any(_is_number(part) for part in get_args(annotation))
    )


def _fields_at(path: tuple[str, ...], merged: Mapping[str, Any]) -> list[str]:
    """The keys that are known where an unknown one was found."""
    if not path:
        return list(Config.model_fields)
    models = sections().get(path[0], ())
    tag = TAGS.get(path[0], "")
    kind = _lookup(merged, (path[0], tag))
    chosen = [m for m in models if len(models) == 1 or kind in (m.model_fields[tag].default, _only_kind(m, tag))]
    return sorted({name for model in chosen or models for name in model.model_fields})


def _only_kind(model: type[BaseModel], tag: str) -> str:
    return model.model_fields[tag].annotation.__args__[0]  # type: ignore[union-attr]


def _describe(details: ErrorDetails, merged: Mapping[str, Any]) -> tuple[str, str]:
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
    if details["type"] == "missing":
        return ".".join([*where, str(details["loc"][-1])]), "must be given"
    path, kind = ".".join(where), details["type"]
    if kind == "extra_forbidden":
        known = _fields_at(tuple(where[:-1]), merged)
        return path, f"unknown key{nearest(where[-1], known)}"
    if kind in ("model_type", "model_attributes_type") and path in sections():
        return path, f"is a section; write --{path}.{TAGS.get(path) or next(iter(_fields_at((path,), merged)))}"
    if kind == "union_tag_invalid":
        tag = TAGS[path]
        kinds = [_only_kind(model, tag) for model in sections()[path]]
        close = difflib.get_close_matches(str(_lookup(merged, (path, tag))), kinds, n=1)
        choices = f"must be {', '.join(map(repr, kinds[:-1]))} or {kinds[-1]!r}"
        return f"{path}.{tag}", choices + (f"; did you mean {close[0]}?" if close else "")
    other_branch = kind == "int_type" if isinstance(node, list) else kind == "tuple_type" and path == "seeds"
    message = "" if other_branch else details["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be").replace("a valid tuple", "a list, as in [64, 64]")
    message = message.replace("a valid dictionary", "a table, as in {g = 9.81}")
    return path, message[:1].lower() + message[1:]


def _lookup(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    node: Any = values
    for part in path:
        if isinstance(node, Mapping) and part in node:
            node = cast("Mapping[str, Any]", node)[part]
        elif isinstance(node, list) and part.isdigit() and int(part) < len(cast("list[Any]", node)):
            node = cast("list[Any]", node)[int(part)]
        else:
            return None
    return node


def _report(
    problems: Mapping[str, str],
    overrides: Mapping[str, Any],
    merged: Mapping[str, Any],
    source: str,
    overrides_name: str,
) -> str:
    lines: list[str] = []
    for path, message in problems.items():
        keys = tuple(path.split("."))
        value = _lookup(merged, keys)
        origin = source if _lookup(overrides, keys) is None else overrides_name
        lines.append(f"  {path}: {message}" if value is None else f"  {path} = {value!r} ({origin}): {message}")
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    return f"{count} in the configuration:\n" + "\n".join(lines)
