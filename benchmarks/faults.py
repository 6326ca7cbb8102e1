"""What it costs to be safe: checkpoints, and the checks of what environments report.

    python benchmarks/faults.py [--rounds 15] [--out FILE.json]

* A checkpoint of the learner and 1,000,000 rows of HalfCheetah's size, in full and for 10,000 new rows, each synced and
  read back; in a folder of its own below the current one.
* The checks of one step of 5 seeds, against an iteration of the host loop on Pendulum with networks of 64-64, where an
  iteration is shortest.

What the guards inside an update cost is measured by `guards.py`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from contenders import record
from rich.console import Console

import ddpg_jax as dj
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.envs.factory import make_training_envs
from ddpg_jax.replay.factory import make_ring
from ddpg_jax.replay.host.ring import row_dtype
from ddpg_jax.rng import run_keys
from ddpg_jax.runs.checkpoints.rows import Rows
from ddpg_jax.runs.checkpoints.store import Checkpoint, CheckpointStore
from ddpg_jax.runs.pytrees import to_host
from ddpg_jax.training.host.loop import host_loop
from ddpg_jax.types import EnvSpec
from ddpg_jax.xla.tuning import configure_process

ROWS, NEW = 1_000_000, 10_000
HALF_CHEETAH = EnvSpec((17,), "float32", (-1.0,) * 6, (1.0,) * 6)


def checkpoints(rounds: int) -> dict[str, Any]:
    """Seconds of a checkpoint, the first and the next one."""
    config = dj.load_config(seeds=1, algorithm={"hidden": [256, 256]})
    learner = to_host(jax.vmap(make_agent(config, HALF_CHEETAH).init)(run_keys([0])), "learner")
    row_bytes = row_dtype(HALF_CHEETAH).itemsize
    rows = np.random.default_rng(0).integers(0, 256, (ROWS + NEW, 1, 1, row_bytes), np.uint8)

    def checkpoint(step: int) -> Checkpoint:
        read: Callable[[int, int], Any] = lambda a, b: {"rows": rows[a:b].copy()}  # noqa: E731
        return Checkpoint(step, learner, Rows(step - ROWS, step, read), {})

    full, incremental, verified = np.empty((3, rounds))
    for i in range(rounds):
        folder = Path(tempfile.mkdtemp(dir="."))
        store = CheckpointStore(folder / "checkpoints")
        full[i] = _seconds(lambda: store.save(checkpoint(ROWS)))  # noqa: B023
        incremental[i] = _seconds(lambda: store.save(checkpoint(ROWS + NEW)))  # noqa: B023
        verified[i] = _seconds(store.newest)
        shutil.rmtree(folder)
    names = ("full", "incremental", "verify")
    seconds = {name: float(np.median(x)) for name, x in zip(names, (full, incremental, verified), strict=True)}
    return {"megabytes": rows[:ROWS].nbytes / 1e6, "seconds": seconds, "worst": float(full.max())}


def checks(rounds: int) -> dict[str, float]:
    """Microseconds of the checks of a step, and of an iteration of the host loop."""
    config = dj.load_config(seeds=5, total_steps=500 + 1000 * (rounds + 1), evaluation={"every": 0})
    lanes = make_training_envs(config)
    loop = host_loop(config, make_agent(config, lanes.spec), lanes, make_ring(config, lanes.spec))
    next(loop)
    iterations, checked = np.empty((2, rounds))
    obs = lanes.reset().reshape(5, -1)
    rewards = np.zeros(5, np.float32)

    def check() -> None:
        for lane in range(5):
            lanes._checked(lane, obs[lane])  # pyright: ignore
        assert np.isfinite(rewards).all()
        assert np.isfinite(obs).all()

    for i in range(rounds):
        iterations[i] = _seconds(lambda: next(loop)) / 1000
        checked[i] = _seconds(lambda: [check() for _ in range(1000)]) / 1000
    lanes.close()
    each, of_all = float(np.median(checked)) * 1e6, float(np.median(iterations)) * 1e6
    return {"checks_microseconds": each, "iteration_microseconds": of_all, "share": each / of_all}


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Measures everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/faults_2cores.json"))
    options = parser.parse_args()
    configure_process(dj.load_config(), tune_process=True)  # as the program does
    results: dict[str, Any] = {
        "checkpoint": checkpoints(min(5, options.rounds)),
        "checks": checks(options.rounds),
    }
    options.out.write_text(json.dumps({**record(sys.argv, ()), **results}, indent=1) + "\n")
    Console().print_json(data=results)


if __name__ == "__main__":
    main()
