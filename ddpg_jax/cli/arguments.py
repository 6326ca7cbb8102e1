"""Words of the command line: which are fields of the configuration, what they say, and a page that lists them.

Nothing heavy is imported here, and jax not at all.
"""

from __future__ import annotations

import argparse
import textwrap
import tomllib
from collections import deque
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from ddpg_jax.errors import ConfigError

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config


def parse_config(paths: Sequence[str], arguments: Sequence[str]) -> Config:
    """The configuration of presets and files, and of `--section.field value` arguments.

    Raises:
      ConfigError: listing every mistake, an environment that is not registered among them.
      StorageError: a file is there and cannot be read.
    """
    from ddpg_jax.config.load import Source, compose, read_sources, resolve_sources
    from ddpg_jax.config.schema import Config, is_device_env
    from ddpg_jax.config.wording import overrides_name

    overrides, problems = parse_overrides(arguments)
    sources = [*read_sources(paths), Source(overrides_name(), overrides, trusted=True)]
    env = compose(source.values for source in sources).get("env")
    identifier = env.get("id", Config().env.id) if isinstance(env, dict) else Config().env.id
    if isinstance(identifier, str):
        from ddpg_jax.config.plugins import find
        from ddpg_jax.envs.device.backends import unknown_device_env
        from ddpg_jax.envs.host.make import unknown_id

        problem = unknown_device_env(identifier) if is_device_env(identifier) else unknown_id(identifier)
        if problem is not None and find("env", identifier) is None:
            problems["env.id"] = problem
    if not (isinstance(identifier, str) and is_device_env(identifier)):  # those are checked with the configuration
        problems |= _unknown_wrappers(env if isinstance(env, dict) else {})
    _check_sinks(compose(source.values for source in sources).get("logging"), problems)
    return resolve_sources(sources, problems)


def _unknown_wrappers(env: dict[str, Any]) -> dict[str, str]:
    """What is wrong with the names of wrappers, message by path."""
    from ddpg_jax.config.values import named_wrappers

    found: dict[str, str] = {}
    for path, name in named_wrappers({"env": env}):
        from ddpg_jax.envs.host.wrappers import unknown_wrapper

        if (problem := unknown_wrapper(name)) is not None:
            found[path] = problem
    return found


def _check_sinks(logging: Any, problems: dict[str, str]) -> None:
    """Notes what keeps the sinks of a configuration from being made; names that nobody knows are refused elsewhere."""
    names = logging.get("sinks", ()) if isinstance(logging, dict) else ()
    if names:
        from ddpg_jax.config.sections import SINKS
        from ddpg_jax.runs.sinks.factory import find_problem

        known = [name for name in SINKS if name == names or (isinstance(names, (list, tuple)) and name in names)]
        found = [f"{name} {problem}" for name in known if (problem := find_problem(name)) is not None]
        if found:
            problems["logging.sinks"] = "; ".join(found)


def find_options(parser: argparse.ArgumentParser) -> frozenset[str]:
    """The options of a parser and of its commands, as `--run-dir`."""
    found = set[str]()
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]  there is no other way
        found.update(option for option in action.option_strings if option.startswith("--"))
        commands = action.choices if isinstance(action.choices, dict) else {}
        found.update(*map(find_options, commands.values()))
    return frozenset(found)


def split_overrides(arguments: Sequence[str], options: Container[str]) -> tuple[list[str], list[str]]:
    """Separates `--section.field value` from the words that argparse knows, so that it takes no value for a file.

    Args:
      arguments: the words of a command line.
      options: what argparse knows; all other words that begin with two dashes are fields.

    Returns:
      The words for argparse, and those of the fields.
    """
    words: list[str] = []
    overrides: list[str] = []
    rest = deque(arguments)
    while rest:
        word = rest.popleft()
        name, equals, text = word.partition("=")
        if not word.startswith("--") or name.replace("_", "-") in options:
            words.append(name.replace("_", "-") + equals + text if word.startswith("--") else word)
            continue
        overrides.append(word)
        if "=" not in word and rest and not rest[0].startswith("--"):
            overrides.append(rest.popleft())
    return words, overrides


