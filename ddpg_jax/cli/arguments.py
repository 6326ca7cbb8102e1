"""Words of the command line: which are fields of the configuration, what they say, and a page that lists them.

Nothing heavy is imported here, and jax not at all.
"""

from __future__ import annotations

import argparse
import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpg_jax.errors import ConfigError

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config

_OPTIONS = frozenset(
    {
        "--help",
        "--version",
        "--run-dir",
        "--overwrite",
        "--quiet",
        "--no-cache",
        "--episodes",
        "--video",
        "--seed",
        "--json",
        "--distributed",
        "--coordinator",
        "--num-processes",
        "--process-id",
        "--checkpoint-every",
        "--resume",
        "--init-from",
        "--from",
        "--level",
        "--determinism",
    }
)


def parse_config(path: Path | None, arguments: Sequence[str]) -> Config:
    """The configuration of a file and of `--section.field value` arguments.

    Raises:
      ConfigError: listing every mistake, an environment that is not registered among them.
    """
    from ddpg_jax.config.load import merge, read_toml, resolve
    from ddpg_jax.config.schema import Config, is_device_env

    overrides, problems = parse_overrides(arguments)
    values = read_toml(path) if path is not None else {}
    env = merge(values, overrides).get("env")
    identifier = env.get("id", Config().env.id) if isinstance(env, dict) else Config().env.id
    if isinstance(identifier, str):
        from ddpg_jax.envs.device.backends import unknown_device_env
        from ddpg_jax.envs.host.make import unknown_id

        problem = unknown_device_env(identifier) if is_device_env(identifier) else unknown_id(identifier)
        if problem is not None:
            problems["env.id"] = problem
    return resolve(values, overrides, source=str(path) if path is not None else "defaults", extra_errors=problems)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates `--section.field value` from the words that argparse knows, so that it takes no value for a file."""
    words: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.partition("=")
        if not word.startswith("--") or name.replace("_", "-") in _OPTIONS:
            words.append(name.replace("_", "-") + equals + text if word.startswith("--") else word)
            continue
        overrides.append(word)
        if "=" not in word and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
    return words, overrides


def parse_overrides(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Reads `--section.field value` and `--section.field=value`; dashes and underscores are the same.

    Values are TOML; what is not is text, and `64,64` is a list.

    Returns:
      The values, nested, and what is wrong with the words, message by word.
    """
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
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
        node[last] = _value(text if equals else rest.pop(0))
    return values, problems


def parse_overrides_strict(words: Sequence[str]) -> dict[str, Any]:
    """As `parse_overrides`, where nothing else is checked beside the words."""
    overrides, problems = parse_overrides(words)
    if problems:
        raise ConfigError("\n".join(f"{word}: {problem}" for word, problem in problems.items()))
    return overrides


def _value(text: str) -> Any:
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


def _face(field: Any) -> tuple[Any, Any, Any]:
    """What the help shows of a field, and of which type it is."""
    return field.description, field.default, field.annotation


def fields_help(only: str | None = None) -> str:
    """Every field of the configuration, or of one section, with meaning and default, at most 80 columns wide."""
    from ddpg_jax.config.schema import Config, sections

    def entry(prefix: str, name: str, field: Any) -> list[str]:
        default = field.get_default(call_default_factory=True)
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        ending = "" if field.is_required() or default in (None, {}) else f" (default {shown})"
        option = f"  --{prefix}{name.replace('_', '-')}"
        text = textwrap.wrap(f"{field.description}{ending}", 46)
        return [f"{option:<33} {text[0]}", *(" " * 34 + line for line in text[1:])]

    lines = ["", "fields:"]
    for name, field in Config.model_fields.items():
        lines += [] if name in sections() or only is not None else entry("", name, field)
    for section, models in sections().items():
        if only not in (None, section):
            continue
        shown: dict[str, Any] = {}
        for model in models:
            lines += ["", f"{(model.__doc__ or '').splitlines()[0]}".replace("`", "")]
            new = {name: field for name, field in model.model_fields.items() if shown.get(name) != _face(field)}
            lines += [line for name, field in new.items() for line in entry(f"{section}.", name, field)]
            shown |= {name: _face(field) for name, field in model.model_fields.items()}
    return "\n".join(lines)
