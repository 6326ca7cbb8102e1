"""How files, presets and command lines become a configuration.

Order: defaults, then the files as they are named, then the command line. All mistakes are found at once and reported
with their path, the value, what is allowed and the nearest key (`mistakes`), before jax is imported.
"""

from __future__ import annotations

import errno
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import tomli_w
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ddpg_jax.config.conflicts import Conflict
from ddpg_jax.config.mistakes import MAX_LINES, describe, find_non_numbers, lookup, only_kind, shown
from ddpg_jax.config.plugins import allow_imports as allow
from ddpg_jax.config.plugins import imports_allowed, was_handed_over
from ddpg_jax.config.presets import is_preset, read_pair, read_preset
from ddpg_jax.config.schema import TAGS, Config, imported_names, name_agent, sections
from ddpg_jax.config.wording import at_command_line, option
from ddpg_jax.config.wording import overrides_name as name_overrides
from ddpg_jax.errors import ConfigError, StorageError, printable

MAX_BYTES = 2**21
"""Largest file of a configuration or a sweep."""

MAX_DEPTH = 32
"""Most tables and lists inside each other."""

MAX_BITS = 1000
"""Longest whole number, which is still less than the largest floating-point one."""

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
"""Errors of a path that is wrong; after any other the same path may be read at the next start."""

_OTHER_SUPPORT = ("v_min", "v_max")


class Source(NamedTuple):
    """Values of a configuration, and whose they are.

    Attributes:
      name: what they are called in messages.
      values: nested, by section.
      trusted: whether they may name a module to import; a file may not.
    """

    name: str
    values: Mapping[str, Any]
    trusted: bool = False


def load_config(*paths: str | Path, allow_imports: bool = False, **overrides: Any) -> Config:
    """Reads a configuration: defaults, then the files in order, then the overrides.

    Args:
      *paths: TOML files, or presets: text without a dot or a slash, as in `load_config("half_cheetah", "td3_paper")`.
      allow_imports: whether the files may name modules to import, as `module:name`.
      **overrides: top-level fields; a mapping for a section, as in `load_config(seeds=5, algorithm={"tau": 0.01})`.

    Returns:
      The configuration.

    Raises:
      ConfigError: listing every mistake.
      StorageError: a file is there and cannot be read.
    """
    with allow(allow_imports):
        return resolve_sources([*read_sources(paths), Source(name_overrides(), overrides, trusted=True)])


def read_sources(paths: Iterable[str | Path]) -> list[Source]:
    """Reads presets and files in order, and after two presets what holds of them together.

    Raises:
      ConfigError: there is none of a name, or it is not TOML.
      StorageError: one is there and cannot be read.
    """
    sources, named = list[Source](), list[str]()
    for path in paths:
        sources.append(read_source(path))
        if not is_preset(path):
            continue
        for other in named:
            if (text := read_pair(other, str(path))) is not None:
                sources.append(Source(f"presets {other} and {path}", tomllib.loads(text)))
        named.append(str(path))
    return sources


def read_source(path: str | Path) -> Source:
    """Reads a preset or a TOML file.

    Raises:
      ConfigError: there is none, or it is not TOML.
      StorageError: it is there and cannot be read.
    """
    if is_preset(path):
        return Source(f"preset {path}", tomllib.loads(read_preset(str(path))))
    return Source(str(path), read_toml(path))


