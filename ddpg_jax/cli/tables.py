"""Tables for the terminal, at most 80 columns wide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from ddpg_jax.config.presets import preset_names, summarize_preset
from ddpg_jax.errors import printable
from ddpg_jax.runs.plots import short_name, short_values
from ddpg_jax.runs.statistics import COVERAGE, centre_name, score_line, show_return, summarize

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.runs.window_gap import WindowGap
    from ddpg_jax.types import Evaluation


def training_table(result: dict[str, Any]) -> Table:
    """What a run reached and how fast."""
    final, best, seconds = result["final"], result["best"], result["seconds"]
    episodes = len(final["returns"][0])
    table = Table(title=printable(f"{result['algorithm']} on {result['env']}"), show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(f"final, step {final['step']}", score_line(final))
    table.add_row("  each seed", f"{_numbers(final['per_seed'])}  ({episodes} episodes each)")
    table.add_row(f"best, step {best['step']}", score_line(best))
    table.add_row(
        "time", f"{seconds['training']:.1f} s training, {seconds['compile']:.1f} s compiling, evaluation apart"
    )
    phases = [f"{name} {spent:.1f}" for name, spent in seconds.items() if name not in ("compile", "training")]
    table.add_row("  seconds", ", ".join(phases))
    rates = f"{result['env_steps_per_second']:.0f} env steps/s, {result['updates_per_second']:.0f} updates/s"
    table.add_row("rates", f"{rates}, all {len(result['seeds'])} seeds together")
    return table


def evaluation_table(config: Config, evaluation: Evaluation) -> Table:
    """The returns of each seed."""
    summary = summarize(evaluation.returns)
    episodes = evaluation.returns.shape[1]
    title = printable(f"{config.algorithm_name} on {config.env.id}, {episodes} episodes each")
    table = Table(title=title, title_justify="left")
    for name in ("seed", "mean return", "deviation", "lowest", "highest", "mean length"):
        table.add_column(name, justify="right")
    for seed, returns, lengths in zip(config.seed_list, evaluation.returns, evaluation.lengths, strict=True):
        figures = (returns.mean(), returns.std(), returns.min(), returns.max(), lengths.mean())
        table.add_row(str(seed), *map(show_return, figures))
    table.caption, table.caption_justify = score_line(summary), "left"
    return table


def window_gap_table(gap: WindowGap) -> Table:
    """How far Q of windows is from Q of whole episodes, by how long their state has been warmed."""
    several = gap.gap.shape[1] > 1
    table = Table(title="Q of windows beside Q of whole episodes", title_justify="left")
    table.add_column("state of the window")
    for name in ("difference", *(("lowest seed", "highest seed") if several else ())):
        table.add_column(name, justify="right")
    for steps, mean, seeds in zip(gap.warmed, gap.mean, gap.gap, strict=True):
        told = seeds[np.isfinite(seeds)]
        ends = [min(told, default=np.nan), max(told, default=np.nan)] if several else []
        shown = [f"{x:.4f}" if np.isfinite(x) else "n/a" for x in (mean, *ends)]
        table.add_row(f"after {steps} step{'s' * (steps != 1)} since zeros", *shown)
    table.caption = (
        "mean of |Q of the window - Q of the episode| / largest |Q|, without steps whose window reaches back to the "
        "episode's beginning, where it is 0 by definition; n/a: there are no others"
    )
    table.caption_justify = "left"
    return table


def ranking_table(result: dict[str, Any], most: int = 20) -> Table:
    """The combinations of a sweep, best first."""
    entries, seeds = result["combinations"], len(result["seeds"])
    table = Table(title=printable(f"{len(entries)} combinations on {result['env']}"), title_justify="left")
    centre, interval = ("IQM" if seeds > 3 else centre_name(seeds)), ("95% interval" if seeds > 2 else "range")
    few = f", of which intervals cover {COVERAGE[seeds]}%" if seeds in COVERAGE else ""
    tasks, kind = list(result.get("tasks", {})), "mean of normalised returns, " if "tasks" in result else ""
    for name, justify in (("", "right"), ("combination", "left"), (centre, "right"), (interval, "right")):
        table.add_column(name, justify=justify, overflow="fold")  # pyright: ignore[reportArgumentType]
    for task in tasks:
        table.add_column(printable(task), justify="right", overflow="fold")
    for rank, entry in enumerate(entries[:most], 1):
        of_tasks = [_figure(entry["tasks"].get(task, {}).get("interquartile_mean")) for task in tasks]
        score = _figure(entry["interquartile_mean"])
        table.add_row(str(rank), printable(short_values(entry["values"])), score, _standing(entry, result), *of_tasks)
    table.caption = f"{kind}over {seeds} seeds{few}" + (f"; the best {most}" if len(entries) > most else "")
    if "population" in result:
        table.caption += (
            ". The members of a population are not independent of each other, and their settings are the last ones of "
            "several: before you report a score, train best.toml again with fresh seeds."
        )
    if shares := result.get("importance"):
        table.caption += f"\nexplained by each field alone: {printable(share_line(shares))}"
    table.caption_justify = "left"
    return table


def share_line(shares: dict[str, float], most: int = 5) -> str:
    """What each field explains of the order of settings, those that explain most first."""
    shown = [f"{short_name(name)} {share:.0%}" for name, share in list(shares.items())[:most]]
    return ", ".join(shown)


def presets_table() -> Table:
    """The presets, a line each."""
    table = Table(box=None, show_header=False, title="ddpg-jax train TASK ALGORITHM", title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for kind, names in preset_names().items():
        table.add_section()
        table.add_row(Text(kind, style="bold"))
        for name in names:
            table.add_row(f"  {name}", summarize_preset(name))
    return table


def _figure(score: float | None) -> str:
    return "" if score is None else show_return(score)


def _standing(entry: dict[str, Any], result: dict[str, Any]) -> str:
    """How sure the score of a combination is, or why it has none."""
    seeds = len(result["seeds"])
    if entry["interquartile_mean"] is not None:
        finished = entry["combination"] in result.get("finished", [entry["combination"]])
        interval = entry["interval"]
        shown = f"[{', '.join(map(show_return, interval))}]" if interval else ""
        return shown if finished else f"at step {entry['step']}"
    if entry["diverged_seeds"]:
        return f"{entry['diverged_seeds']} of {seeds} seeds diverged"
    if entry["faulty_seeds"]:
        return f"{entry['faulty_seeds']} of {seeds} seeds: environment not finite"
    reached = sum(score is not None for score in entry["per_seed"])
    return f"{reached} of {seeds} seeds begun" if reached else "not begun"


def _numbers(values: list[float]) -> str:
    shown = [show_return(value) for value in values[:16]]
    return "  ".join(shown + (["..."] if len(values) > 16 else []))
