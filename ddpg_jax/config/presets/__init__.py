"""Configurations that the package ships: tasks, and ways to learn; one of each makes a whole one.

A preset is a TOML file in `tasks/` or `algorithms/`. That of a task holds what is true of the task whoever learns it,
and comes first, so that a way to learn with an opinion of its own wins. What holds of a task under one way to learn
alone is in `pairs/`, and wins over both.
"""

from __future__ import annotations

from importlib.resources import files

from ddpg_jax.config.mistakes import nearest
from ddpg_jax.errors import ConfigError, printable

KINDS = ("tasks", "algorithms")


def is_preset(path: object) -> bool:
    """Whether a word names a preset and not a file: it is text without a dot and without a slash."""
    return isinstance(path, str) and not any(sign in path for sign in "./\\")


def preset_names() -> dict[str, tuple[str, ...]]:
    """The names of all presets, tasks first."""
    return {
        kind: tuple(
            sorted(file.name.removesuffix(".toml") for file in _FOLDER.joinpath(kind).iterdir() if ".toml" in file.name)
        )
        for kind in KINDS
    }


def read_preset(name: str) -> str:
    """The text of a preset.

    Raises:
      ConfigError: there is none of this name.
    """
    known = preset_names()
    for kind, names in known.items():
        if name in names:
            return _FOLDER.joinpath(kind, f"{name}.toml").read_text(encoding="utf-8")
    shown = printable(name[:80])
    words = [each for names in known.values() for each in names]
    raise ConfigError(
        f"there is no preset {shown}{nearest(name, words)} (a file has a dot or a slash in its name, as ./{shown})"
    )


def read_pair(one: str, other: str) -> str | None:
    """The text of what holds of two presets together, in whichever order they are named; None: nothing."""
    for first, second in ((one, other), (other, one)):
        file = _FOLDER.joinpath("pairs", f"{first}+{second}.toml")
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return None


def summarize_preset(name: str) -> str:
    """The first line of a preset, which says what it is."""
    return read_preset(name).partition("\n")[0].removeprefix("# ")


_FOLDER = files(__name__)