def read_toml(path: str | Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
      ConfigError: there is no such file, it is too large, or it is not TOML.
      StorageError: it is there and cannot be read, which may be otherwise at the next start.
    """
    name = printable(path)
    try:
        content = _read(Path(path))
    except OSError as error:
        kind = ConfigError if error.errno in _NOT_THERE else StorageError
        raise kind(f"{name}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a path that no system takes
        raise ConfigError(f"{name}: cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{name}: not a TOML file: it has more than {MAX_BYTES} bytes")
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, a number of thousands of digits, nested
        what = "it is nested too deeply" if isinstance(error, RecursionError) else printable(error)
        raise ConfigError(f"{name}: not a TOML file: {what}") from error
    _refuse_excess(values, name)
    return values


def resolve(
    values: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    source: str,
    overrides_name: str | None = None,
    extra_errors: Mapping[str, str] | None = None,
) -> Config:
    """Merges values and overrides over the defaults and checks them.

    Args:
      values: nested values of a file.
      overrides: nested values that win over them, and may name a module.
      source: what the file is called in messages.
      overrides_name: what the overrides are called; None: as the user gave them, command line or arguments.
      extra_errors: mistakes already found, message by path; reported with the others.

    Raises:
      ConfigError: listing every mistake.
    """
    own = Source(overrides_name or name_overrides(), overrides, trusted=True)
    return resolve_sources([Source(source, values), own], extra_errors)


def resolve_sources(sources: Sequence[Source], extra_errors: Mapping[str, str] | None = None) -> Config:
    """Merges sources over the defaults, each over those before it, and checks what comes of it.

    Raises:
      ConfigError: listing every mistake.
    """
    for source in sources:
        _refuse_excess(source.values, printable(source.name))
    sources = [source._replace(values=_name_agent(source.values)) for source in sources]
    merged = compose(source.values for source in sources)
    config, problems = _validate(merged, dict(extra_errors or {}) | find_non_numbers(merged))
    problems |= _untrusted(merged, sources)
    if problems or config is None:
        raise ConfigError(_report(problems, merged, sources))
    return config


def _wrapper_option(name: str) -> str:
    """How a wrapper is named where the user stands."""
    return option("env.wrappers", f'["{name}"]') if at_command_line() else f'env={{"wrappers": [{printable(name)!r}]}}'


def _name_agent(values: Mapping[str, Any]) -> Mapping[str, Any]:
    table = values.get("algorithm")
    return {**values, "algorithm": name_agent(table)} if isinstance(table, Mapping) else values


def _untrusted(merged: Mapping[str, Any], sources: Sequence[Source]) -> dict[str, str]:
    """Modules that a file names to import: a file from a stranger runs no code, unless that is allowed."""
    problems: dict[str, str] = {}
    where = "on the command line" if at_command_line() else "by an argument"
    for path, name in imported_names(merged):
        origin = _origin(sources, path.split("."))
        if origin is None or origin.trusted or imports_allowed() or was_handed_over(name):
            continue
        how = _wrapper_option(name) if path.startswith("env.wrappers.") else option(path, name)
        again = f": {how}" if not path.startswith("logging.") else ""
        problems[path] = (
            f"a module to import may be named {where} only{again}; "
            f"{'--allow-imports' if at_command_line() else 'allow_imports=True'} lets files name them"
        )
    return problems


def _validate(merged: Mapping[str, Any], problems: dict[str, str]) -> tuple[Config | None, dict[str, str]]:
    """The configuration, if it is one, and all mistakes, message by path; those that are known already go before."""
    try:
        return Config.model_validate(merged), problems
    except ValidationError as error:
        found = error.errors(include_url=False)
    conflicts = _conflicts(found)
    for details in found:
        path, message = describe(details, merged)
        if path and message and not any(known.startswith(f"{path}.") for known in problems):
            problems.setdefault(path, message)
    if not conflicts:  # which are looked for in a configuration without other mistakes only
        try:
            Config.model_validate(_leave_out(merged, problems))
        except ValidationError as error:
            conflicts = _conflicts(error.errors(include_url=False))
    right = [each for each in conflicts if not any(path in problems for path in (each.path, *each.others))]
    return None, problems | {each.path: each.message for each in right}


def _conflicts(found: Sequence[ErrorDetails]) -> list[Conflict]:
    return [each for details in found if details["type"] == "conflicts" for each in details["ctx"]["conflicts"]]  # pyright: ignore[reportTypedDictNotRequiredAccess]


def _leave_out(merged: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """The values without those at some paths of keys."""
    kept = dict(merged)
    for path in paths:
        name, _, inner = path.partition(".")
        table = kept.get(name)
        if inner and isinstance(table, Mapping):
            kept[name] = _leave_out(cast("Mapping[str, Any]", table), [inner])
        else:
            kept.pop(name, None)
    return kept


def dump_toml(config: Config) -> str:
    """The configuration as TOML, every field; reads back equal."""
    values = config.model_dump(mode="json", exclude_none=True)
    values["env"]["kwargs"] = _name_none(config.env.kwargs)
    values["env"]["wrappers"] = [_name_none(each.model_dump()) for each in config.env.wrappers]
    values["algorithm"]["kwargs"] = _name_none(config.algorithm.kwargs)
    return tomli_w.dumps(values)


def _name_none(value: Any) -> Any:
    """The arguments of a constructor with a word for None, which TOML does not have."""
    if isinstance(value, dict):
        return {name: _name_none(each) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_name_none(each) for each in cast("list[Any]", value)]
    return "None" if value is None else value


def compose(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins nested values, each over those before it; what a chosen kind does not share is left out."""
    merged: dict[str, Any] = {}
    for values in layers:
        merged = merge(_yield_to(merged, values), values)
    return merged


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Joins two nested mappings; the second wins."""
    joined = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(joined.get(key), Mapping)
        joined[key] = merge(joined[key], cast("Mapping[str, Any]", value)) if both else value
    return joined


def _yield_to(values: Mapping[str, Any], over: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values without what has lost its meaning beside those that win over them.

    Kinds of noise share nothing, as their fields mean different things; other kinds share what both of them know. A
    range of values that is given later replaces the atoms' ends. What no kind knows stays, as a mistake to be reported.
    """
    kept = dict(values)
    for section, tag in TAGS.items():
        models = {only_kind(model, tag): model for model in sections()[section]}
        table, kind = values.get(section), lookup(over, (section, tag))
        if (
            not isinstance(table, Mapping)
            or not isinstance(kind, str)
            or kind not in models
            or kind == table.get(tag, next(iter(models)))
        ):
            continue
        shared = set[str]() if section == "exploration" else models[kind].model_fields.keys()
        known = {field for model in models.values() for field in model.model_fields}
        kept[section] = {field: value for field, value in table.items() if field in shared or field not in known}
    named, own = lookup(over, ("algorithm", "name")), lookup(over, ("algorithm", "make_agent"))
    table = kept.get("algorithm")
    if isinstance(named, str) and own is None and isinstance(table, Mapping):  # that of the package, not one's own
        kept["algorithm"] = {field: value for field, value in table.items() if field not in ("make_agent", "kwargs")}
    table = kept.get("algorithm")
    if lookup(over, ("env", "value_range")) is not None and isinstance(table, Mapping):
        kept["algorithm"] = {field: value for field, value in table.items() if field not in _OTHER_SUPPORT}
    return kept


def _read(path: Path) -> bytes:
    """A file's bytes, as many as are allowed and one more; a pipe only where the shell has made it."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "Is a directory")
    if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and path.is_relative_to("/dev")):
        raise OSError(errno.EINVAL, "Not a regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _refuse_excess(values: Mapping[str, Any], name: str) -> None:
    """Refuses numbers and nesting beyond measure, which no configuration needs and Python cannot write or follow."""
    level: list[Any] = [values]
    for _ in range(MAX_DEPTH):
        inner = [each for node in level for each in (node.values() if isinstance(node, Mapping) else node)]
        if any(isinstance(each, int) and each.bit_length() > MAX_BITS for each in inner):
            raise ConfigError(f"{name}: holds a whole number of more than {MAX_BITS // 4} digits")
        level = [each for each in inner if isinstance(each, (Mapping, list, tuple))]
        if not level:
            return
    raise ConfigError(f"{name}: tables and lists are nested deeper than {MAX_DEPTH}")


def _origin(sources: Sequence[Source], path: Sequence[str]) -> Source | None:
    """The source whose value at a path has won."""
    return next((source for source in reversed(sources) if lookup(source.values, path) is not None), None)


def _report(problems: Mapping[str, str], merged: Mapping[str, Any], sources: Sequence[Source]) -> str:
    lines: list[str] = []
    for path, message in problems.items():
        keys = path.split(".")
        value, origin = lookup(merged, keys), _origin(sources, keys)
        given = "" if value is None or origin is None else f" = {shown(value)} ({printable(origin.name)})"
        lines.append(f"  {printable(path)}{given}: {message}")
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    more = [f"  ... and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    return "\n".join([f"{count} in the configuration:", *lines[:MAX_LINES], *more])
