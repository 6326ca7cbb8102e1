"""A population of 16 random draws beside the same 16 without it: does copying the best pay, and by how much?

    python benchmarks/population.py --repetitions 5

Each repetition has draws and a seed of its own; all cases begin with the same networks and the same settings. The score
of a member is its last evaluation. A best member was chosen by that very score, which flatters it: its last settings
are trained once more with fresh seeds.
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

from ddpg_jax.config.load import load_config
from ddpg_jax.training.sweep.grid import load_sweep
from ddpg_jax.training.sweep.run import SweepRun, run_sweep
from ddpg_jax.training.train import train

SWEEP = """
draws = 16
draw_seed = {number}

[config]
seeds = [{number}]
total_steps = {steps}
env.id = "jax:pendulum"
evaluation.every = {every}
checkpoint.every = 0

[random]
algorithm.actor_learning_rate = {{ low = 1e-5, high = 1e-2, log = true }}
algorithm.critic_learning_rate = {{ low = 1e-5, high = 1e-2, log = true }}
algorithm.tau = {{ low = 1e-3, high = 1e-1, log = true }}
"""
POPULATION = "\n[population]\nevery = {every}\nreplay = {replay}\n"
CASES = ("without", "replay", "learner")
FIRST_FRESH, FRESH = 1000, 5


def measure(options: argparse.Namespace, number: int, case: str) -> dict[str, Any]:
    """One repetition of a case: the scores of its members, and its best settings with fresh seeds."""
    text = SWEEP.format(steps=options.steps, every=options.every, number=number)
    if case != "without":
        text += POPULATION.format(every=options.every, replay=str(case == "replay").lower())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.toml"
        path.write_text(text)
        began = time.perf_counter()
        run = run_sweep(load_sweep(path), Path(folder) / "run")
        seconds = time.perf_counter() - began
        return {"seconds": round(seconds, 1), **scores(run), "fresh": score_afresh(run, number), "sweep": text}


def scores(run: SweepRun) -> dict[str, Any]:
    """The final scores of the members, best first; a member that diverged counts as the worst."""
    found = [entry["interquartile_mean"] for entry in run.result["combinations"]]
    worst = min(score for score in found if score is not None)
    each = [worst if score is None else score for score in found]
    values, population = run.result["combinations"][0]["values"], run.result.get("population", {})
    told = {"median": float(np.median(each)), "best": each[0], "scores": each, "best_values": values}
    return told | {name: population[name] for name in ("replacements", "schedule") if name in population}


def score_afresh(run: SweepRun, number: int) -> list[float]:
    """Final scores of the best settings, with seeds that had no part in choosing them."""
    seeds = tuple(FIRST_FRESH + FRESH * number + i for i in range(FRESH))
    config = load_config(run.directory / "best.toml", seeds=seeds)
    return train(config, run.directory / "fresh").result["final"]["per_seed"]


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--cases", default="without,replay", help=f"of {', '.join(CASES)}")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/population_pendulum.json"))
    options = parser.parse_args()
    found: dict[str, Any] = record(sys.argv, ()) | {
        "repetitions": [],
    }
    for number in range(options.repetitions):
        found["repetitions"].append({})
        for case in options.cases.split(","):
            found["repetitions"][-1][case] = measure(options, number, case)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    show(found["repetitions"])
    print(options.out)


def show(repetitions: list[dict[str, Any]]) -> None:
    """Medians, best members and fresh seeds, side by side."""
    table = Table("repetition", "case", "median of 16", "best", "its settings, fresh seeds: mean", "seconds")
    for number, cases in enumerate(repetitions):
        for name, case in cases.items():
            figures = case["median"], case["best"], float(np.mean(case["fresh"])), case["seconds"]
            table.add_row(str(number), name, *(f"{figure:.1f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
