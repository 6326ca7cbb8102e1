"""What the guards inside an update cost: with them and without, in turns, medians of interleaved repeats.

    python benchmarks/guards.py [--rounds 41] [--widths 64 256] [--one-core] [--out FILE.json]

Each contender is `Agent.update` alone, jitted and donated, a call of eight updates with batches already on the device.
The guards have no switch: for the other side, three small functions of the assembly are replaced by constants before it
is traced, and the compiler leaves out all that hangs on them.

A step that may be rejected waits for the norm of its gradient. On several cores that forbids some overlap of kernels;
`--one-core` (Linux) shows the work alone.
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

from ddpg_jax.agents import policy_gradient

ALGORITHMS = ("ddpg", "td3")
LIMIT = 1.03
WITHOUT: dict[str, Callable[..., Any]] = {
    "_finite": lambda *sizes: jnp.bool_(True),
    "is_frozen": lambda state, max_rejected: jnp.bool_(False),
    "_harmless": lambda td_error: td_error,
}


def unguarded(width: int, algorithm: str) -> Callable[[], float]:
    """The contender without guards; it is traced and compiled here."""
    with mock.patch.multiple(policy_gradient, **WITHOUT):
        return contender(width, {"name": algorithm})


def measured(width: int, algorithm: str, rounds: int) -> dict[str, float]:
    """Microseconds of an update with guards and without, and the median of the ratios of neighbours."""
    calls = [unguarded(width, algorithm), contender(width, {"name": algorithm})]
    times = np.empty((rounds, 2))
    for i in range(rounds):
        for j in (0, 1) if i % 2 else (1, 0):
            times[i, j] = calls[j]()
    ratios = times[:, 1] / times[:, 0]
    low, high = np.quantile(ratios, [0.25, 0.75])
    without, guarded = np.median(times, axis=0)
    return {
        "microseconds_without": float(without),
        "microseconds": float(guarded),
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
