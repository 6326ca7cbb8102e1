"""What a sink costs training that cannot be reached, does not answer, or has a full disk: beside it and alone.

    python benchmarks/sinks.py [--pairs 6] [--window 1000] [--out FILE.json]

One run for each case, in windows of so many steps: beside the sink's process, which is started anew for each of them
and imports what it needs, and alone, in the order alone, beside, beside, alone. Two figures are compared: seconds, and
the processor time of the trainer, which other work on the machine moves less. Both may rise by 5%. That one line is
said at the end is tested (`tests/runs/loggers/test_followers.py`).
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
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
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.sinks.process import Child
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


class Turns:
    """A callback that trains beside a sink and alone, in turns, and reads the clocks of each.

    Args:
      sink: its name.
      skipped: reports before the first turn, while nothing is learned yet and programs are compiled.
    """

    def __init__(self, sink: str, skipped: int) -> None:
        self.spent: tuple[list[Any], list[Any]] = [], []
        self._sink, self._left, self._child = sink, skipped, None
        self._order, self._beside, self._since = itertools.cycle((0, 1, 1, 0)), 0, np.zeros(2)

    def __call__(self, report: Any) -> None:
        """Ends a turn and begins the next."""
        now = np.array([time.perf_counter(), time.process_time()])
        self._left -= 1
        if self._left < 0:
            self.spent[self._beside].append(now - self._since)
        self.end()
        if self._left <= 0:
            self._beside = next(self._order)
            self._child = Child(RunDirectory(report.directory), self._sink) if self._beside else None
        self._since = np.array([time.perf_counter(), time.process_time()])

    def end(self) -> None:
        """Ends the sink's process."""
        if self._child is not None:
            self._child.kill()
        self._child = None


def measured(folder: Path, options: argparse.Namespace, sink: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Medians of the figures alone and beside the sink, and the ratios of neighbours."""
    skipped, every = 2, options.window
    steps = (skipped + 2 * options.pairs) * every
    sections = {"logging": {"every": every}, "evaluation": {"every": 0, "episodes": 1}, "checkpoint": {"every": 0}}
    turns = Turns(sink, skipped)
    with mock.patch.dict(os.environ, environment):
        dj.train(dj.load_config(seeds=1, total_steps=steps, **sections), folder, quiet=True, callbacks=[turns])
    turns.end()
    alone, beside = (np.array(spent[: options.pairs]) for spent in turns.spent)
    ratios = beside / alone
    return {
        name: {
            "alone": np.median(alone[:, k]).item(),
            "beside": np.median(beside[:, k]).item(),
            "ratio": np.median(ratios[:, k]).item(),
            "ratios": ratios[:, k].tolist(),
        }
        for k, name in enumerate(FIGURES)
    }


def main() -> None:
    """Measures every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))  # where the processes of sinks find this module
    configure_process(dj.load_config(), tune_process=True)
    results: dict[str, Any] = {}
    with socket.create_server(("127.0.0.1", 0)) as silent, tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            closed = gone.getsockname()[1]
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
        facts = record(sys.argv, ()) | {"limit": LIMIT, "window": options.window, "sinks": results}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
