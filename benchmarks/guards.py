"""What the guards inside an update cost: with them and without, in turns, medians of interleaved repeats.

    python benchmarks/guards.py [--rounds 41] [--widths 64 256] [--one-core] [--out FILE.json]

Each contender is `Agent.update` alone, jitted and donated, in calls as the host loop makes them, with batches already
on the device; narrow networks alone (`--widths 64`) have one thread, as the program gives them. The guards have no
switch: for the other side, three small functions of the assembly are replaced by constants before it is traced, and the
compiler leaves out all that hangs on them.

A step that may be rejected waits for the norm of its gradient, which on several cores changes what runs beside what,
for better or worse; `--one-core` (Linux) shows the work alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax.numpy as jnp
import numpy as np
from contenders import record
from rich.console import Console
from rich.table import Table
from variants import contender

import ddpg_jax as dj
from ddpg_jax.agents import policy_gradient
from ddpg_jax.xla.tuning import configure_process

ALGORITHMS = {"ddpg": 1, "td3": 2}
"""With the updates of a call."""
LIMIT = 1.03
WITHOUT: dict[str, Callable[..., Any]] = {
    "all_finite": lambda *sizes: jnp.bool_(True),
    "is_frozen": lambda state, max_rejected: jnp.bool_(False),
    "harmless": lambda td_error: td_error,
}


def guarded(width: int, algorithm: str) -> Callable[[], float]:
    """The contender as it is."""
    return contender(width, {"name": algorithm}, ALGORITHMS[algorithm])


def unguarded(width: int, algorithm: str) -> Callable[[], float]:
    """The contender without guards; it is traced and compiled here."""
    with mock.patch.multiple(policy_gradient, **WITHOUT):
        return guarded(width, algorithm)


def measured(width: int, algorithm: str, rounds: int) -> dict[str, float]:
    """Microseconds of an update with guards and without, and the median of the ratios of neighbours."""
    calls = [unguarded(width, algorithm), guarded(width, algorithm)]
    times = np.empty((rounds, 2))
    for i in range(rounds):
        for j in (0, 1) if i % 2 else (1, 0):
            times[i, j] = calls[j]()
    ratios = times[:, 1] / times[:, 0]
    low, high = np.quantile(ratios, [0.25, 0.75])
    bare, whole = np.median(times, axis=0)
    return {
        "microseconds_without": float(bare),
        "microseconds": float(whole),
        "ratio": float(np.median(ratios)),
        "ratio_quartile_low": float(low),
        "ratio_quartile_high": float(high),
    }


def main() -> None:
    """Measures every algorithm at every width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--one-core", action="store_true", help="keep the process on one core")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one_core:  # before jax counts the cores, which it does with its first array
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    configure_process(dj.load_config(algorithm={"hidden": [max(options.widths)]}), tune_process=True)
    results = {width: {name: measured(width, name, options.rounds) for name in ALGORITHMS} for width in options.widths}
    table = Table("update", "without, us", "with guards, us", "ratio", f"at most {LIMIT}")
    for width, each in results.items():
        for name, found in each.items():
            figures = f"{found['microseconds_without']:.1f}", f"{found['microseconds']:.1f}", f"{found['ratio']:.4f}"
            table.add_row(f"{name} {width}-{width}", *figures, "yes" if found["ratio"] <= LIMIT else "no")
    Console().print(table)
    if options.out:
        facts = record(sys.argv, ()) | {"limit": LIMIT, "widths": results}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
