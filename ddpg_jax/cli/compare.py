"""The command `compare`: groups of runs beside each other, as a short table here, and figures and tables in files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ddpg_jax.errors import ConfigError, StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.compare.bootstrap import LEAST_SEEDS, Estimate
from ddpg_jax.runs.compare.comparison import Comparison, Scales, compare_groups
from ddpg_jax.runs.compare.comparison import Task as ComparedTask
from ddpg_jax.runs.compare.curves import Diverged
from ddpg_jax.runs.compare.evaluations import Groups, expand, group_runs, read_run
from ddpg_jax.runs.compare.peers import parse_peer, read_peer
from ddpg_jax.runs.loggers.progress import SafeConsole
from ddpg_jax.runs.statistics import show_return

_PLAIN = {"soft_wrap": True, "highlight": False, "markup": False}


def compare(
    runs: Sequence[Path],
    out: Path,
    *,
    groups: Sequence[str],
    peers: Sequence[str],
    diverged: Diverged,
    targets: Sequence[str],
    scales: Sequence[str],
) -> int:
    """Compares runs and peers, prints what came out, and writes figures and tables.

    Args:
      runs: directories of runs, grouped by what they are.
      out: folder for all that is written; files in it that have these names are replaced.
      groups: runs grouped by hand, `NAME=RUN,RUN` each.
      peers: curves of others, `NAME[@TASK]=FILE[:TAG]` each.
      diverged: what becomes of seeds that diverged.
      targets: `[TASK=]RETURN` each: to which return steps are counted.
      scales: `TASK=LOW,HIGH` each: which returns count as 0 and 1.

    Returns:
      The exit code.
    """
    if (out / "config.toml").exists() or (out / "format.json").exists():
        raise ConfigError(f"--out {printable(out)} is the directory of a run: name another, for the comparison alone")
    found = _read_groups(runs, groups)
    _add_peers(found, peers)
    if not found:
        raise ConfigError("there is nothing to compare: name directories of runs, or --group NAME=RUN,RUN")
    tasks = list(dict.fromkeys(each.task for members in found.values() for each in members))
    comparison = compare_groups(
        found, diverged=diverged, targets=_parse_targets(targets, tasks), scales=_parse_scales(scales)
    )
    console = SafeConsole()
    _print_tables(console, comparison)
    for note in comparison.notes:
        console.print(f"note: {printable(note)}", highlight=False, markup=False)
    for line in _write(out, comparison, found):
        console.print(printable(line), **_PLAIN)
    return 0


def _read_groups(runs: Sequence[Path], words: Sequence[str]) -> Groups:
    groups = group_runs(runs)
    for word in words:
        name, equals, paths = word.partition("=")
        if not (name and equals and paths):
            raise ConfigError(f"--group {printable(word)}: write NAME=RUN,RUN")
        if name in groups:
            raise ConfigError(f"--group {printable(word)}: {printable(name)} is a group already; take another name")
        groups[name] = [read_run(each) for path in paths.split(",") for each in expand(Path(path))]
    return groups


def _add_peers(groups: Groups, words: Sequence[str]) -> None:
    """Reads the peers; those of one name are one group."""
    tasks = list(dict.fromkeys(each.task for members in groups.values() for each in members))
    ours = set(groups)
    for word in words:
        peer = parse_peer(word)
        if peer.name in ours:
            raise ConfigError(f"--peer {printable(word)}: {printable(peer.name)} is a group of runs; take another name")
        if peer.task is None and len(tasks) != 1:
            there = ", ".join(map(printable, tasks)) or "no run"
            raise ConfigError(f"--peer {printable(word)}: say what it learned, as NAME@TASK=FILE; there are: {there}")
        groups.setdefault(peer.name, []).append(read_peer(peer, peer.task or tasks[0]))


def _parse_targets(words: Sequence[str], tasks: Sequence[str]) -> dict[str, float]:
    targets: dict[str, float] = {}
    for word in words:
        task, equals, value = word.rpartition("=")
        if not equals and len(tasks) != 1:
            raise ConfigError(f"--target {printable(word)}: there are several tasks; write TASK=RETURN")
        (targets[task if equals else tasks[0]],) = _numbers(f"--target {word}", value, 1, "RETURN or TASK=RETURN")
    return targets


def _parse_scales(words: Sequence[str]) -> Scales:
    scales: dict[str, tuple[float, float]] = {}
    for word in words:
        task, _, values = word.rpartition("=")
        low, high = _numbers(f"--normalize {word}", values, 2, "TASK=LOW,HIGH")
        if not (task and low != high):
            raise ConfigError(f"--normalize {printable(word)}: write TASK=LOW,HIGH with two different returns")
        scales[task] = low, high
    return scales


def _numbers(word: str, text: str, how_many: int, form: str) -> list[float]:
    try:
        values = [float(each) for each in text.split(",")]
    except ValueError:
        values = []
    if len(values) != how_many or not all(map(math.isfinite, values)):
        raise ConfigError(f"{printable(word)}: write {form}")
    return values


def _print_tables(console: Console, comparison: Comparison) -> None:
    """A table for each task, and one of all pairs where there are several groups."""
    for name, task in comparison.tasks.items():
        console.print(_task_table(name, task))
    if comparison.improvements:
        table = Table(title="probability of improvement at the end", title_justify="left")
        for column, justify in (("first", "left"), ("second", "left"), ("P(first > second)", "right")):
            table.add_column(column, justify=justify, overflow="fold")  # pyright: ignore[reportArgumentType]
        for each in comparison.improvements:
            table.add_row(printable(each.better), printable(each.worse), _shown(each.probability, "{:.2f}".format))
        console.print(table)


def _task_table(name: str, task: ComparedTask) -> Table:
    steps = {found.final.step for found in task.groups.values()}
    when = f", step {steps.pop()}" if len(steps) == 1 else ""
    table = Table(title=printable(f"{name}{when}"), title_justify="left")
    columns = ("group", "left"), ("seeds", "right"), ("final IQM [95% interval]", "right"), ("best IQM", "right")
    for column, justify in columns:
        table.add_column(column, justify=justify, overflow="fold")  # pyright: ignore[reportArgumentType]
    for group, found in task.groups.items():
        final = _shown(found.final.centre) + ("" if when else f" at {found.final.step}")
        best = f"{show_return(found.best.centre.value)} at {found.best.step}"
        table.add_row(printable(group), str(len(found.curve.seeds)), final, best)
    return table


def _shown(estimate: Estimate, show: Callable[[float], str] = show_return) -> str:
    if estimate.interval is None:
        return f"{show(estimate.value)} [fewer than {LEAST_SEEDS} seeds]"
    return f"{show(estimate.value)} [{', '.join(map(show, estimate.interval))}]"


def _write(out: Path, comparison: Comparison, groups: Groups) -> Iterable[str]:
    """Writes all files; returns the lines that name them."""
    from ddpg_jax.runs.compare import figures, tables
    from ddpg_jax.runs.compare.page import write_page

    folders = out / "figures", out / "tables"
    try:
        for folder in folders:
            filesystem.make_folder(folder)
    except OSError as error:
        raise StorageError(f"--out {printable(out)} cannot be used: {error}") from error
    drawn, written = figures.draw_figures(comparison, folders[0]), tables.write_tables(comparison, folders[1])
    write_page(out / "comparison.md", comparison, groups, drawn, written)
    lines = [f"{folders[0]}/{name}.{{{','.join(figures.FORMATS)}}}" for name in drawn]
    lines += [f"{folders[1]}/{name}.{{{','.join(tables.FORMATS)}}}" for name in written]
    return [*lines, f"{folders[1]}/curves.csv", f"{out}/comparison.md"]
