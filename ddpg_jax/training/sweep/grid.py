"""A sweep: which configurations are compared, read from a TOML file and checked as a whole.

Numbers that a learner only computes with (learning rates, tau, gamma, noise scales) become lanes of one program; any
other difference, of networks or batches say, is structure and makes a group of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.config.load import Source, compose, dump_toml, merge, read_sources, read_toml, resolve_sources
from ddpg_jax.config.parts import Parts
from ddpg_jax.config.presets import is_preset
from ddpg_jax.config.schema import Config, lane_paths, with_values
from ddpg_jax.config.stored import complete_stored
from ddpg_jax.config.sweep_file import (
    RANGE,
    Draw,
    PopulationConfig,
    StartConfig,
    SweepFile,
    Values,
    flatten,
    list_combinations,
    nest,
    read_sweep_file,
)
from ddpg_jax.config.wording import overrides_name
from ddpg_jax.errors import ConfigError, printable
from ddpg_jax.training.sweep.population import PopulationPlan, corners, refuse_population

_SHOWN, _ENOUGH = 20, 1000
"""Mistakes that are shown, and after which no more are looked for."""


class Group(NamedTuple):
    """Combinations of one structure, which are lanes of one program.

    Attributes:
      config: of the structure; its numbers at the paths of `hyper` are not used.
      numbers: positions of its combinations in the sweep, C of them.
      hyper: their numbers by path, float32 `[C]`.
    """

    config: Config
    numbers: tuple[int, ...]
    hyper: dict[str, np.ndarray[Any, np.dtype[np.float32]]]


class Sweep(NamedTuple):
    """A sweep that was checked.

    Attributes:
      combinations: what each sets, by path.
      configs: the configuration of each.
      groups: the combinations by structure.
      source: the file, with its base and what was set on the command line joined; it is a sweep file again.
      population: how its combinations copy each other; None: they do not.
      start: lanes of other sweeps that its combinations go on from; None: they begin at their beginning.
    """

    combinations: tuple[Values, ...]
    configs: tuple[Config, ...]
    groups: tuple[Group, ...]
    source: dict[str, Any]
    population: PopulationPlan | None = None
    start: StartConfig | None = None


def load_sweep(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Sweep:
    """Reads a sweep file and checks every combination.

    Args:
      path: a TOML file; see `SweepFile`.
      overrides: nested values that win over those of its base and its `[config]`.

    Raises:
      ConfigError: the file or a combination is wrong; it lists the mistakes.
    """
    path = Path(path)
    return sweep_of(read_sweep_file(path), path, overrides or {})


def load_stored_sweep(path: Path) -> Sweep:
    """As `load_sweep`, of the file in a sweep's directory, which an earlier version may have written."""
    file = read_sweep_file(path)
    base = complete_stored(file.base) if isinstance(file.base, dict) else file.base
    return sweep_of(file.model_copy(update={"base": base}), path, {})


def sweep_of(file: SweepFile, path: Path, overrides: Mapping[str, Any]) -> Sweep:
    """The sweep that a file holds; arguments and errors are those of `load_sweep`."""
    base = file.base if isinstance(file.base, dict) else read_base(file.base or (), path.parent)
    base = merge({"algorithm": {"observation_moments": "compensated"}}, base)  # by which `complete_stored` knows it
    fixed = merge(file.config, overrides)
    combinations = list_combinations(file, path, flatten(fixed))
    swept: dict[str, Any] = {"grid": flatten(file.grid), "random": flatten(file.random, leaf=RANGE)}
    swept = {"settings": list(combinations)} if file.settings else swept
    source = {"draws": file.draws, "draw_seed": file.draw_seed, "base": base, "config": fixed, **swept}
    source |= {name: each.model_dump(mode="json") for name, each in _tables(file).items() if each is not None}
    sweep = check_sweep(source, combinations, str(path), overrides)._replace(start=file.start)
    if file.start is not None and (refusal := _refuse_start(file.start, sweep, file.population)):
        raise ConfigError(f"{printable(path)}: {refusal}")
    if file.population is None:
        return sweep
    return sweep._replace(population=_plan(file, file.population, sweep, str(path), overrides))


def _tables(file: SweepFile) -> dict[str, PopulationConfig | StartConfig | None]:
    """The tables of a file that say what becomes of its combinations, beside what they are."""
    return {"population": file.population, "start": file.start}


