"""What a sink costs training that cannot be reached, does not answer, or has a full disk: beside it and alone.

    python benchmarks/sinks.py [--pairs 5] [--steps 10000] [--out FILE.json]

Runs with the sink and without it take turns in one process, whose compiled programs they share. Two figures are
compared, both from the first report to the last, without compiling and the wait for the sink at the end: the seconds,
and the processor time of the trainer alone, which other work on the machine moves less. Both may rise by 5%, and one
line must be said.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from contenders import record
from rich.console import Console
from rich.table import Table

import ddpg_jax as dj
from ddpg_jax.xla.tuning import configure_process

LIMIT = 1.05
FIGURES = ("seconds", "processor")


class FullDisk:
    """A sink whose disk is full."""

    def destination(self, run: Any) -> str:
        """A device that is always full."""
        return "/dev/full"

    def open(self, run: Any, *, resumes: bool) -> bool:
        """Does nothing."""
        return resumes

    def send(self, rows: list[dict[str, Any]], when: float, *, again: bool) -> None:
        """Writes, and fails."""
        with open(self.destination(None), "w") as file:
            file.write(json.dumps(rows))

    def close(self) -> None:
        """Does nothing."""


class Server(FullDisk):
    """A sink that asks the server of `SINK_SERVER` for an answer to each batch."""

    def send(self, rows: list[dict[str, Any]], when: float, *, again: bool) -> None:
        """Sends, and waits for an answer."""
        host, port = os.environ["SINK_SERVER"].split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(json.dumps(rows).encode())
            connection.recv(1)


def cases(silent: int, closed: int) -> dict[str, tuple[str, dict[str, str]]]:
    """A sink and its environment, by what ails it."""
    found = {
        "server unreachable": ("sinks:Server", {"SINK_SERVER": f"127.0.0.1:{closed}"}),
        "server does not answer": ("sinks:Server", {"SINK_SERVER": f"127.0.0.1:{silent}"}),
        "disk full": ("sinks:FullDisk", {}),
    }
    if importlib.util.find_spec("mlflow"):
        found["MLflow, unreachable"] = ("mlflow", {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{closed}"})
    return found


class Clock:
    """A callback that reads clocks at each report: seconds, and processor time of this process."""

    def __init__(self) -> None:
        self.read: list[tuple[float, float]] = []

    def __call__(self, report: Any) -> None:
        """Reads them."""
        self.read.append((time.perf_counter(), time.process_time()))


def run(folder: Path, steps: int, sink: str | None, environment: Mapping[str, str]) -> tuple[Any, int]:
    """Trains; the figures `[2]`, and how many lines of warning were said."""
    sections = {"logging": {"every": 200, "sinks": [sink] if sink else []}, "evaluation": {"every": 0, "episodes": 1}}
    config, clock, said = dj.load_config(seeds=1, total_steps=steps, **sections), Clock(), list[str]()
    listener = logging.Handler()
    listener.emit = lambda entry: said.append(entry.getMessage())
    logging.getLogger("ddpg_jax").addHandler(listener)
    with mock.patch.dict(os.environ, environment):
        dj.train(config, folder, quiet=True, callbacks=[clock])
    logging.getLogger("ddpg_jax").removeHandler(listener)
    first = next(i for i in range(len(clock.read)) if (i + 1) * 200 > config.algorithm.warmup_steps)
    return np.subtract(clock.read[-2], clock.read[first]), sum("lacks rows" in line for line in said)


def measured(folder: Path, options: argparse.Namespace, sink: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Medians of the figures without the sink and with it, and the ratios of neighbours."""
    found = np.empty((options.pairs, 2, len(FIGURES)))
    for i in range(options.pairs):
        for j in (0, 1) if i % 2 else (1, 0):
            found[i, j], warned = run(folder / f"{i}-{j}", options.steps, (None, sink)[j], environment)
            if warned != j:
                raise SystemExit(f"{sink}: {warned} warnings were said, expected {j}")
    ratios = found[:, 1] / found[:, 0]
    return {
        name: {
            "alone": np.median(found[:, 0, k]).item(),
            "beside": np.median(found[:, 1, k]).item(),
            "ratio": np.median(ratios[:, k]).item(),
            "ratios": ratios[:, k].tolist(),
        }
        for k, name in enumerate(FIGURES)
    }


def main() -> None:
    """Measures every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))  # where the processes of sinks find this module
    configure_process(dj.load_config(), tune_process=True)
    results: dict[str, Any] = {}
    with socket.create_server(("127.0.0.1", 0)) as silent, tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            closed = gone.getsockname()[1]
        run(Path(folder) / "warm", options.steps, None, {})  # what is compiled is kept
        for name, (sink, environment) in cases(silent.getsockname()[1], closed).items():
            results[name] = measured(Path(folder) / sink / name, options, sink, environment)
            Console().print(name, {each: results[name][each]["ratios"] for each in FIGURES})
    table = Table("sink", "alone, s", "beside it, s", "ratio", "processor time, ratio", f"at most {LIMIT}")
    for name, each in results.items():
        wall, work = (each[figure] for figure in FIGURES)
        ratios = f"{wall['ratio']:.3f}", f"{work['ratio']:.3f}"
        within = "yes" if max(wall["ratio"], work["ratio"]) <= LIMIT else "no"
        table.add_row(name, f"{wall['alone']:.1f}", f"{wall['beside']:.1f}", *ratios, within)
    Console().print(table)
    if options.out:
        facts = record(sys.argv, ()) | {"limit": LIMIT, "steps": options.steps, "sinks": results}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
