"""Kinds of exploration on a task whose reward is found by chance only: MountainCarContinuous.

    python benchmarks/exploration.py --seeds 5

Each of the two files of the task is run as it is, with Ornstein-Uhlenbeck noise or parameter noise, and with small
Gaussian noise in its place and nothing else changed. A return above 90 is a solved task; one near 0 is a car that has
learned to save fuel. Evaluations are of the greedy policy. `--cases ou,parameter` runs those two only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ddpg_jax.config.load import load_config, resolve
from ddpg_jax.config.schema import Config
from ddpg_jax.runs.result import system_info
from ddpg_jax.runs.statistics import summarize
from ddpg_jax.training.train import train

FILES = Path(__file__).parents[1] / "configs" / "classic" / "mountain_car_continuous"
GAUSSIAN = {"kind": "gaussian", "sigma": 0.1}
SOLVED = 90.0


def cases(seeds: int) -> dict[str, Config]:
    """What is compared, by name."""
    found: dict[str, Config] = {}
    for kind, name in (("ou", "ddpg.toml"), ("parameter", "parameter_noise.toml")):
        found[kind] = load_config(FILES / name, seeds=seeds)
        values = found[kind].model_dump(exclude={"exploration"}, exclude_none=True)
        found[f"gaussian in the place of {kind}"] = resolve(values, {"exploration": GAUSSIAN}, source=name)
    return found


def measured(config: Config) -> dict[str, Any]:
    """Trains all seeds of a configuration; its evaluations, and how many seeds it solves."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, Path(folder) / "run", console=Console())
        lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["event"] == "evaluation"]
    steps = sorted({row["step"] for row in rows})
    returns = {step: np.array([row["returns"] for row in rows if row["step"] == step]) for step in steps}
    evaluations = [{"step": step, "per_seed": returns[step].mean(1).round(2).tolist()} for step in steps]
    final = {"step": steps[-1], **summarize(returns[steps[-1]])}
    solved = sum(score > SOLVED for score in final["per_seed"])
    return {"solved": solved, "final": final, "evaluations": evaluations, "config": config.model_dump(mode="json")}


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/exploration_mountain_car.json"))
    parser.add_argument("--cases", help="names of those that are run, separated by commas; all if left out")
    options = parser.parse_args()
    found = cases(options.seeds)
    names = options.cases.split(",") if options.cases else list(found)
    if unknown := sorted(set(names) - set(found)):
        parser.error(f"--cases: {', '.join(unknown)} is none of {', '.join(found)}")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    record: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "cases": {},
        **system_info(),
    }
    for name in names:
        record["cases"][name] = measured(found[name])
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    show(record["cases"])
    print(options.out)


def show(found: dict[str, Any]) -> None:
    """Final evaluations, side by side."""
    table = Table("exploration", "solved", "each seed")
    for name, case in found.items():
        scores = case["final"]["per_seed"]
        table.add_row(name, f"{case['solved']} of {len(scores)}", " ".join(f"{x:.1f}" for x in scores))
    Console().print(table)


if __name__ == "__main__":
    main()
