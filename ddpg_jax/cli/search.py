"""`ddpg-jax sweep` of a search: programs of their own, asked for, run by an engine, and ranked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ddpg_jax.cli.show import PLAIN, show_files
from ddpg_jax.cli.tables import ranking_table
from ddpg_jax.errors import ConfigError, printable
from ddpg_jax.runs.plots import short_values

if TYPE_CHECKING:
    from rich.console import Console

    from ddpg_jax.training.search.run import SearchRun

_FILES = ("ranking.png", "best.toml", "result.json", "trials.jsonl")


def search(options: argparse.Namespace, overrides: dict[str, Any]) -> int:
    """Runs the search of a file; returns the exit code."""
    from ddpg_jax.runs.loggers.progress import SafeConsole
    from ddpg_jax.training.search.file import load_search
    from ddpg_jax.training.search.run import dry_run, run_search

    console, wanted = SafeConsole(), load_search(options.sweep, overrides, options.engine)
    words = _words(options)
    if options.dry_run:
        console.print(dry_run(wanted, options.run_dir, words), **PLAIN)
        return 0
    run = run_search(
        wanted,
        options.run_dir,
        overwrite=options.overwrite,
        resume=options.resume or "never",
        notify=_quiet if options.quiet else lambda line: console.print(line, **PLAIN),
        words=words,
    )
    return _show(console, run)


def resume_search(options: argparse.Namespace, overrides: dict[str, Any]) -> int:
    """Goes on with the search in a directory; returns the exit code."""
    from ddpg_jax.runs.loggers.progress import SafeConsole
    from ddpg_jax.training.search.file import load_search
    from ddpg_jax.training.search.run import SEARCH, run_search

    if overrides or options.step is not None or options.into is not None or options.level != "exact":
        raise ConfigError("a search goes on as it was: resume takes no fields, --from or --run-dir for it")
    console = SafeConsole()
    wanted = load_search(options.run_dir / SEARCH)
    notify = _quiet if options.quiet else lambda line: console.print(line, **PLAIN)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    return _show(console, run_search(wanted, options.run_dir, resume="auto", notify=notify, words=_words(options)))


def _score(entry: dict[str, Any]) -> str:
    if entry["interquartile_mean"] is None:
        return "no score"
    interval, digits = entry["interval"], 3 if "tasks" in entry else 1  # of normalised figures
    shown = f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else ""
    return f"{entry['interquartile_mean']:.{digits}f}" + shown


def _words(options: argparse.Namespace) -> Sequence[str]:
    """What each program is given of the command line."""
    plugins = [word for module in options.plugin for word in ("--plugin", module)]
    flags = [f"--{name.replace('_', '-')}" for name in ("allow_imports", "no_cache") if getattr(options, name)]
    return (*plugins, *flags)


def _quiet(line: str) -> None:
    """Shows nothing."""


def _show(console: Console, run: SearchRun) -> int:
    """The ranking, what the best setting is worth with fresh seeds, and the files."""
    result = run.result
    console.print(ranking_table(result))
    again = result["retrained"]
    if again is not None:
        best = next(each for each in result["combinations"] if each["combination"] == again["combination"])
        console.print(
            f"the best, {printable(short_values(best['values']))}, won with {_score(best)}; trained again with "
            f"{len(again['per_seed'])} fresh seeds it reaches {_score(again)}",
            **PLAIN,
        )
    failed = [entry for entry in result["combinations"] if entry["failed"]]
    for entry in failed[:10]:
        console.print(
            f"trial {entry['combination']} ({printable(short_values(entry['values']))}) failed: "
            f"{printable(entry['failed'])}",
            **PLAIN,
        )
    show_files(console, run.directory, _FILES)
    return 0
