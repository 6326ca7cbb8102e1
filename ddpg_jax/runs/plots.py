"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.statistics import bootstrap_interval, centre_name, interquartile_mean, interval_name, show_setting
from ddpg_jax.types import HostArray


def ranking(
    path: Path,
    combinations: Sequence[Mapping[str, Any]],
    title: str,
    shares: Mapping[str, float] | None = None,
    most: int = 40,
    what: str = "final return",
) -> None:
    """Draws the scores of combinations as points with their intervals, best on top; what each sets stands before it.

    Where they were trained for unlike numbers of steps, these are drawn beside them.

    Args:
      path: a PNG file to write.
      combinations: entries with "values", "interquartile_mean", "interval", "per_seed" and "step", best first.
      title: what was swept.
      shares: what each field explains, from `importance`; None or empty: it is not said.
      most: how many are drawn; the others are counted in the title.
      what: what the scores are.
    """
    shown = combinations[:most]
    fields = list(dict.fromkeys(name for entry in shown for name in entry["values"]))
    heads = [[short_name(name) for name in fields]]
    heads += [[f"explains {shares[name]:.0%}" if name in shares else "" for name in fields]] if shares else []
    table = [*heads, *(_cells(entry["values"], fields) for entry in shown)]
    inches = [0.085 * max(len(row[i]) for row in table) + 0.2 for i in range(len(fields))]
    steps = [entry["step"] for entry in shown]
    beside = 1.6 if len(set(steps)) > 1 else 0.0
    figure = Figure(figsize=(sum(inches) + 5.5 + beside, 1.5 + 0.22 * len(table)))
    width, height = figure.get_size_inches()
    bottom, tall = 0.75 / height, 1 - 1.2 / height
    axes = figure.add_axes((sum(inches) / width + 0.02, bottom, 5.2 / width - 0.02, tall))
    for row, entry in enumerate(shown):
        interval, seeds = entry["interval"], entry["per_seed"]
        axes.plot(seeds, [row] * len(seeds), "|", color="tab:gray", alpha=0.7, markersize=7)
        if interval is not None:
            axes.plot(interval, [row, row], color="tab:blue", linewidth=2, alpha=0.5)
        axes.plot(entry["interquartile_mean"], row, "o", color="tab:blue", markersize=5)
    axes.set_yticks(range(len(shown)), [""] * len(shown))
    axes.set_ylim(len(shown) - 0.5, -0.5 - len(heads))
    for row, cells in enumerate(table, -len(heads)):
        ends = np.cumsum(inches)
        for end, cell in zip(ends, cells, strict=True):
            weight = "bold" if row == -len(heads) else "normal"
            where = (end - ends[-1] - 0.12) / 5.2 - 0.02  # in widths of the axes, to their left
            look: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 8, "weight": weight}
            axes.text(where, row, cell, transform=axes.get_yaxis_transform(), **look)
    best = f", the best {most}" if len(combinations) > most else ""
    seeds = max((len(entry["per_seed"]) for entry in shown), default=1)
    axes.set(xlabel=f"{what}: {centre_name(seeds)}, {interval_name(seeds)}, each seed")
    figure.text(0.15 / width, 1 - 0.3 / height, title + best, fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(alpha=0.3)
    if beside:
        cost = figure.add_axes((1 - (beside - 0.05) / width, bottom, (beside - 0.3) / width, tall), sharey=axes)
        cost.barh(range(len(shown)), steps, height=0.6, color="tab:gray", alpha=0.6)
        cost.tick_params(labelleft=False, left=False)
        cost.xaxis.set_major_locator(MaxNLocator(2))
        cost.set(xlabel="steps of each seed")
    _save(figure, path)


def _cells(values: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    return [show_setting(values[name]) if name in values else "" for name in fields]


def picture_table(path: Path, rows: Sequence[tuple[str, HostArray]], title: str) -> None:
    """Draws rows of pictures below each other, each with its name before it.

    Args:
      path: a PNG file to write.
      rows: names and pictures, `uint8 [N, H, W, 3 or 1]`.
      title: what is seen.

    Raises:
      StorageError: the file cannot be written.
    """
    columns = max(len(pictures) for _, pictures in rows)
    figure = Figure(figsize=(1.2 + 1.25 * columns, 0.5 + 1.25 * len(rows)), layout="constrained")
    table = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, pictures) in zip(table, rows, strict=True):
        for axes, picture in zip(line, pictures, strict=False):
            axes.imshow(np.broadcast_to(picture, (*picture.shape[:-1], 3)), interpolation="nearest")
        for axes in line:
            axes.set(xticks=(), yticks=())
        line[0].set_ylabel(name)
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def short_name(path: str) -> str:
    """The last part of a field's path."""
    return path.rpartition(".")[2]


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

    Raises:
      StorageError: the file cannot be written.
    """
    _save(draw_curve(steps, returns, title), path)


def draw_curve(steps: HostArray, returns: HostArray, title: str) -> Figure:
    """As `learning_curve`, as a figure."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")  # no pyplot: the user's backend stays as it is
    axes = figure.subplots()
    num_seeds = returns.shape[1]
    centre = interquartile_mean(returns)
    bands = [bootstrap_interval(row) for row in returns]
    axes.plot(steps, returns, color="tab:gray", linewidth=0.8, alpha=0.6)
    if all(band is not None for band in bands):
        low, high = np.array(bands, np.float64).T
        axes.fill_between(steps, low, high, color="tab:blue", alpha=0.2, linewidth=0, label=interval_name(num_seeds))
    marker = "o" if len(steps) < 3 else None
    if num_seeds > 1:
        axes.plot([], [], color="tab:gray", linewidth=0.8, label="one seed")
    label = f"{centre_name(num_seeds)} of {num_seeds} seeds" if num_seeds > 1 else "one seed"
    axes.plot(steps, centre, color="tab:blue", linewidth=2, marker=marker, label=label)
    axes.set(xlabel="environment steps of each seed", ylabel="return of an evaluation episode", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    return figure


def short_values(values: Mapping[str, Any]) -> str:
    """What a combination sets, by the last parts of the paths: `tau 0.01, sigma 0.2`."""
    return ", ".join(f"{path.rpartition('.')[2]} {show_setting(value)}" for path, value in values.items())
