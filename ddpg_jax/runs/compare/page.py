"""`comparison.md`: what was compared, what was left out, and the figures and tables on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddpg_jax.__about__ import __version__
from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.compare.bootstrap import CURVE_REPETITIONS, TABLE_REPETITIONS
from ddpg_jax.runs.compare.comparison import Comparison
from ddpg_jax.runs.compare.evaluations import Groups

METHOD = f"""\
Statistics of Agarwal et al. (arXiv:2108.13264) over seeds: interquartile mean (IQM), 95% percentile intervals of the
stratified bootstrap, of {TABLE_REPETITIONS:,} resamples in tables and {CURVE_REPETITIONS:,} in curves; a tie counts
half in the probability of improvement. With few seeds these intervals are too narrow: with 3, 4, 5 and 8 they cover
the centre in 75, 87, 89 and 93% of the cases. A seed's return is the mean of an evaluation's episodes. Evaluations are
compared at equal steps, up to where the shortest run ends. The best evaluation is chosen by its own score, so it
flatters. Seconds are those of a run with all of its seeds, compilation and evaluation included.
"""


def write_page(
    path: Path, comparison: Comparison, groups: Groups, figures: Sequence[str], tables: Sequence[str]
) -> None:
    """Writes the page, beside the folders `figures` and `tables`.

    Args:
      path: a Markdown file.
      comparison: what came out.
      groups: what went in.
      figures: names of figures that were drawn.
      tables: names of tables that were written.

    Raises:
      StorageError: it cannot be written, or a table cannot be read.
    """
    sources = [
        f"* {_text(name)} on {_text(each.task)}: {_text(each.source)}, seeds {_text(', '.join(each.seeds))}"
        for name, members in groups.items()
        for each in members
    ]
    notes = [f"* {_text(note)}" for note in comparison.notes] or ["* nothing"]
    parts = ["# Comparison", "## Groups", "\n".join(sources), "## What was left out or replaced", "\n".join(notes)]
    try:
        for name in tables:
            table = (path.parent / "tables" / f"{name}.md").read_text(encoding="utf-8").rstrip()
            parts += [f"## Table: {name.replace('_', ' ')}", table]
        for name in figures:
            parts += [f"## Figure: {name.replace('_', ' ')}", f"![{name.replace('_', ' ')}](figures/{name}.png)"]
        parts += ["## Method", f"{METHOD}\nWritten by ddpg-jax {__version__}.\n"]
        filesystem.write_file(path, ["\n\n".join(parts).encode("utf-8", "backslashreplace")])
    except OSError as error:
        raise StorageError(f"{printable(path)} cannot be written: {error}") from error


def _text(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>" else letter for letter in printable(text))
