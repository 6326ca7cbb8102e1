"""What a variant costs: one update of each in turns, as a ratio to DDPG's, medians of interleaved repeats.

    python benchmarks/variants.py [--rounds 15] [--widths 64 256] [--out FILE.json]

Each contender is `Agent.update` alone, jitted and donated, a call of eight updates with batches already on the device.
Two critics and a policy delay come with the smoothed target, which costs random numbers: compare them with it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contenders import record
from rich.console import Console
from rich.table import Table

import ddpg_jax as dj
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.types import Batch, EnvSpec, Transition

SPEC = EnvSpec((17,), "float32", (-1.0,) * 6, (1.0,) * 6)
PER_CALL = 8
PLAIN = {"name": "td3", "num_critics": 1, "policy_delay": 1}
SUPPORT = {"v_min": -100.0, "v_max": 1000.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "ddpg": {"name": "ddpg"},
    "smoothed target": PLAIN,
    "two critics": PLAIN | {"num_critics": 2},
    "policy delay 2": PLAIN | {"policy_delay": 2},
    "td3": {"name": "td3"},
    "d4pg": {"name": "d4pg", **SUPPORT},
    "fasttd3": {"name": "fasttd3", **SUPPORT},
    "layer norm": {"name": "ddpg", "normalization": "layer"},
    "batch norm": {"name": "ddpg", "normalization": "batch"},
    "observation moments": {"name": "ddpg", "normalize_observations": True},
}


def batches(count: int, size: int) -> Batch:
    """Some batches of random transitions."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=(count, size, *shape)), jnp.float32)

    data = Transition(normal(17), jnp.tanh(normal(6)), normal(), jnp.full((count, size), 0.99), normal(17))
    return Batch(data, jnp.ones((count, size)), ())


def contender(width: int, changes: dict[str, Any], per_call: int = PER_CALL) -> Callable[[], float]:
    """32 updates in calls of some, as a function that returns the microseconds of one."""
    widths = {"hidden": [width, width], "critic_hidden": [width, width]}
    config = dj.load_config(algorithm=widths | {"batch_size": width, **changes})
    agent, key, batch = make_agent(config, SPEC), jax.random.key(0), batches(per_call, width)
    state, update = jax.jit(agent.init)(key), jax.jit(agent.update, donate_argnums=0)

    def call() -> float:
        nonlocal state
        began = time.perf_counter()
        for _ in range(32 // per_call):
            state, *_ = update(state, batch, key)
        jax.block_until_ready(state)
        return (time.perf_counter() - began) / 32 * 1e6

    call()
    return call


def measured(width: int, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds of an update, and the median of its ratios to DDPG's of the same round."""
    calls = {name: contender(width, changes) for name, changes in VARIANTS.items()}
    times = {name: np.empty(rounds) for name in calls}
    for i in range(rounds):
        for name, call in calls.items():
            times[name][i] = call()
    return {
        name: {"microseconds": float(np.median(t)), "ratio": float(np.median(t / times["ddpg"]))}
        for name, t in times.items()
    }


def main() -> None:
    """Measures every variant at every width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = {width: measured(width, options.rounds) for width in options.widths}
    table = Table("variant", *(f"{width}-{width}: us, times ddpg" for width in results))
    for name in VARIANTS:
        table.add_row(name, *(f"{r[name]['microseconds']:.0f}, {r[name]['ratio']:.2f}" for r in results.values()))
    Console().print(table)
    if options.out:
        facts = record(sys.argv, ()) | {"widths": results}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
