"""Packs: what one program trains, settings side by side where it can, and what they have reached, read from its record.

Settings of one structure are lanes of one program, `ddpg-jax sweep`: on the device loop all of them, on the host loop
as many as one process steps the environments of. A setting that is alone on the host loop is a program of its own,
`ddpg-jax train`, whose seeds are side by side, and so is each that may be stopped early there, or at a time of its own
("asha"). The name of a pack is a hash of what it trains, so the same pack is the same directory, whoever starts it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tomli_w

from ddpg_jax.config.load import dump_toml
from ddpg_jax.config.schema import Config, imported_names
from ddpg_jax.config.sweep_file import StartConfig, Values
from ddpg_jax.errors import StorageError
from ddpg_jax.runs.statistics import interquartile_mean
from ddpg_jax.training.search.engines.engine import Task
from ddpg_jax.training.search.file import Search
from ddpg_jax.training.sweep.grid import Group, Sweep

_DIGITS = 12
"""Of a hash that name a pack."""

HOST_LANES = 16
"""Lanes of a program of the host loop, about: more of them leave other cores idle, as one process steps them all."""


class Pack(NamedTuple):
    """Settings that one program trains.

    Attributes:
      name: hash of the text.
      command: of `ddpg-jax` that trains it: "train" or "sweep".
      text: its configuration, or its sweep, as TOML.
      trials: numbers of its settings, in the order of its combinations.
      seeds: of each setting.
      imports: whether its file names modules to import; the driver was allowed to read them.
      task: position of its task among those of the search.
      start: lanes of earlier packs that its settings go on from; None: they begin at their beginning.
    """

    name: str
    command: str
    text: str
    trials: tuple[int, ...]
    seeds: tuple[int, ...]
    imports: bool = False
    task: int = 0
    start: StartConfig | None = None


class Reached(NamedTuple):
    """What a setting has reached.

    Attributes:
      score: by the metric of the search; None where a seed has diverged or failed.
      per_seed: likewise of each seed.
    """

    score: float | None
    per_seed: tuple[float | None, ...]


def divide(search: Search, settings: Mapping[int, Values]) -> list[Pack]:
    """The packs of some settings, by their numbers, on one task after the other.

    Raises:
      ConfigError: a setting is wrong.
    """
    return [
        pack._replace(task=place)
        for place, task in enumerate(search.tasks)
        for pack in _divide(search.on(task), settings)
    ]


def _divide(search: Search, settings: Mapping[int, Values]) -> list[Pack]:
    numbers, sweep = tuple(settings), search.check(tuple(settings.values()))
    packs: list[Pack] = []
    for group in sweep.groups:
        on_device = group.config.on_device
        lanes = _side_by_side(search, group, sweep)
        for places in _equal_parts(lanes, len(lanes) if on_device else _most_on_host(group.config)):
            if on_device or len(places) > 1:
                packs.append(pack_lanes(search, sweep, numbers, places))
            else:
                packs.append(alone(numbers[places[0]], sweep.configs[places[0]]))
        packs += [alone(numbers[place], sweep.configs[place]) for place in group.numbers if place not in lanes]
    return packs


def _side_by_side(search: Search, group: Group, sweep: Sweep) -> tuple[int, ...]:
    """The settings of a group that are lanes of programs; each of the others is one of its own."""
    stop = search.stop
    if group.config.on_device and (stop is None or stop.kind == "successive_halving"):
        return group.numbers
    return _once(group, sweep) if stop is None else ()


def _once(group: Group, sweep: Sweep) -> tuple[int, ...]:
    """The settings of a group that come once; one that comes again is the same run, by its name."""
    texts = {place: json.dumps(sweep.combinations[place], sort_keys=True) for place in group.numbers}
    counts = Counter(texts.values())
    return tuple(place for place, text in texts.items() if counts[text] == 1)


def _most_on_host(config: Config) -> int:
    """Settings of a program of the host loop, at most."""
    return max(1, HOST_LANES // len(config.seed_list))


def _equal_parts(places: Sequence[int], most: int) -> list[Sequence[int]]:
    """Places in order, in as few parts as hold `most` each, all about as long."""
    if not places:
        return []
    size = -(-len(places) // -(-len(places) // most))
    return [places[start : start + size] for start in range(0, len(places), size)]


def alone(trial: int, config: Config, task: int = 0) -> Pack:
    """A pack of one setting, on a task by its position."""
    text = dump_toml(config)
    return Pack(_name(text), "train", text, (trial,), config.seed_list, _names_modules(config), task)


def pack_lanes(
    search: Search, sweep: Sweep, numbers: Sequence[int], places: Sequence[int], start: StartConfig | None = None
) -> Pack:
    """A pack of settings that are lanes of one program.

    Args:
      search: on a task.
      sweep: of some settings, from `search.check`.
      numbers: of these settings.
      places: of those among them that the pack has.
      start: lanes that they go on from; None: they begin at their beginning.
    """
    settings = [sweep.combinations[place] for place in places]
    values: dict[str, Any] = {name: search.source[name] for name in ("base", "config")} | {"settings": settings}
    text = tomli_w.dumps(values | ({} if start is None else {"start": start.model_dump(mode="json")}))
    trials = tuple(numbers[place] for place in places)
    config = sweep.configs[places[0]]
    return Pack(_name(text), "sweep", text, trials, config.seed_list, _names_modules(config), start=start)


def _names_modules(config: Config) -> bool:
    return bool(imported_names(config.model_dump()))


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def write_pack(pack: Pack, folder: Path) -> None:
    """Writes the file of a pack.

    Raises:
      StorageError: it cannot be written.
    """
    path = folder / f"{pack.name}.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(pack.text)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error


def make_task(pack: Pack, folder: Path, until: int | None, more: Sequence[str] = ()) -> Task:
    """What trains a pack.

    Args:
      pack: what is trained.
      folder: of all packs, which holds its file.
      until: steps after which it is saved and ends; None: its end.
      more: words of the command line, as `--plugin`.
    """
    path = folder / f"{pack.name}.toml"
    words = [pack.command, str(path), "--run-dir", str(folder / pack.name), "--resume", "auto", "--quiet", *more]
    words += ["--allow-imports"] if pack.imports and "--allow-imports" not in more else []
    words += [] if until is None else ["--until", str(until)]
    return Task(pack.name, (sys.executable, "-m", "ddpg_jax", *words), folder / pack.name)


def read_reached(directory: Path, pack: Pack, step: int, metric: str) -> list[Reached]:
    """What the settings of a pack have reached after so many steps, in its order; from its record.

    Args:
      directory: of its run.
      pack: what was trained.
      step: of the last evaluation that counts.
      metric: "final" or "area".

    Raises:
      StorageError: the record cannot be read.
    """
    means: dict[tuple[int, int], dict[int, float]] = {}
    diverged = set[tuple[int, int]]()
    for row in _rows(directory / "metrics.jsonl"):
        lane = int(row.get("combination", 0)), int(row.get("seed", 0))
        if row.get("event") == "evaluation" and row["step"] <= step:
            means.setdefault(lane, {})[row["step"]] = float(row["mean_return"])
        elif row.get("event") == "diverged" and row["step"] <= step:
            diverged.add(lane)
    reached: list[Reached] = []
    for place in range(len(pack.trials)):
        lanes = [(place, seed) for seed in pack.seeds]
        of_seeds = [None if lane in diverged else _figure(means.get(lane, {}), step, metric) for lane in lanes]
        whole = [each for each in of_seeds if each is not None]
        score = float(interquartile_mean(np.array(whole))) if len(whole) == len(of_seeds) else None
        reached.append(Reached(score, tuple(of_seeds)))
    return reached


def _figure(evaluations: Mapping[int, float], step: int, metric: str) -> float | None:
    """The figure of a seed; None where it was not evaluated at the step."""
    if step not in evaluations:
        return None
    return evaluations[step] if metric == "final" else float(np.mean(list(evaluations.values())))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a record; a last line that a crash has torn is passed over."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError:
            if number < len(lines):
                raise StorageError(f"{path}, line {number}: is no row of a record") from None
