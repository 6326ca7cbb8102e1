"""Learning on Pendulum by the host loop, the device loop, and the device loop in bfloat16, at equal settings.

    python benchmarks/loops.py [--seeds 16] [--total-steps 12000] [--episodes 100] [--out FILE.json]

All final policies are judged by gymnasium's Pendulum-v1 on the same bank of evaluation episodes, so that a difference
between the environments would show as well. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from contenders import record
from rich.console import Console
from rich.table import Table

import ddpg_jax as dj
from ddpg_jax.runs.statistics import summarize

GYMNASIUM = "Pendulum-v1"
WAYS: dict[str, dict[str, Any]] = {
    "host": {"env": {"id": GYMNASIUM}},
    "device": {"env": {"id": "jax:pendulum"}},
    "device, bfloat16": {"env": {"id": "jax:pendulum"}, "precision": "bfloat16"},
}


def main() -> None:
    """Trains and judges every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--total-steps", type=int, default=12_000)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = {name: judge(changes, options) for name, changes in WAYS.items()}
    table = Table("loop", "interquartile mean", "95% interval", "worst seed")
    for name, summary in results.items():
        low, high = summary["interval"]
        score, worst = summary["interquartile_mean"], min(summary["per_seed"])
        table.add_row(name, f"{score:.1f}", f"[{low:.1f}, {high:.1f}]", f"{worst:.1f}")
    Console().print(table)
    found: dict[str, Any] = record(sys.argv, ()) | {
        "total_steps": options.total_steps,
        "final": results,
    }
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def judge(changes: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Trains the defaults with some changes and evaluates the final policies in gymnasium's environment."""
    config = dj.load_config(seeds=options.seeds, total_steps=options.total_steps, **changes)
    with tempfile.TemporaryDirectory() as folder:
        run = dj.train(config, Path(folder) / "run", console=Console())
        returns = dj.evaluate(run.directory, options.episodes, env={"id": GYMNASIUM})
    return dict(summarize(returns))


if __name__ == "__main__":
    main()
