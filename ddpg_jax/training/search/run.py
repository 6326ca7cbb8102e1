"""A search in its directory: where it begins, goes on, and leaves its ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tomli_w

from ddpg_jax.config.load import dump_toml, read_toml
from ddpg_jax.config.wording import option
from ddpg_jax.errors import ConfigError, Interrupted, StorageError
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.importance import importance
from ddpg_jax.runs.statistics import bootstrap_interval
from ddpg_jax.training.search.asynchronous import AsynchronousDriver
from ddpg_jax.training.search.driver import RUNS, Driver, NotifyFn
from ddpg_jax.training.search.engines.engine import Engine
from ddpg_jax.training.search.engines.factory import make_engine, render
from ddpg_jax.training.search.file import Search
from ddpg_jax.training.search.packs import divide, make_task
from ddpg_jax.training.search.record import TrialsRecord
from ddpg_jax.training.search.trials import Part, Trial, best_of, rungs
from ddpg_jax.training.signals import StopRequest

SEARCH, TRIALS = "search.toml", "trials.jsonl"


class SearchRun(NamedTuple):
    """A search that has come to its end.

    Attributes:
      directory: where its files are: `search.toml`, `trials.jsonl`, `result.json`, `ranking.png`, `best.toml`, `runs/`.
      result: what `result.json` holds.
    """

    directory: Path
    result: dict[str, Any]


def run_search(
    search: Search,
    run_dir: str | Path | None = None,
    *,
    overwrite: bool = False,
    resume: Literal["never", "auto"] = "never",
    notify: NotifyFn = print,
    words: Sequence[str] = (),
    engine: Engine | None = None,
) -> SearchRun:
    """Runs a search to its end, or goes on with the one that is in the directory.

    Trials may be added to one that has ended: the file is another then, in `search.trials` and nothing else.

    Args:
      search: from `load_search`.
      run_dir: where its files go; None: a new directory under `runs/`.
      overwrite: whether the files of an earlier search there may be removed; its runs stay, and are used again.
      resume: "auto": where the directory holds this search, it goes on.
      notify: is told a line, of what goes on.
      words: of the command line that each run is given, as `--plugin`.
      engine: runs the packs; None: the one that the search names.

    Raises:
      ConfigError: another search is in the directory.
      Interrupted: a signal asked for a stop; all is saved.
      StorageError: the directory or the record cannot be used.
    """
    directory = _open(search, run_dir, overwrite=overwrite, resume=resume)
    with directory.lock(), StopRequest() as stop:
        runner = engine or make_engine(search.engine, directory.path)
        with closing(TrialsRecord(directory.path / TRIALS)) as record, closing(runner):
            kind = AsynchronousDriver if search.stop is not None and search.stop.kind == "asha" else Driver
            driver = kind(search, directory.path, record, runner, stop.is_requested, notify, words)
            try:
                driver.run()
            except Interrupted as error:
                done = sum(bool(trial.step) for trial in driver.trials)
                raise Interrupted(
                    f"interrupted after {done} of {search.settings.trials} trials; to go on: ddpg-jax resume "
                    f"{directory.path}"
                ) from error
        return _write(directory, search, driver)


def dry_run(search: Search, run_dir: str | Path | None, words: Sequence[str] = ()) -> str:
    """What the engine would be given first, as text; nothing is run.

    Raises:
      ConfigError: the first settings are wrong.
    """
    settings = search.sample([], 0, min(search.settings.batch, search.settings.trials))
    packs = divide(search, dict(enumerate(settings)))
    until = [rungs(search, search.config(settings[0], task))[0] for task in search.tasks]
    folder = (Path(run_dir) if run_dir is not None else Path("runs") / "search").absolute()
    return render(search.engine, [make_task(pack, folder / RUNS, until[pack.task], words) for pack in packs], folder)


def is_search_directory(path: Path) -> bool:
    """Whether a directory holds a search."""
    return (path / SEARCH).is_file()


def _open(
    search: Search, run_dir: str | Path | None, *, overwrite: bool, resume: Literal["never", "auto"]
) -> RunDirectory:
    """The directory, with the file of the search in it."""
    if resume == "auto" and run_dir is not None and is_search_directory(Path(run_dir)):
        directory = RunDirectory(run_dir)
        directory.check_format()
        _refuse_another(search, read_toml(directory.path / SEARCH), directory)
    else:
        directory = RunDirectory.create(run_dir, "search", overwrite=overwrite)
    directory.write_text(directory.path / SEARCH, tomli_w.dumps(search.source))
    return directory


def _refuse_another(search: Search, before: Mapping[str, Any], directory: RunDirectory) -> None:
    """Refuses to go on with a search that is not the one asked for; where it runs, and for how long, may differ."""
    for name in ("base", "config", "search", "stop", "grid", "random", "settings", "draws", "draw_seed"):
        mine, old = (_lasting(source.get(name)) for source in (search.source, before))
        if mine != old:
            raise ConfigError(
                f"{directory.path} holds another search, which differs in [{name}]; name another {option('run_dir')}"
            )


def _lasting(table: Any) -> Any:
    """A table without what may be changed when a search goes on; an empty one is none."""
    if isinstance(table, Mapping):
        return {name: value for name, value in table.items() if name not in ("trials", "retrain")} or None
    return table or None


def _write(directory: RunDirectory, search: Search, driver: Driver) -> SearchRun:
    """Writes the ranking, its picture, and the configuration of the best setting."""
    best, again = best_of(driver.trials), driver.retrained
    if not driver.trials:
        raise ConfigError("the search has no settings: its space is empty")
    configs = [search.config((best or driver.trials[0]).values, task) for task in search.tasks]
    several, seeds = bool(search.tasks[0].name), configs[0].seed_list
    entries = sorted((_entry(trial, several) for trial in driver.trials), key=_standing, reverse=True)
    result: dict[str, Any] = {
        "env": ", ".join(task.name for task in search.tasks) if several else configs[0].env.id,
        "seeds": list(seeds),
        "complete": True,
        "metric": search.settings.metric,
        "sampler": search.settings.sampler,
        "env_steps": sum(trial.step for trial in driver.trials) * len(seeds),
        "finished": [trial.number for trial in driver.trials if trial.score is not None and not trial.stopped],
        "retrained": None if again is None else _entry(again, several),
        "importance": importance(entries),
        "combinations": entries,
    }
    if several:
        result["tasks"] = {task.name: {"low": task.low, "high": task.high} for task in search.tasks}
    if best is not None:
        for number, config in enumerate(configs, 1):
            name = "best.toml" if number == 1 else f"best-{number}.toml"
            directory.write_text(directory.path / name, dump_toml(config))
    _draw(directory, result, several)
    directory.write_result(result)
    if best is None:
        why = driver.trials[0].said or "all were stopped"
        raise StorageError(f"no setting has a score: {why}; see the logs in {directory.path / RUNS}")
    return SearchRun(directory.path, result)


def _draw(directory: RunDirectory, result: Mapping[str, Any], several: bool) -> None:
    """Draws the settings that have a score."""
    from ddpg_jax.runs.plots import ranking

    ranked = [entry for entry in result["combinations"] if entry["interquartile_mean"] is not None]
    if ranked:
        title = f"{result['env']}, {len(result['combinations'])} settings"
        what = "normalised return, mean over tasks" if several else "final return"
        ranking(directory.path / "ranking.png", ranked, title, result["importance"], what=what)


def _entry(trial: Trial, several: bool) -> dict[str, Any]:
    scores = np.array([np.nan if score is None else score for score in trial.per_seed])
    whole = trial.score is not None
    entry: dict[str, Any] = {
        "combination": trial.number,
        "values": trial.values,
        "run": next((part.pack for part in trial.parts.values()), None),
        "step": trial.step,
        "stopped": trial.stopped,
        "failed": trial.said or None,
        "interquartile_mean": trial.score,
        "interval": bootstrap_interval(scores) if whole else None,
        "per_seed": list(trial.per_seed),
        "diverged_seeds": sum(score is None for score in trial.per_seed),
        "faulty_seeds": 0,
    }
    if several:
        entry["tasks"] = {name: _part_entry(part) for name, part in trial.parts.items()}
    return entry


def _part_entry(part: Part) -> dict[str, Any]:
    """What is said of a setting on one of several tasks; its returns are those of the task."""
    figures = {"interquartile_mean": part.score, "per_seed": list(part.per_seed)}
    return {"run": part.pack, "step": part.step, **figures}


def _standing(entry: Mapping[str, Any]) -> tuple[bool, int, float]:
    """Those run to their end first, then those that came further; the best on top, those that failed last."""
    score = entry["interquartile_mean"]
    return score is not None, entry["step"] if score is not None else 0, float("-inf") if score is None else score
