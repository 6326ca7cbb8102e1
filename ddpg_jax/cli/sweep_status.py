"""`ddpg-jax sweep-status`: how far a search is, read from its record and from the records of its runs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table

from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs.plots import short_values

if TYPE_CHECKING:
    from ddpg_jax.training.search.trials import Trial

_STATES = ("refused", "failed", "stopped", "ended", "training", "waiting")


class Progress(NamedTuple):
    """A setting, and how far it is.

    Attributes:
      number: in the order of asking.
      values: what it sets, by path.
      state: one of `_STATES`.
      step: environment steps of each seed that its record tells of.
      score: its last; None: it has none.
      run: name of its run, on the first of several tasks; empty: it has none yet.
      tasks: its last score on each of several tasks, by name.
    """

    number: int
    values: dict[str, Any]
    state: str = "waiting"
    step: int = 0
    score: float | None = None
    run: str = ""
    tasks: Mapping[str, float | None] = {}


def show_status(directory: Path, every: float | None = None) -> int:
    """Prints the table of a search; again and again until it has ended, where that is asked for.

    Raises:
      StorageError: there is no search.
    """
    from ddpg_jax.runs.loggers.progress import SafeConsole

    console = SafeConsole()
    while True:
        console.print(status_table(directory))
        if every is None or (directory / "result.json").is_file():
            return 0
        time.sleep(every)


def status_table(directory: Path, most: int = 30) -> Table:
    """The settings of a search: those that train first, then the best; and how many there are of each state."""
    trials = read_progress(directory)
    counts = {state: sum(trial.state == state for trial in trials) for state in _STATES}
    title = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "nothing was asked for yet"
    table = Table(title=printable(f"{directory.name}: {title}"), title_justify="left")
    tasks = list(dict.fromkeys(name for trial in trials for name in trial.tasks))
    for name in ("trial", "setting", "state", "step", "score", *map(printable, tasks)):
        justify = "left" if name in ("setting", "state") else "right"
        table.add_column(name, justify=justify, overflow="fold")
    table.add_column("run", no_wrap=True)
    shown = sorted(trials, key=lambda trial: (trial.state != "training", -_score(trial), trial.number))
    for trial in shown[:most]:
        scores = [_figure(trial.score, 3 if tasks else 1), *(_figure(trial.tasks.get(task), 1) for task in tasks)]
        cells = str(trial.number), printable(short_values(trial.values)), trial.state, str(trial.step)
        table.add_row(*cells, *scores, trial.run)
    if len(trials) > most:
        table.caption, table.caption_justify = f"{most} of {len(trials)}", "left"
    return table


def read_progress(directory: Path) -> list[Progress]:
    """How far each setting of a search is.

    Raises:
      StorageError: there is no search, or its record cannot be read.
    """
    from ddpg_jax.config.load import read_toml
    from ddpg_jax.training.search.record import read_lines
    from ddpg_jax.training.search.run import SEARCH, TRIALS, is_search_directory
    from ddpg_jax.training.search.tasks import stored_tasks
    from ddpg_jax.training.search.trials import Trial, join_parts, part_of

    if not is_search_directory(directory):
        raise StorageError(f"{directory} is not the directory of a search: it holds no {SEARCH}")
    tasks = stored_tasks(read_toml(directory / SEARCH))
    trials: dict[int, Trial] = {}
    starts: dict[int, dict[str, _Start]] = {}
    for line in read_lines(directory / TRIALS)[0]:
        event, task = line["event"], line.get("task", "")
        if event == "asked":
            trials[line["trial"]] = Trial(line["trial"], line["values"], said=line.get("refused", ""))
        elif event in ("started", "scored") and _is_again(starts, line):
            continue  # the best, with fresh seeds: its score is another one's
        elif event == "started":
            for number in line["trials"]:
                starts.setdefault(number, {})[task] = _Start(line["pack"], line["until"])
        elif event == "scored":
            trial, start = trials[line["trial"]], starts[line["trial"]][task]
            trials[trial.number] = join_parts(trial._replace(parts={**trial.parts, task: part_of(line, 0)}), tasks)
            starts[trial.number][task] = start._replace(scored=True)
        elif event == "stopped":
            trials[line["trial"]] = trials[line["trial"]]._replace(stopped=True)
    return [_progress(trial, starts.get(trial.number, {}), directory / "runs") for trial in trials.values()]


class _Start(NamedTuple):
    """The last start of a setting on a task.

    Attributes:
      pack: name of its run.
      until: the step that it is trained to; None: its end.
      scored: whether it has come there.
    """

    pack: str
    until: int | None
    scored: bool = False


def _progress(trial: Trial, starts: dict[str, _Start], runs: Path) -> Progress:
    training = [start.pack for start in starts.values() if not start.scored]
    ended = bool(starts) and all(start.until is None for start in starts.values())
    if training:
        done = sum(part.step for name, part in trial.parts.items() if starts[name].scored)
        state, step = "training", done + sum(_last_step(runs / pack / "metrics.jsonl") for pack in training)
    else:
        failed = "failed" if trial.parts and trial.score is None else "ended" if ended else "waiting"
        state, step = "stopped" if trial.stopped else failed, trial.step
    state = "refused" if trial.said and not starts else state
    run = next((start.pack for start in starts.values()), "")
    tasks = {name: part.score for name, part in trial.parts.items() if name}
    return Progress(trial.number, trial.values, state, step, trial.score, run, tasks)


def _is_again(starts: dict[int, dict[str, _Start]], line: dict[str, Any]) -> bool:
    """Whether a line is of the best with fresh seeds: it says so, or its setting was at its end in another run."""
    before = starts.get(line["trial"] if "trial" in line else line["trials"][0], {}).get(line.get("task", ""))
    if line.get("fresh") or before is None:
        return bool(line.get("fresh"))
    return before.scored and before.until is None and before.pack != line["pack"]


def _last_step(path: Path) -> int:
    """The step of the last whole row of a record; 0: there is none."""
    try:
        lines = path.read_bytes()[-65536:].splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0


def _figure(score: float | None, digits: int) -> str:
    return "" if score is None else f"{score:.{digits}f}"


def _score(trial: Progress) -> float:
    return float("-inf") if trial.score is None else trial.score
