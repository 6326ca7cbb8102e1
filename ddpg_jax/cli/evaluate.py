"""The command `evaluate`: the final policies of a run, as a table or as JSON, and videos of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from ddpg_jax.cli.tables import evaluation_table, window_gap_table
from ddpg_jax.runs.inference import LoadedRun, evaluate_run, load_run, play_run, select_seed
from ddpg_jax.runs.loggers.progress import SafeConsole
from ddpg_jax.runs.statistics import mean_info, summarize
from ddpg_jax.runs.videos import check_videos, record_videos
from ddpg_jax.runs.window_gap import WindowGap, check_memory, measure_window_gap

if TYPE_CHECKING:
    from rich.console import Console

    from ddpg_jax.types import Evaluation

_T = TypeVar("_T")

_SECONDS = 0.2
"""Between two changes of the line of progress."""


def evaluate(
    run_dir: Path,
    episodes: int,
    *,
    which: Literal["final", "best"],
    seed: int | None,
    video: Path | None,
    as_json: bool,
    window_gap: bool,
    overrides: dict[str, Any],
) -> int:
    """Evaluates the policies of a run and prints their returns; what it does meanwhile goes to standard error.

    Args:
      run_dir: directory of the run.
      episodes: of each seed.
      which: parameters, as in `load_run`.
      seed: the only one to be evaluated; None: all.
      video: folder for a video of each seed; None: none.
      as_json: whether to print JSON instead of a table.
      window_gap: whether to tell how far Q of windows is from Q of whole episodes, of agents with memory.
      overrides: fields that replace the run's.

    Returns:
      The exit code.
    """
    console, aside = SafeConsole(), SafeConsole(stderr=True)
    run = load_run(run_dir, which=which, **overrides)
    run = run if seed is None else select_seed(run, seed)
    if video is not None:
        check_videos(run, video)
    if window_gap:
        check_memory(run)
    evaluation, gap = _evaluate(run, episodes, aside, window_gap=window_gap)
    if not as_json:
        console.print(evaluation_table(run.config, evaluation))
        if gap is not None:
            console.print(window_gap_table(gap))
    paths = [] if video is None else record_videos(run, video, lambda line: aside.print(line, highlight=False))
    if as_json:
        found = as_dict(run, evaluation) | {
            "run": str(run_dir),
            "which": which,
            "videos": [str(path) for path in paths],
            **({} if gap is None else {"window_gap": _gap_rows(gap)}),
        }
        print(json.dumps(found, allow_nan=False))
        return 0
    for path in paths:
        console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    return 0


def as_dict(run: LoadedRun, evaluation: Evaluation) -> dict[str, Any]:
    """What `--json` prints of an evaluation; None stands for what is not finite."""
    returns, lengths = evaluation.returns, evaluation.lengths
    summary = summarize(returns)
    each = [
        {
            "seed": seed,
            "mean_return": _number(returns[i].mean()),
            "mean_length": _number(lengths[i].mean()),
            "q_bias": _number(evaluation.q_bias[i]),
            "returns": [_number(x) for x in returns[i]],
            "lengths": lengths[i].tolist(),
            **mean_info(evaluation, i),
        }
        for i, seed in enumerate(run.config.seed_list)
    ]
    interval = summary["interval"]
    return {
        "env": run.config.env.id,
        "algorithm": run.config.algorithm_name,
        "episodes": returns.shape[1],
        "interquartile_mean": _number(summary["interquartile_mean"]),
        "interval": None if interval is None else [_number(x) for x in interval],
        "confidence": summary["confidence"],
        "seeds": each,
    }


def _gap_rows(gap: WindowGap) -> list[dict[str, Any]]:
    """What `--json` prints of windows, for each number of steps since zeros."""
    return [
        {"steps_since_zeros": steps, "mean": _number(mean), "per_seed": [_number(x) for x in seeds]}
        for steps, mean, seeds in zip(gap.warmed, gap.mean, gap.gap, strict=True)
    ]


def _evaluate(
    run: LoadedRun, episodes: int, aside: Console, *, window_gap: bool
) -> tuple[Evaluation, WindowGap | None]:
    if not window_gap:
        return _with_progress(evaluate_run, run, episodes, aside), None
    evaluation, seen = _with_progress(play_run, run, episodes, aside)
    aside.print("comparing windows with whole episodes", highlight=False)
    return evaluation, measure_window_gap(run, evaluation.lengths, seen)


def _with_progress(
    evaluate: Callable[[LoadedRun, int, Callable[[int, int], None]], _T], run: LoadedRun, episodes: int, aside: Console
) -> _T:
    """Evaluates, with a line that tells how far it is: one that changes on a terminal, one at the start elsewhere."""
    seeds = len(run.config.seed_list)
    total, text = seeds * episodes, f"evaluating {episodes} episodes of each of {seeds} seeds"
    changed = 0.0
    if not aside.is_terminal:
        aside.print(text, highlight=False)
    with aside.status(text) if aside.is_terminal else nullcontext() as status:

        def show(steps: int, ended: int) -> None:
            nonlocal changed
            if status is not None and (now := time.monotonic()) - changed > _SECONDS:
                changed = now
                status.update(f"{text}: {ended} of {total} have ended, step {steps}")

        return evaluate(run, episodes, show)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
