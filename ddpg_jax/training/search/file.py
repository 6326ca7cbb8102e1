"""The file of a search: what is looked for, among which settings, how they are stopped early, and where they run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from ddpg_jax.config.load import compose, merge, read_toml
from ddpg_jax.config.schema import Config
from ddpg_jax.config.section import Section
from ddpg_jax.config.sweep_file import SweepFile, Values, mistakes
from ddpg_jax.errors import ConfigError, printable
from ddpg_jax.training.search.engines.engine import EngineConfig, parse_engine
from ddpg_jax.training.search.samplers import SamplerFn, make_sampler
from ddpg_jax.training.search.space import Space, grid, parse_space
from ddpg_jax.training.search.tasks import SearchTask, TaskConfig, read_tasks
from ddpg_jax.training.sweep.grid import Sweep, check_sweep, read_base, sweep_of


class SearchConfig(Section):
    """`[search]`: which settings are tried, and what makes one better than another."""

    sampler: Literal["grid", "random", "sobol", "tpe", "gp", "cmaes"] = "random"
    """grid: every combination; random, sobol: without looking at what was reached; the others: by Optuna's"""
    trials: Annotated[int, Field(ge=1, le=65536)] = 16
    """settings in all"""
    batch: Annotated[int, Field(ge=1, le=65536)] = 16
    """settings that are asked for together, and told of together"""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """of the sampler"""
    metric: Literal["final", "area"] = "final"
    """interquartile mean over the seeds of the last evaluation, or of the mean of all evaluations"""
    retrain: Annotated[int, Field(ge=0, le=1000)] = 5
    """fresh seeds with which the best setting is trained again, as the score it won by flatters it; 0: it is not"""
    space: dict[str, Any] = Field(default_factory=dict[str, Any])
    """[search.space]: by path, { low = , high = , log = , integer = } or { choice = [...] }, and { when = {...} }"""
    tasks: tuple[TaskConfig, ...] = ()
    """[[search.tasks]]: each setting is trained on all of them, and the mean of its normalised returns counts"""


class StopConfig(Section):
    """`[stop]`: the best settings alone go on from one rung to the next."""

    kind: Literal["successive_halving", "asha"] = "successive_halving"
    """successive_halving: of each batch, when all of it have reached a rung; asha: of all settings, each as soon as
    enough of its rung is known; `search.batch` settings train side by side"""
    rungs: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = (0.1, 0.3)
    """shares of total_steps, in order; each is rounded up to an evaluation"""
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.33
    """share of the settings that go on from a rung, rounded up (asha: rounded down until the rung is whole)"""

    @model_validator(mode="after")
    def _check_order(self) -> StopConfig:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError("rungs must rise")
        return self


class SearchFile(SweepFile):
    """What the file of a search may hold: all that of a sweep, and more."""

    search: SearchConfig | None = None
    stop: StopConfig | None = None
    engine: dict[str, Any] = Field(default_factory=dict[str, Any])
    """[engine]: see `EngineConfig`"""


class Search(NamedTuple):
    """A search that was checked.

    Attributes:
      settings: what is looked for; `trials` is how many there are at most.
      sample: gives the next settings.
      stop: when they are stopped early; None: they are not.
      engine: where they run.
      source: the file, with its base and what was set on the command line joined; it is the file of a search again.
      overrides: what was set on the command line, which may name modules.
      tasks: what each setting is trained on, one or more.
    """

    settings: SearchConfig
    sample: SamplerFn
    stop: StopConfig | None
    engine: EngineConfig
    source: dict[str, Any]
    overrides: Mapping[str, Any]
    tasks: tuple[SearchTask, ...] = (SearchTask(),)

    def on(self, task: SearchTask) -> Search:
        """The search with what a task sets."""
        return self._replace(source=self.source | {"config": merge(self.source["config"], task.config)})

    def check(self, settings: tuple[Values, ...]) -> Sweep:
        """The configurations of settings, by structure.

        Raises:
          ConfigError: one of them is wrong.
        """
        return check_sweep(self.source, settings, "the search", self.overrides)

    def config(self, values: Values, task: SearchTask | None = None) -> Config:
        """The configuration of a setting on a task; None: on the first.

        Raises:
          ConfigError: it is wrong.
        """
        return self.on(task or self.tasks[0]).check((values,)).configs[0]


