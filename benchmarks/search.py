"""TPE with successive halving beside a grid of 16 combinations: as good a setting, for how many environment steps?

    python benchmarks/search.py --repetitions 5

Two learning rates of DDPG on Pendulum written in JAX, within the same bounds. Each repetition has training seeds and a
seed of the sampler of its own; both ways train with the same seeds. The score of a setting is the interquartile mean
over its seeds of the last evaluation. A winner was chosen by that very score, which flatters it: so it is trained once
more with fresh seeds, the same for both ways. Its steps are not counted, as they are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from contenders import record
from rich.console import Console
from rich.table import Table

from ddpg_jax.training.search.file import load_search
from ddpg_jax.training.search.run import run_search

COMMON = """
[config]
seeds = {seeds}
total_steps = {steps}
env.id = "jax:pendulum"
evaluation.every = {every}
checkpoint.min_seconds = 0
algorithm.hidden = [64, 64]
algorithm.batch_size = 64
algorithm.warmup_steps = 500

[engine]
kind = "local"
"""
GRID = """
[search]
sampler = "grid"
trials = 16
batch = 16
retrain = {fresh}

[search.space]
"algorithm.actor_learning_rate" = {{ choice = [1e-4, 3e-4, 1e-3, 3e-3] }}
"algorithm.critic_learning_rate" = {{ choice = [1e-4, 3e-4, 1e-3, 3e-3] }}
"""
TPE = """
[search]
sampler = "tpe"
trials = 16
batch = 4
seed = {number}
retrain = {fresh}

[search.space]
"algorithm.actor_learning_rate" = {{ low = 1e-4, high = 3e-3, log = true }}
"algorithm.critic_learning_rate" = {{ low = 1e-4, high = 3e-3, log = true }}

[stop]
rungs = [0.25]
keep = 0.25
"""
CASES = {"grid": GRID, "tpe": TPE}


def measure(options: argparse.Namespace, number: int, case: str) -> dict[str, Any]:
    """One repetition of a case: its best setting, that with fresh seeds, and the environment steps of the search."""
    seeds = list(range(options.seeds * number, options.seeds * (number + 1)))
    text = (COMMON + CASES[case]).format(
        seeds=seeds, steps=options.steps, every=options.every, number=number, fresh=options.fresh
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "search.toml"
        path.write_text(text)
        began = time.perf_counter()
        run = run_search(load_search(path), Path(folder) / "run", notify=lambda line: None)
        result = run.result
    best = next(entry for entry in result["combinations"] if entry["combination"] in result["finished"])
    scores = [entry["interquartile_mean"] for entry in result["combinations"] if not entry["stopped"]]
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "env_steps": result["env_steps"],
        "best": best["interquartile_mean"],
        "best_values": best["values"],
        "best_per_seed": best["per_seed"],
        "fresh": result["retrained"]["interquartile_mean"],
        "fresh_per_seed": result["retrained"]["per_seed"],
        "scores": scores,
        "search": text,
    }


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition, which gives its seeds")
    parser.add_argument("--seeds", type=int, default=3, help="of each setting")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--fresh", type=int, default=5, help="seeds that the best setting is trained again with")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_pendulum.json"))
    options = parser.parse_args()
    found: dict[str, Any] = record(sys.argv, ("optuna",)) | {"repetitions": []}
    for number in range(options.first, options.first + options.repetitions):
        found["repetitions"].append({})
        for case in CASES:
            found["repetitions"][-1][case] = measure(options, number, case)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    show(found["repetitions"], options.first)
    print(options.out)


def show(repetitions: list[dict[str, Any]], first: int) -> None:
    """Steps, winners and fresh seeds, side by side."""
    table = Table("repetition", "case", "env steps", "best", "with fresh seeds", "seconds")
    for number, cases in enumerate(repetitions, first):
        for name, case in cases.items():
            figures = [f"{case[key]:.1f}" for key in ("best", "fresh", "seconds")]
            table.add_row(str(number), name, str(case["env_steps"]), *figures)
    Console().print(table)
    both = [[each[name] for each in repetitions] for name in CASES]
    share = np.mean([other["env_steps"] / grid["env_steps"] for grid, other in zip(*both, strict=True)])
    wins = {key: sum(b[key] >= a[key] for a, b in zip(*both, strict=True)) for key in ("best", "fresh")}
    print(f"{share:.2f} of the grid's steps; at least as good in {wins} of {len(repetitions)}")


if __name__ == "__main__":
    main()
