"""The command `export`: a policy of a run as files that other programs run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ddpg_jax.runs.export.export import export_run
from ddpg_jax.runs.inference import load_run, select_seed
from ddpg_jax.runs.loggers.progress import SafeConsole


def export(
    run_dir: Path,
    *,
    which: Literal["final", "best"],
    seed: int | None,
    forms: Sequence[str],
    out: Path | None,
    overwrite: bool,
    overrides: dict[str, Any],
) -> int:
    """Exports the policy of a seed and prints the files, one a line.

    Args:
      run_dir: directory of the run.
      which: parameters, as in `load_run`.
      seed: whose policy; None: of the run's first seed.
      forms: that were checked.
      out: folder of the files; None: a new one under `exported/`.
      overwrite: whether an export that is there is replaced.
      overrides: fields that replace the run's.

    Returns:
      The exit code.
    """
    run = load_run(run_dir, which=which, **overrides)
    run = select_seed(run, run.config.seed_list[0] if seed is None else seed)
    console = SafeConsole()
    for path in export_run(run, run_dir, 0, which=which, forms=forms, out=out, overwrite=overwrite):
        console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    return 0
