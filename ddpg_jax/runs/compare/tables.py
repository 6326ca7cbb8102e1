"""The tables of a comparison, each as CSV, Markdown and LaTeX; curves as CSV only."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.compare.bootstrap import Band, Estimate
from ddpg_jax.runs.compare.comparison import Comparison
from ddpg_jax.runs.compare.evaluations import NEVER
from ddpg_jax.runs.statistics import Interval

Cell: TypeAlias = "str | int | float | None"
Table: TypeAlias = "tuple[tuple[str, ...], list[tuple[Cell, ...]]]"
"""Names of the columns, and rows; None: it is not known."""

FORMATS = ("csv", "md", "tex")

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip
_MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*_{}[]<>#|~$"}


def write_tables(comparison: Comparison, folder: Path) -> list[str]:
    """Writes every table that has rows.

    Args:
      comparison: what is written.
      folder: where the files go; those that have their names are replaced.

    Returns:
      The names of the tables that are there in every format, without ending.

    Raises:
      StorageError: one cannot be written.
    """
    written: list[str] = []
    for name, make in _TABLES.items():
        header, rows = make(comparison)
        if rows:
            for form, show in _FORMS.items():
                _write(folder / f"{name}.{form}", show(header, rows))
            written.append(name)
    _write(folder / "curves.csv", _show_csv(*_curves(comparison)))
    return written


def _write(path: Path, text: str) -> None:
    try:
        filesystem.write_file(path, [text.encode("utf-8", "backslashreplace")])
    except OSError as error:
        raise StorageError(f"{printable(path)} cannot be written: {error}") from error


def _scores(comparison: Comparison) -> Table:
    header = ("task", "group", "seeds", "final step", "final IQM", "low", "high", "final mean", "final median")
    rows: list[tuple[Cell, ...]] = []
    for task, found in comparison.tasks.items():
        for group, each in found.groups.items():
            final, best = each.final, each.best
            summary = final.seeds.mean().item(), _median(final.seeds.tolist())
            of_best = best.step, *_estimate(best.centre)
            rows.append((task, group, len(final.seeds), final.step, *_estimate(final.centre), *summary, *of_best))
    return (*header, "best step", "best IQM", "best low", "best high"), rows


def _seeds(comparison: Comparison) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for task, found in comparison.tasks.items():
        for group, each in found.groups.items():
            columns = (
                each.curve.seeds,
                each.final.seeds.tolist(),
                each.best.seeds.tolist(),
                each.curve.diverged.tolist(),
            )
            for seed, final, best, diverged in zip(*columns, strict=True):
                rows.append((task, group, seed, final, best, None if diverged == NEVER else diverged))
    return ("task", "group", "seed", "final", "at the group's best", "diverged at"), rows


def _improvements(comparison: Comparison) -> Table:
    rows = [(each.better, each.worse, *_estimate(each.probability), each.tasks) for each in comparison.improvements]
    return ("first", "second", "P(first > second)", "low", "high", "tasks"), [*rows]


def _efficiency(comparison: Comparison) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for task, found in comparison.tasks.items():
        for group, each in found.groups.items():
            reach = each.reach
            steps = _whole(reach.steps), *(_whole(end) for end in reach.interval or (None, None))
            seeds = f"{reach.reached} of {len(each.curve.seeds)}"
            rows.append((task, found.target, group, *steps, seeds, _known(reach.seconds)))
    return ("task", "return", "group", "steps of the IQM", "low", "high", "seeds that reach it", "seconds"), rows


def _wall_clock(comparison: Comparison) -> Table:
    header = ("task", "group", "seeds side by side", "steps", "seconds", "steps/s of all seeds", "machine")
    rows: list[tuple[Cell, ...]] = []
    for task, found in comparison.tasks.items():
        for group, each in found.groups.items():
            curve = each.curve
            seconds = _known(curve.seconds[-1].item())
            beside, steps = ", ".join(map(str, curve.side_by_side)), curve.steps[-1].item()
            mean = sum(curve.side_by_side) / len(curve.side_by_side)
            rate = None if not seconds else steps * mean / seconds
            rows.append((task, group, beside, steps, seconds, rate, "; ".join(curve.machines) or None))
    return header, rows


def _aggregates(comparison: Comparison) -> Table:
    rows = [
        (group, each.seeds, *_estimate(each.centre), *_estimate(each.gap))
        for group, each in comparison.aggregates.items()
    ]
    return ("group", "seeds", "IQM", "low", "high", "optimality gap", "gap low", "gap high"), [*rows]


def _curves(comparison: Comparison) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for task, found in comparison.tasks.items():
        for group, each in found.groups.items():
            columns = each.curve.steps.tolist(), each.curve.seconds.tolist(), _band(each.band)
            for step, seconds, ends in zip(*columns, strict=True):
                rows.append((task, group, step, _known(seconds), *ends))
    return ("task", "group", "step", "seconds", "IQM", "low", "high"), rows


def _band(band: Band) -> Iterator[tuple[Cell, ...]]:
    if band.low is None or band.high is None:
        return iter([(value, None, None) for value in band.centre.tolist()])
    return zip(band.centre.tolist(), band.low.tolist(), band.high.tolist(), strict=True)


def _estimate(estimate: Estimate) -> tuple[Cell, ...]:
    ends: Interval | tuple[None, None] = estimate.interval or (None, None)
    return estimate.value, *ends


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _whole(value: float | None) -> int | str | None:
    return None if value is None else int(value) if math.isfinite(value) else "never"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _show_csv(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Every digit of every number."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(
        [
            ["" if cell is None else repr(cell) if isinstance(cell, float) else _plain(cell) for cell in row]
            for row in rows
        ]
    )
    return buffer.getvalue()


def _show_markdown(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    lines = [list(header), ["---:" if _is_number(rows, i) else "---" for i in range(len(header))]]
    lines += [[_escape(_rounded(cell), _MARKDOWN) for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _show_latex(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A `tabular` by the package booktabs."""
    columns = "".join("r" if _is_number(rows, i) else "l" for i in range(len(header)))
    body = [[_escape(_rounded(cell), _LATEX) for cell in row] for row in rows]
    head = " & ".join(_escape(name, _LATEX) for name in header)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    lines += [rf"{' & '.join(row)} \\" for row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _is_number(rows: Sequence[Sequence[Cell]], column: int) -> bool:
    return all(row[column] is None or isinstance(row[column], int | float) for row in rows)


def _rounded(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.1f}" if abs(cell) >= 100 else f"{cell:.4g}"
    return _plain(cell)


def _plain(cell: str | int) -> Any:
    return printable(cell) if isinstance(cell, str) else cell


def _escape(text: Any, letters: dict[str, str]) -> str:
    return "".join(letters.get(letter, letter) for letter in str(text))


_TABLES: dict[str, Callable[[Comparison], Table]] = {
    "scores": _scores,
    "seeds": _seeds,
    "improvement": _improvements,
    "efficiency": _efficiency,
    "wall_clock": _wall_clock,
    "aggregate": _aggregates,
}
_FORMS: dict[str, Callable[[Sequence[str], Sequence[Sequence[Cell]]], str]] = {
    "csv": _show_csv,
    "md": _show_markdown,
    "tex": _show_latex,
}