def parse_overrides(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Reads `--section.field value` and `--section.field=value`; dashes and underscores are the same.

    Values are TOML; what is not is text, and `64,64` is a list.

    Returns:
      The values, nested, and what is wrong with the words, message by word.
    """
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    rest = deque(words)
    while rest:
        word = rest.popleft()
        name, equals, text = word[2:].partition("=")
        if not equals and (not rest or rest[0].startswith("--")):
            problems[word] = "has no value; write --section.field value"
            continue
        *path, last = name.replace("-", "_").split(".")
        node = values
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                problems[word] = f"{part} is a section, and --{part} sets it to a value"
                node = dict[str, Any]()
        try:
            node[last] = _value(text if equals else rest.popleft())
        except (ValueError, RecursionError):  # thousands of digits; lists thousands deep
            problems[word[:80]] = "its value is longer or deeper than any that is allowed"
    return values, problems


def parse_overrides_strict(words: Sequence[str]) -> dict[str, Any]:
    """As `parse_overrides`, where nothing else is checked beside the words."""
    overrides, problems = parse_overrides(words)
    if problems:
        raise ConfigError("\n".join(f"{word}: {problem}" for word, problem in problems.items()))
    return overrides


def _value(text: str) -> Any:
    if text in ("True", "False"):  # as Python writes them
        return text == "True"
    for form in (text, f"[{text}]") if "," in text else (text,):
        try:
            return tomllib.loads(f"value = {form}")["value"]
        except tomllib.TOMLDecodeError:
            continue
    return text


def count(text: str) -> int:
    """A whole number of at least 1, as `5000` or `1e4`, for argparse.

    Raises:
      ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value >= 1 and value.is_integer()):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(value)


def _face(field: Any) -> tuple[Any, ...]:
    """What the help shows of a field, and of which type it is."""
    return field.description, field.default, field.annotation, str(field.metadata)


def _entry(prefix: str, name: str, field: Any, kinds: Sequence[str] = ()) -> list[str]:
    """The lines of a field: its option, its meaning, what it may be, and its default."""
    from ddpg_jax.config.mistakes import describe_allowed, either

    default = field.get_default(call_default_factory=True)
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    notes = [
        either(kinds) if kinds else describe_allowed(field),
        "" if field.is_required() or default in (None, {}, ()) else f"default {shown}",
    ]
    ending = "; ".join(note for note in notes if note)
    option = f"  --{prefix}{name.replace('_', '-')}"
    text = textwrap.wrap(f"{field.description}{f' ({ending})' if ending else ''}", 46)
    start = [option, " " * 34 + text[0]] if len(option) > 33 else [f"{option:<33} {text[0]}"]
    return [*start, *(" " * 34 + line for line in text[1:])]


def fields_help(only: str | None = None) -> str:
    """Every field of the configuration, or of one section: meaning, what it may be, default; 80 columns wide."""
    from ddpg_jax.config.mistakes import only_kind
    from ddpg_jax.config.schema import TAGS, Config, sections

    lines = ["", "fields:"]
    for name, field in Config.model_fields.items():
        lines += [] if name in sections() or only is not None else _entry("", name, field)
    for section, models in sections().items():
        if only not in (None, section.partition(".")[0]):
            continue
        seen: dict[str, Any] = {}
        for model in models:
            tag = TAGS.get(section, "")
            lines += ["", f"[{section}]" + (f' with {tag} = "{only_kind(model, tag)}"' if tag else "")]
            new = {name: field for name, field in model.model_fields.items() if seen.get(name) != _face(field)}
            kinds = [only_kind(each, tag) for each in models] if tag and not seen else []
            for name, field in new.items():
                if f"{section}.{name}" in sections():
                    continue
                lines += _entry(f"{section}.", name, field, kinds if name == tag else ())
            seen |= {name: _face(field) for name, field in model.model_fields.items()}
    return "\n".join(lines)
