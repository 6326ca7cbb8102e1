"""A sweep on the host loop beside the same runs one after the other: 4 rates x 3 seeds of HalfCheetah at 64-64.

    python benchmarks/host_sweep.py [--rounds 3] [--steps 3000] [--alone 3] [--out FILE.json]

In each round, as commands of their own, in this order: the sweep, whose 12 lanes are one program; a run for each rate,
its three seeds side by side; and runs of one seed, of which so many are made and counted for all twelve. Seconds are
those of a clock on the wall, from the start of a process to its end: what it imports and compiles is in them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tomli_w
from contenders import record
from rich.console import Console
from rich.table import Table

RATES, SEEDS = (1e-4, 3e-4, 1e-3, 3e-3), 3
FIELD = "algorithm.actor_learning_rate"


def words(steps: int) -> list[str]:
    """What all runs have in common, as fields of the command line."""
    fields: dict[str, object] = {
        "total_steps": steps,
        "algorithm.warmup_steps": 500,
        "replay.capacity": 10_000,
        "evaluation.every": steps,
        "evaluation.episodes": 1,
        "logging.every": steps,
        "checkpoint.every": 0,
    }
    return [f"--{name}={value}" for name, value in fields.items()] + ["--algorithm.hidden=[64,64]"]


def seconds(*command: str) -> float:
    """How long a command of `ddpg-jax` takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ddpg_jax", *command, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(folder: Path, steps: int, alone: int) -> dict[str, float]:
    """Seconds of a round, by way."""
    shared, rates = words(steps), [f"--{FIELD}={rate}" for rate in RATES]
    sweep = folder / "sweep.toml"
    sweep.write_text(tomli_w.dumps({"base": "half_cheetah", "grid": {FIELD: list(RATES)}}))
    names = (str(folder / str(i)) for i in range(1000))
    found = {"sweep": seconds("sweep", str(sweep), "--run-dir", next(names), f"--seeds={SEEDS}", *shared)}
    train = "train", "half_cheetah", "--run-dir"
    found["three seeds"] = sum(seconds(*train, next(names), f"--seeds={SEEDS}", rate, *shared) for rate in rates)
    one = [seconds(*train, next(names), f"--seeds=[{i}]", rates[i % 4], *shared) for i in range(alone)]
    found["one seed"] = sum(one) * len(RATES) * SEEDS / alone
    return found


def main() -> None:
    """Measures all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--alone", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rounds: list[dict[str, float]] = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(measure(Path(folder), options.steps, options.alone))
        Console().print(rounds[-1])
    total = options.steps * len(RATES) * SEEDS
    table = Table("way", "seed-steps/s", "the sweep is faster by")
    ways: dict[str, dict[str, float]] = {}
    for way in rounds[0]:
        spent = np.array([each[way] for each in rounds])
        ratio = np.median(spent / np.array([each["sweep"] for each in rounds])).item()
        ways[way] = {"seed_steps_per_second": total / np.median(spent).item(), "ratio": ratio}
        table.add_row(way, f"{ways[way]['seed_steps_per_second']:.0f}", f"{ratio:.2f}")
    Console().print(table)
    if options.out:
        facts = record(sys.argv, ()) | {"steps": options.steps, "rounds": rounds, "ways": ways}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