def is_search(values: Mapping[str, Any]) -> bool:
    """Whether a file of a sweep is run by programs of their own: it says how they are found, stopped, or where."""
    return any(name in values for name in ("search", "stop", "engine"))


def load_search(path: str | Path, overrides: Mapping[str, Any] | None = None, engine: str | None = None) -> Search:
    """Reads the file of a search.

    Args:
      path: a TOML file; see `SearchFile`.
      overrides: nested values that win over those of its base and its `[config]`.
      engine: kind of the engine, in the place of the one in the file.

    Raises:
      ConfigError: it is wrong; it lists the mistakes. Settings are checked when they are asked for.
    """
    path, overrides = Path(path), overrides or {}
    values = read_toml(path)
    if engine is not None:
        values["engine"] = {**values.get("engine", {}), "kind": engine}
    try:
        file = SearchFile.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(mistakes(error, path, SearchFile, "a search"))) from error
    if file.population is not None:
        raise ConfigError(
            f"{printable(path)}: a population is lanes of one program: leave out [search], [stop], [engine], --engine"
        )
    if file.start is not None:
        raise ConfigError(
            f"{printable(path)}: [start] is of a sweep in one program; a search finds its own: leave it out"
        )
    runner = parse_engine(file.engine, printable(path))
    if file.search is None:
        return _of_combinations(path, file, runner, values, overrides)
    beside = [name for name in ("grid", "random", "settings") if getattr(file, name)]
    if beside:
        raise ConfigError(f"{printable(path)}: [{beside[0]}] stands beside [search]: put it into [search.space]")
    space = parse_space(file.search.space, f"{printable(path)}: search.space")
    base = file.base if isinstance(file.base, dict) else read_base(file.base or (), path.parent)
    fixed = merge(file.config, overrides)
    _refuse_twice(path, space, compose((fixed,)))
    tasks = read_tasks(file.search.tasks, compose((base, fixed)), overrides, tuple(space), printable(path))
    tables = {name: values[name] for name in ("search", "stop", "engine") if name in values}
    source = {"base": base, "config": fixed, **tables}
    settings = file.search
    if file.stop is not None and file.stop.kind == "asha" and settings.sampler == "cmaes":
        raise ConfigError(f'{printable(path)}: stop.kind = "asha" asks one by one, cmaes by generations: take "tpe"')
    sample = make_sampler(settings.sampler, space, settings.seed, settings.trials)
    if settings.sampler == "grid":
        settings = settings.model_copy(update={"trials": min(settings.trials, len(grid(space)))})
    return Search(settings, sample, file.stop, runner, source, overrides, tasks)


def _of_combinations(
    path: Path, file: SearchFile, runner: EngineConfig, values: dict[str, Any], overrides: Mapping[str, Any]
) -> Search:
    """A search of all combinations of a sweep, which were checked."""
    sweep = sweep_of(file, path, overrides)
    count = len(sweep.combinations)

    def sample(told: object, number: int, wanted: int) -> list[Values]:
        return list(sweep.combinations[number : number + wanted])

    settings = SearchConfig(sampler="grid", trials=count, batch=count, retrain=0)  # all are asked for at once
    source = sweep.source | {name: values[name] for name in ("stop", "engine") if name in values}
    return Search(settings, sample, file.stop, runner, source, overrides)


def _refuse_twice(path: Path, space: Space, fixed: Mapping[str, Any]) -> None:
    """Refuses a path that is searched and set."""
    for name in space:
        node: Any = fixed
        for key in name.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        if node is not None:
            raise ConfigError(f"{printable(path)}: {name} is searched, and set for all; leave one out")
