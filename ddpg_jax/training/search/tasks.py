"""Several tasks in one objective: `[[search.tasks]]`, what each sets, and returns on one scale.

A setting is trained on each task. Its return there is put on a scale by two reference returns of the task, as
`ddpg-jax compare --normalize` does, and averaged over the tasks. Ranks among the settings would need no references, but
the rank of a setting changes with each that is tried after it: what was decided by it could not be decided again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from ddpg_jax.config.load import compose
from ddpg_jax.config.schema import Config
from ddpg_jax.config.section import Section
from ddpg_jax.config.sweep_file import flatten
from ddpg_jax.errors import ConfigError, printable


class TaskConfig(Section):
    """One of `[[search.tasks]]`."""

    name: str | None = None
    """what it is called; left out: its environment"""
    config: dict[str, Any] = Field(default_factory=dict[str, Any])
    """what it sets beside `[config]`: its environment, and total_steps, say"""
    low: float
    """return that counts as 0, as that of an untrained agent"""
    high: float
    """return that counts as 1, as that of a good one; both are only a scale, not bounds"""

    @model_validator(mode="after")
    def _check_scale(self) -> TaskConfig:
        if not self.low < self.high:
            raise ValueError(f"low={self.low:.16g}, high={self.high:.16g}: low must be below high")
        return self


class SearchTask(NamedTuple):
    """A task that all settings are trained on.

    Attributes:
      name: unlike that of any other; empty: it is the only one, and its returns are not put on a scale.
      config: what it sets, nested.
      low: return that counts as 0.
      high: return that counts as 1.
    """

    name: str = ""
    config: Mapping[str, Any] = {}
    low: float = 0.0
    high: float = 1.0

    def normalize(self, figure: float) -> float:
        """A return on the scale of all tasks."""
        return (figure - self.low) / (self.high - self.low)


def read_tasks(
    tasks: Sequence[TaskConfig], base: dict[str, Any], overrides: Mapping[str, Any], searched: Sequence[str], where: str
) -> tuple[SearchTask, ...]:
    """The tasks of a search; without any, that of its configuration.

    Args:
      tasks: of its file.
      base: what is set for all of them, nested.
      overrides: what was set on the command line, nested.
      searched: paths of the space.
      where: the file, for messages.

    Raises:
      ConfigError: two have one name, or one sets what may not differ among tasks.
    """
    found: list[SearchTask] = []
    for number, task in enumerate(tasks):
        said, mine = f"{where}: search.tasks.{number}", flatten(task.config)
        for path in (*searched, *flatten(overrides), "seeds"):
            if any(path == name or path.startswith(f"{name}.") or name.startswith(f"{path}.") for name in mine):
                other = "searched" if path in searched else "the same for all tasks" if path == "seeds" else "an option"
                raise ConfigError(printable(f"{said}: {path} is set by a task, and is {other}; leave one out"))
        name = task.name or str(compose((base, task.config)).get("env", {}).get("id", Config().env.id))
        if any(name == other.name for other in found):
            raise ConfigError(printable(f"{said}: another task is called {name}: give this one a name"))
        found.append(SearchTask(name, task.config, task.low, task.high))
    return tuple(found) or (SearchTask(),)


def stored_tasks(values: Mapping[str, Any]) -> tuple[SearchTask, ...]:
    """The tasks of the file in the directory of a search, which was checked when it was written."""
    tasks = [TaskConfig.model_validate(each) for each in values.get("search", {}).get("tasks", ())]
    return read_tasks(tasks, compose((values["base"], values["config"])), {}, (), "its file")