def _refuse_start(start: StartConfig, sweep: Sweep, population: PopulationConfig | None) -> str | None:
    """Why the combinations of a sweep cannot go on from lanes of others, on one line; None: they can."""
    config, count = sweep.configs[0], len(sweep.combinations)
    if population is not None:
        return "[start] stands beside [population], whose members begin at their beginning; leave one out"
    if not config.on_device:
        return f"[start] is of environments written in JAX, as jax:pendulum; env.id = {config.env.id!r} is not one"
    if len(sweep.groups) > 1:
        return f"[start] is of one structure, but the combinations have {len(sweep.groups)}: one sweep for each"
    if len(start.sources) != count:
        return f"start.sources has {len(start.sources)} entries for {count} combinations: one for each, in order"
    if start.step >= config.total_steps:
        return f"start.step = {start.step} is not below total_steps = {config.total_steps}: nothing is left to train"
    return None


def _plan(
    file: SweepFile, population: PopulationConfig, sweep: Sweep, path: str, overrides: Mapping[str, Any]
) -> PopulationPlan:
    """How the combinations of a sweep copy each other.

    Raises:
      ConfigError: they cannot, or a setting that a copy may come to is no configuration.
    """
    ranges = {name: Draw.model_validate(each) for name, each in flatten(file.random, leaf=RANGE).items()}
    if refusal := refuse_population(population, sweep.configs, sweep.combinations, ranges):
        raise ConfigError(f"{printable(path)}: {refusal}")
    check_sweep(sweep.source, corners(ranges), f"{path}, at the bounds of [random]", overrides)
    return PopulationPlan(population, ranges, file.draw_seed)


def name_parts(sweep: Sweep, parts: Parts) -> Sweep:
    """The sweep with what was handed over, which its source names.

    Raises:
      ConfigError: a part is of another type, or a combination does not go with it.
    """
    if parts == Parts():
        return sweep
    named = parts.name_in(sweep.configs[0])
    names: dict[str, Any] = {"env": {"id": named.env.id}, "algorithm": {"make_agent": named.algorithm.make_agent}}
    given = {"env": parts.env, "algorithm": parts.make_agent}
    names = {section: table for section, table in names.items() if given[section] is not None}
    source = sweep.source | {"config": merge(sweep.source["config"], names)}
    return check_sweep(source, sweep.combinations, "the sweep", names)._replace(
        population=sweep.population, start=sweep.start
    )


def swept_values(path: Path) -> dict[str, Any]:
    """What all combinations of a stored sweep share, nested."""
    values = read_toml(path)
    return compose((values.get("base", {}), values.get("config", {})))


def read_base(base: str | tuple[str, ...], folder: Path) -> dict[str, Any]:
    """The values of the presets and files that a sweep starts from."""
    words = (base,) if isinstance(base, str) else base
    sources = read_sources(word if is_preset(word) else folder / word for word in words)
    return compose(source.values for source in sources)


def check_sweep(
    file: dict[str, Any], combinations: tuple[Values, ...], source: str, overrides: Mapping[str, Any]
) -> Sweep:
    """The sweep of a file.

    Args:
      file: its values: base, config, and what gives the combinations.
      combinations: what each sets, by path.
      source: what it is called in messages.
      overrides: are in it already; they may name modules to import, as nothing else may.

    Raises:
      ConfigError: a combination is wrong; it lists the mistakes.
    """
    own = Source(overrides_name(), overrides, trusted=True)
    base, problems = compose((file["base"], file["config"])), list[str]()
    configs: list[Config] = []
    for values in combinations:
        if "seeds" in values:
            problems.append("  seeds: every combination runs the same seeds; set them in [config]")
        try:
            configs.append(resolve_sources([Source(source, base), own, Source("a combination", nest(values))]))
        except ConfigError as error:
            problems += str(error).splitlines()[1:]
        if len(problems) > _ENOUGH:
            break
    if problems:
        unique = list(dict.fromkeys(problems))
        more = [f"  ... and {len(unique) - _SHOWN} more"] if len(unique) > _SHOWN else []
        raise ConfigError("\n".join([f"{printable(source)}: mistakes in the combinations:", *unique[:_SHOWN], *more]))
    members: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        members.setdefault(_structure(config, combinations[i]), []).append(i)
    groups: list[Group] = []
    for numbers in members.values():
        first = numbers[0]
        paths = [name for name in combinations[first] if name in lane_paths(configs[first])]
        hyper = {name: np.array([combinations[i][name] for i in numbers], np.float32) for name in paths}
        groups.append(Group(configs[first], tuple(numbers), hyper))
    return Sweep(combinations, tuple(configs), tuple(groups), file)


def _structure(config: Config, values: Values) -> str:
    """The configuration without the numbers that may differ within a group."""
    return dump_toml(with_values(config, {name: 0.0 for name in values if name in lane_paths(config)}))
