"""`ddpg-jax sweep-status`: how far a search is, read from its record and from the records of its runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs.plots import short_values

_STATES = ("refused", "failed", "stopped", "ended", "training", "waiting")


class Progress(NamedTuple):
    """A setting, and how far it is.

    Attributes:
      number: in the order of asking.
      values: what it sets, by path.
      state: one of `_STATES`.
      step: environment steps of each seed that its record tells of.
      score: its last; None: it has none.
      run: name of its run; empty: it has none yet.
    """

    number: int
    values: dict[str, Any]
    state: str = "waiting"
    step: int = 0
    score: float | None = None
    run: str = ""


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
    for name, justify in (
        ("trial", "right"),
        ("setting", "left"),
        ("state", "left"),
        ("step", "right"),
        ("score", "right"),
    ):
        table.add_column(name, justify=justify, overflow="fold")  # pyright: ignore[reportArgumentType]
    table.add_column("run", no_wrap=True)
    shown = sorted(trials, key=lambda trial: (trial.state != "training", -_score(trial), trial.number))
    for trial in shown[:most]:
        score = "" if trial.score is None else f"{trial.score:.1f}"
        cells = str(trial.number), printable(short_values(trial.values)), trial.state, str(trial.step), score, trial.run
        table.add_row(*cells)
    if len(trials) > most:
        table.caption, table.caption_justify = f"{most} of {len(trials)}", "left"
    return table


def read_progress(directory: Path) -> list[Progress]:
    """How far each setting of a search is.

    Raises:
      StorageError: there is no search, or its record cannot be read.
    """
    from ddpg_jax.training.search.record import read_lines
    from ddpg_jax.training.search.run import SEARCH, TRIALS, is_search_directory

    if not is_search_directory(directory):
        raise StorageError(f"{directory} is not the directory of a search: it holds no {SEARCH}")
    trials: dict[int, Progress] = {}
    training: dict[str, list[int]] = {}
    for line in read_lines(directory / TRIALS)[0]:
        event = line["event"]
        if event == "asked":
            state = "refused" if "refused" in line else "waiting"
            trials[line["trial"]] = Progress(line["trial"], line["values"], state)
        elif event in ("started", "scored") and _is_again(trials, line):
            continue  # the best, with fresh seeds: its score is another one's
        elif event == "started":
            training[line["pack"]] = line["trials"]
            for number in line["trials"]:
                trials[number] = trials[number]._replace(state="training", run=line["pack"])
        elif event == "ended":
            training.pop(line["pack"], None)
        elif event == "scored":
            state = "ended" if line["score"] is not None else "failed"
            trials[line["trial"]] = trials[line["trial"]]._replace(state=state, step=line["step"], score=line["score"])
        elif event == "stopped":
            trials[line["trial"]] = trials[line["trial"]]._replace(state="stopped")
    for pack, numbers in training.items():
        step = _last_step(directory / "runs" / pack / "metrics.jsonl")
        for number in numbers:
            trials[number] = trials[number]._replace(step=step)
    return list(trials.values())


def _is_again(trials: dict[int, Progress], line: dict[str, Any]) -> bool:
    """Whether a line is of a setting that has a run already, and of another one."""
    first = trials[line["trial"] if "trial" in line else line["trials"][0]]
    return first.run not in ("", line["pack"])


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


def _score(trial: Progress) -> float:
    return float("-inf") if trial.score is None else trial.score
