"""Pictures of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ddpg_jax.errors import StorageError
from ddpg_jax.reports.statistics import bootstrap_interval, interquartile_mean
from ddpg_jax.types import HostArray


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
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error
