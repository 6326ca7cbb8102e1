"""Hindsight replay beside uniform replay, on a task whose reward is found by chance only: a gripper that must reach.

    python benchmarks/hindsight.py --seeds 5

Both cases have the same settings but for the kind of the replay. A success is an episode whose last step ends near the
goal; the final policies are tried on 100 episodes that no training saw. `--env gymnasium_robotics:FetchReach-v4` trains
on the robot's own task instead, and `--cases draws` measures what a draw costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from contenders import record
from rich.console import Console
from rich.table import Table

from ddpg_jax.config.load import load_config
from ddpg_jax.config.schema import Config
from ddpg_jax.envs.factory import open_goal_task
from ddpg_jax.envs.host.make import describe, make_env
from ddpg_jax.replay.factory import make_ring
from ddpg_jax.runs.policy import load_policy
from ddpg_jax.training.train import train
from ddpg_jax.types import Step

TASK = "reach:Reach-v0"
KINDS = ("hindsight", "uniform")
EPISODES, FIRST_SEED = 100, 10**6


def run_config(options: argparse.Namespace, kind: str) -> Config:
    """The run of one case."""
    return load_config(
        seeds=options.seeds,
        total_steps=options.steps,
        env={"id": options.env},
        algorithm={"name": options.algorithm, "hidden": [64, 64], "batch_size": 64, "gamma": 0.98},
        exploration={"kind": "gaussian", "sigma": 0.2, "epsilon": 0.2},
        replay={"kind": kind},
        evaluation={"every": 2000, "episodes": 20},
        checkpoint={"every": 0},
        logging={"every": 2000, "tensorboard": False},
    )


def measured(config: Config) -> dict[str, Any]:
    """Trains all seeds of a configuration; their returns, and the success rates of their final policies."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, Path(folder) / "run", console=Console(), tune_process=True)
        rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
        rates = [success_rate(config, run.directory, seed) for seed in range(len(config.seed_list))]
    rows = [row for row in rows if row["event"] == "evaluation"]
    returns = {step: [row["returns"] for row in rows if row["step"] == step] for step in {row["step"] for row in rows}}
    evaluations = [{"step": step, "per_seed": np.mean(returns[step], 1).round(2).tolist()} for step in sorted(returns)]
    return {"success_rates": rates, "evaluations": evaluations, "config": config.model_dump(mode="json")}


def success_rate(config: Config, directory: Path, seed: int) -> float:
    """Share of the episodes whose last step is a success, under the greedy policy of one seed."""
    envs = [make_env(config.env.id, None, {}) for _ in range(EPISODES)]
    policy, layout = load_policy(directory, seed, env={"id": config.env.id}), describe(envs[0]).layout
    seen = [env.reset(seed=FIRST_SEED + i)[0] for i, env in enumerate(envs)]
    going_on, success = True, np.zeros(EPISODES)
    while going_on:
        actions = policy({part.name: np.stack([obs[part.name] for obs in seen]) for part in layout})
        steps = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        seen = [step[0] for step in steps]
        success[:] = [step[4]["is_success"] for step in steps]
        going_on = not any(step[2] or step[3] for step in steps)  # all episodes have the same length
    for env in envs:
        env.close()
    return float(success.mean())


def draw_times(options: argparse.Namespace, rounds: int = 300) -> dict[str, float]:
    """Microseconds to draw and read 256 transitions, of a ring of 100,000 in episodes of 50; medians, interleaved."""
    with ExitStack() as stack:
        rings = {}
        for kind in KINDS:
            config = run_config(options, kind)
            task = stack.enter_context(open_goal_task(config))
            env = stack.enter_context(closing(make_env(config.env.id, None, {})))
            rings[kind] = make_ring(config.model_copy(update={"seeds": 1}), describe(env), task)
        rng = np.random.default_rng(0)
        for i in range(config.replay.capacity):
            obs = rng.uniform(-0.5, 0.5, (1, 1, *rings["uniform"].spec.obs_shape)).astype(np.float32)
            ends = np.zeros((1, 1), bool), np.full((1, 1), i % 50 == 49)
            for ring in rings.values():
                ring.add(obs, np.zeros((1, 1, 3), np.float32), Step(obs, obs, np.full((1, 1), -1.0), *ends))
        times: dict[str, list[float]] = {f"{kind}, {how}": [] for kind in KINDS for how in ("rows", "folded")}
        for call in range(rounds):
            for kind, ring in rings.items():
                for how, read in (("rows", ring.words), ("folded", ring.gather)):
                    began = time.perf_counter()
                    read(ring.draw(1, 256, call))
                    times[f"{kind}, {how}"].append(time.perf_counter() - began)
    return {name: round(float(np.median(each)) * 1e6, 1) for name, each in times.items()}


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--env", default=TASK)
    parser.add_argument("--algorithm", default="ddpg", choices=("ddpg", "td3"))
    parser.add_argument("--cases", default="draws,hindsight,uniform", help="those that are run, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hindsight_reach.json"))
    options = parser.parse_args()
    found: dict[str, Any] = record(sys.argv, ()) | {
        "cases": {},
    }
    names = options.cases.split(",")
    if "draws" in names:
        found["microseconds_of_a_draw"] = draw_times(options)
        print(found["microseconds_of_a_draw"])
    for kind in [kind for kind in KINDS if kind in names]:
        found["cases"][kind] = measured(run_config(options, kind))
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    show(found["cases"])
    print(options.out)


def show(found: dict[str, Any]) -> None:
    """Success rates, side by side."""
    table = Table("replay", "success rate of each seed")
    for kind, case in found.items():
        table.add_row(kind, " ".join(f"{rate:.2f}" for rate in case["success_rates"]))
    Console().print(table)


if __name__ == "__main__":
    main()
