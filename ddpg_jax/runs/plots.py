"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.statistics import bootstrap_interval, interquartile_mean
from ddpg_jax.types import HostArray


def ranking(path: Path, combinations: Sequence[Mapping[str, Any]], title: str, most: int = 40) -> None:
    """Draws the scores of combinations as points with their intervals, best on top.

    Args:
      path: a PNG file to write.
      combinations: entries with "values", "interquartile_mean", "interval" and "per_seed", best first.
      title: what was swept.
      most: how many are drawn; the others are counted in the title.
    """
    shown = combinations[:most]
    figure = Figure(figsize=(7.5, 1.6 + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for row, entry in enumerate(shown):
        centre, interval = entry["interquartile_mean"], entry["interval"]
        axes.plot(entry["per_seed"], [row] * len(entry["per_seed"]), "|", color="tab:gray", alpha=0.7, markersize=7)
        if interval is not None:
            axes.plot(interval, [row, row], color="tab:blue", linewidth=2, alpha=0.5)
        axes.plot(centre, row, "o", color="tab:blue", markersize=5)
    axes.set_yticks(range(len(shown)), [short_values(entry["values"]) for entry in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    best = f", the best {most}" if len(combinations) > most else ""
    axes.set(xlabel="final return: interquartile mean, 95% interval, seeds", title=title + best)
    axes.grid(alpha=0.3)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error


def learning_curve(path: Path, steps: HostArray, returns: HostArray, title: str) -> None:
    """Draws the evaluation returns against the environment steps: seeds thin, interquartile mean with its band.

    Args:
      path: a PNG file to write.
      steps: environment steps of each seed at the evaluations, `[N]`.
      returns: mean return of each seed at each evaluation, `[N, S]`.
      title: what was trained.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")  # no pyplot: the user's backend stays as it is
    axes = figure.subplots()
    num_seeds = returns.shape[1]
    centre = interquartile_mean(returns)
    bands = [bootstrap_interval(row) for row in returns]
    axes.plot(steps, returns, color="tab:gray", linewidth=0.8, alpha=0.6)
    if all(band is not None for band in bands):
        low, high = np.array(bands, np.float64).T
        axes.fill_between(steps, low, high, color="tab:blue", alpha=0.2, linewidth=0, label="95% bootstrap interval")
    marker = "o" if len(steps) < 3 else None
    if num_seeds > 1:
        axes.plot([], [], color="tab:gray", linewidth=0.8, label="one seed")
    label = f"interquartile mean, {num_seeds} seeds" if num_seeds > 1 else "one seed"
    axes.plot(steps, centre, color="tab:blue", linewidth=2, marker=marker, label=label)
    axes.set(xlabel="environment steps of each seed", ylabel="return of an evaluation episode", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    _save(figure, path)


def short_values(values: Mapping[str, Any]) -> str:
    """What a combination sets, by the last parts of the paths: `tau 0.01, sigma 0.2`."""
    return ", ".join(f"{path.rpartition('.')[2]} {_short(value)}" for path, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
