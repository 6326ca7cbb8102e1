"""The figures of a comparison, each as PDF, SVG and PNG, of which equal comparisons give equal bytes.

No pyplot is used, so the user's backend stays as it is. Colours are those of Okabe and Ito, which people with any kind
of colour blindness tell apart; groups differ by the style of their lines as well.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.compare.bootstrap import Band, Estimate
from ddpg_jax.runs.compare.comparison import ALL_TASKS, Compared, Comparison, Task
from ddpg_jax.types import HostArray

FORMATS = ("pdf", "png", "svg")

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_SETTINGS: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.3,
    "pdf.fonttype": 42,  # many journals take no Type 3
    "svg.hashsalt": "ddpg_jax",
    "text.parse_math": False,  # names of groups are not formulas
}
_METADATA: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
_COLUMNS = 3

Styles = Mapping[str, dict[str, Any]]
"""Colour and line of each group."""


def draw_figures(comparison: Comparison, folder: Path) -> list[str]:
    """Draws every figure that there is something for.

    Args:
      comparison: what is drawn.
      folder: where the files go; those that have their names are replaced.

    Returns:
      The names of the figures, without ending.

    Raises:
      StorageError: one cannot be written.
    """
    drawn: list[str] = []
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks
        styles = _styles(comparison.groups)
        for name, draw in _FIGURES.items():
            if (figure := draw(comparison, styles)) is not None:
                _write(figure, folder / name)
                drawn.append(name)
    return drawn


def _styles(groups: Sequence[str]) -> Styles:
    return {
        name: {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _LINES[i % len(_LINES)]}
        for i, name in enumerate(groups)
    }


def _write(figure: Figure, stem: Path) -> None:
    """Lays a figure out, once, and writes it in every format; a figure that keeps an engine is drawn twice for each."""
    ConstrainedLayoutEngine().execute(figure)
    for form in FORMATS:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=150, metadata=_METADATA[form])
        path = stem.with_name(f"{stem.name}.{form}")
        try:
            filesystem.write_file(path, [buffer.getvalue()])
        except OSError as error:
            raise StorageError(f"{printable(path)} cannot be written: {error}") from error


def _panels(titles: Sequence[str], height: float = 3.2, rows_named: Sequence[str] = ()) -> tuple[Figure, list[Axes]]:
    """A figure with one panel for each title, at most three in a row, wide enough for the names of its rows."""
    columns = min(len(titles), _COLUMNS)
    names = max((0.07 * len(printable(name)) for name in rows_named), default=0.0)
    rows = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(max((4.2 + names) * columns, 5.6), height * rows + 0.5))
    axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for panel, title in zip(axes, titles, strict=False):
        panel.set_title(printable(title), fontsize=10)
    for panel in axes[len(titles) :]:
        panel.remove()
    return figure, list(axes[: len(titles)])


def _legend(figure: Figure, styles: Styles, groups: Iterable[str], extra: Mapping[str, dict[str, Any]]) -> None:
    """One legend below all panels."""
    named: dict[str, dict[str, Any]] = {name: {"linewidth": 2, **styles[name]} for name in groups}
    named |= extra
    handles = [Line2D([], [], **look) for look in named.values()]
    labels = [f" {printable(name)}" if name.startswith("_") else printable(name) for name in named]
    widths, room = [0.6 + 0.07 * len(label) for label in labels], float(figure.get_figwidth())  # in inches, about
    columns = len(labels) if sum(widths) < room else max(1, int(room / max(widths)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


_SEED: dict[str, dict[str, Any]] = {"one seed": {"color": "0.6", "linewidth": 0.8}}
_BAND: dict[str, dict[str, Any]] = {"95% interval": {"color": "0.8", "linewidth": 6}}


def _curve(axes: Axes, x: HostArray, band: Band, style: dict[str, Any]) -> None:
    """A line with its interval, where both are finite; few points are marked."""
    known = np.isfinite(x) & np.isfinite(band.centre)
    if band.low is not None and band.high is not None:
        both = known & np.isfinite(band.low) & np.isfinite(band.high)
        axes.fill_between(x[both], band.low[both], band.high[both], color=style["color"], alpha=0.18, linewidth=0)
    marker = "o" if known.sum() < 3 else None
    axes.plot(x[known], band.centre[known], linewidth=1.8, marker=marker, markersize=4, **style)


def _steps_axis(axes: Axes, vertical: bool = False) -> None:
    axis = axes.yaxis if vertical else axes.xaxis
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.set_major_locator(MaxNLocator(5))


def _learning_curves(comparison: Comparison, styles: Styles) -> Figure:
    figure, panels = _panels(list(comparison.tasks))
    for axes, task in zip(panels, comparison.tasks.values(), strict=True):
        for name, found in task.groups.items():
            curve = found.curve
            gap = np.full((1, len(curve.seeds)), np.nan)  # between two seeds, all of which are one line
            x = np.tile(np.append(curve.steps.astype(float), np.nan), len(curve.seeds))
            seeds = np.concatenate([curve.returns, gap]).T.ravel()
            axes.plot(x, seeds, color=styles[name]["color"], linewidth=0.6, alpha=0.35)
            _curve(axes, curve.steps, found.band, styles[name])
        axes.set(xlabel="environment steps of each seed", ylabel="return: interquartile mean")
        _steps_axis(axes)
    _legend(figure, styles, comparison.groups, _BAND | _SEED)
    return figure


def _final_and_best(comparison: Comparison, styles: Styles) -> Figure:
    most = max(len(task.groups) for task in comparison.tasks.values())
    figure, panels = _panels(list(comparison.tasks), 0.9 + 0.5 * most, comparison.groups)
    for axes, task in zip(panels, comparison.tasks.values(), strict=True):
        for row, (name, found) in enumerate(task.groups.items()):
            colour = styles[name]["color"]
            axes.plot(found.final.seeds, [row - 0.15] * len(found.final.seeds), "|", color=colour, alpha=0.5)
            _point(axes, row - 0.15, found.final.centre, colour, colour)
            axes.plot(found.best.seeds, [row + 0.2] * len(found.best.seeds), "|", color=colour, alpha=0.5)
            _point(axes, row + 0.2, found.best.centre, colour, "white")
        _rows(axes, list(task.groups))
        axes.set(xlabel="return: interquartile mean, interval, each seed")
        axes.xaxis.set_major_locator(MaxNLocator(5))
    marks: dict[str, dict[str, Any]] = {
        "at the end": {"color": "0.3", "marker": "o", "linewidth": 1.5},
        "at its best evaluation, which flatters": {
            "color": "0.3",
            "marker": "o",
            "markerfacecolor": "white",
            "linewidth": 1.5,
        },
    }
    _legend(figure, styles, (), marks)
    return figure


def _point(axes: Axes, row: float, estimate: Estimate, colour: str, face: str) -> None:
    if estimate.interval is not None:
        axes.plot(estimate.interval, [row, row], color=colour, linewidth=1.8)
    axes.plot(estimate.value, row, "o", color=colour, markerfacecolor=face, markersize=5.5)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """Names on the vertical axis, the first on top."""
    axes.set_yticks(range(len(labels)), [printable(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _performance_profile(comparison: Comparison, styles: Styles) -> Figure:
    profiles = {
        name: (task.thresholds, {group: found.profile for group, found in task.groups.items()})
        for name, task in comparison.tasks.items()
    }
    if comparison.aggregates:
        bands = {group: found.profile for group, found in comparison.aggregates.items()}
        profiles[ALL_TASKS] = comparison.thresholds, bands
    figure, panels = _panels(list(profiles))
    for axes, (title, (thresholds, bands)) in zip(panels, profiles.items(), strict=True):
        for name, band in bands.items():
            _curve(axes, thresholds, band, styles[name])
        what = "return" if title in comparison.tasks else "normalised return"
        axes.set(xlabel=f"{what} τ at the end", ylabel="share of seeds above τ", ylim=(-0.03, 1.03))
        axes.xaxis.set_major_locator(MaxNLocator(5))
    _legend(figure, styles, comparison.groups, _BAND)
    return figure


def _probability_of_improvement(comparison: Comparison, styles: Styles) -> Figure | None:
    pairs = comparison.improvements
    if not pairs:
        return None
    rows = [f"{pair.better} over {pair.worse}" for pair in pairs]
    figure, (axes,) = _panels(["probability of improvement, at the end"], 0.9 + 0.26 * len(pairs), rows)
    for row, pair in enumerate(pairs):
        colour = styles[pair.better]["color"]
        _point(axes, row, pair.probability, colour, colour)
    _rows(axes, rows)
    axes.axvline(0.5, color="0.4", linewidth=1, linestyle=":")
    axes.set(xlim=(-0.03, 1.03), xlabel="P(a seed of the first ends above), 95% interval")
    return figure


def _sample_efficiency(comparison: Comparison, styles: Styles) -> Figure:
    figure, panels = _panels(list(comparison.tasks))
    for axes, task in zip(panels, comparison.tasks.values(), strict=True):
        for name, found in task.groups.items():
            _curve(axes, task.levels, found.efficiency, styles[name])
        axes.axvline(task.target, color="0.4", linewidth=1, linestyle=":")
        axes.set(xlabel="return of the interquartile mean", ylabel="steps until it is reached")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(bottom=0)
        _steps_axis(axes, vertical=True)
    _legend(figure, styles, comparison.groups, _BAND | {"target of the table": {"color": "0.4", "linestyle": ":"}})
    return figure


def _wall_clock(comparison: Comparison, styles: Styles) -> Figure | None:
    def timed(task: Task) -> dict[str, Compared]:
        return {name: found for name, found in task.groups.items() if np.isfinite(found.curve.seconds).any()}

    tasks = {name: found for name, task in comparison.tasks.items() if (found := timed(task))}
    if not tasks:
        return None
    figure, panels = _panels(list(tasks))
    for axes, groups in zip(panels, tasks.values(), strict=True):
        for name, found in groups.items():
            _curve(axes, found.curve.seconds, found.band, styles[name])
        axes.set(xlabel="seconds, all seeds of a run side by side", ylabel="return: interquartile mean")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    _legend(
        figure, styles, [name for name in comparison.groups if any(name in found for found in tasks.values())], _BAND
    )
    return figure


_FIGURES: dict[str, Callable[[Comparison, Styles], Figure | None]] = {
    "learning_curves": _learning_curves,
    "final_and_best": _final_and_best,
    "performance_profile": _performance_profile,
    "probability_of_improvement": _probability_of_improvement,
    "sample_efficiency": _sample_efficiency,
    "wall_clock": _wall_clock,
}
