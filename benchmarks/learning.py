"""Learning beside peers: the same task, settings, seeds and evaluation episodes; returns and intervals as JSON.

    python benchmarks/learning.py configs/pendulum/td3.toml --peers sb3,sbx --seeds 8 --jobs 2

Ours trains all seeds in one process. A seed of a peer is a process of its own with one thread, `--jobs` of them side by
side, and its evaluations are stored as soon as it is done: a comparison that was cut off goes on where it was. A peer
that is not installed is said to be missing. Each is evaluated by its greedy policy on our bank of evaluation seeds, at
the same steps. Nothing here is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import current_process, get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from peers import MODULES, PACKAGES, check_settings, train_peer

from ddpg_jax.cli.arguments import find_options, parse_config, split_overrides
from ddpg_jax.config.schema import Config
from ddpg_jax.runs.result import system_info
from ddpg_jax.runs.statistics import summarize
from ddpg_jax.training.train import train
from ddpg_jax.xla.memory import available_cores

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
}


class Store:
    """Evaluations of trained seeds, a line of JSON for each, found again by what they depend on.

    Args:
      path: the file; it is made with the first line.
      config: the settings that all lines asked for have in common.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self._path = path
        self._settings = config.model_dump(mode="json", exclude={"seeds", "logging", "loop"})
        lines = path.read_text().splitlines() if path.exists() else []
        self._known = {self._key(each): each["evaluations"] for each in map(json.loads, lines)}

    def find(self, code: str, what: str, seeds: list[int]) -> list[dict[str, Any]] | None:
        """The evaluations of a code (its version is `what`) with these seeds, if they are stored."""
        return self._known.get(self._key(self._line(code, what, seeds)))

    def keep(self, code: str, what: str, seeds: list[int], evaluations: list[dict[str, Any]]) -> None:
        """Stores evaluations."""
        line = self._line(code, what, seeds)
        with self._path.open("a") as file:
            file.write(json.dumps(line | {"evaluations": evaluations}) + "\n")
        self._known[self._key(line)] = evaluations

    def _line(self, code: str, what: str, seeds: list[int]) -> dict[str, Any]:
        return {"code": code, "version": what, "seeds": seeds, "settings": self._settings}

    def _key(self, line: dict[str, Any]) -> str:
        return json.dumps([line[name] for name in ("code", "version", "seeds", "settings")], sort_keys=True)


def ours(config: Config, store: Store) -> list[dict[str, Any]]:
    """Trains all seeds of ours; returns their evaluations, `{"step", "returns" [S, episodes]}` of each."""
    what, seeds = _git("rev-parse", "HEAD:ddpg_jax"), list(config.seed_list)
    if (known := store.find("ours", what, seeds)) is not None:
        return known
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, Path(folder) / "run", console=Console())
        rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["event"] == "evaluation"]
    steps = sorted({row["step"] for row in rows})
    evaluations = [{"step": s, "returns": [row["returns"] for row in rows if row["step"] == s]} for s in steps]
    store.keep("ours", what, seeds, evaluations)
    return evaluations


def peer(name: str, config: Config, store: Store, jobs: int) -> list[dict[str, Any]]:
    """Trains the seeds of a peer that are not stored; returns the evaluations of all, as `ours`."""
    what = f"{PACKAGES[name]} {version(PACKAGES[name])}"
    missing = [seed for seed in config.seed_list if store.find(name, what, [seed]) is None]
    for seed, evaluations in _trained(name, config, missing, jobs):
        store.keep(name, what, [seed], evaluations)
    seeds = [store.find(name, what, [seed]) or [] for seed in config.seed_list]
    return [{"step": each[0]["step"], "returns": [e["returns"] for e in each]} for each in zip(*seeds, strict=True)]


def _trained(name: str, config: Config, seeds: list[int], jobs: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Seeds and their evaluations in the order in which they are done, each by a fresh process."""
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _one_thread, max_tasks_per_child=1) as pool:
        pending = {pool.submit(train_peer, name, config, seed): seed for seed in seeds}
        for done in as_completed(pending):
            yield pending[done], done.result()


def _one_thread() -> None:
    """Keeps a process to one thread, and on a core of its own as far as there are enough."""
    os.environ.update(ONE_THREAD)
    warnings.filterwarnings("ignore", category=UserWarning)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[current_process()._identity[-1] % len(cores)]})
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


def summaries(evaluations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each evaluation with its statistics over seeds."""
    return [{"step": e["step"], **summarize(np.array(e["returns"]))} for e in evaluations]


def main() -> None:
    """Runs the comparison."""
    options, config = _arguments()
    commit = _git("rev-parse", "HEAD")  # of the code that runs, whatever is checked out meanwhile
    names = [] if options.peers == "none" else options.peers.split(",")
    if names:
        check_settings(config)
    store = Store(options.store, config)
    results: dict[str, Any] = {"ours": summaries(ours(config, store))} if options.ours == "yes" else {}
    versions: dict[str, str] = {}
    for name in names:
        if importlib.util.find_spec(MODULES[name]) is None:
            results[name] = "not installed"
            continue
        results[name] = summaries(peer(name, config, store, options.jobs))
        versions[PACKAGES[name]] = version(PACKAGES[name])
    record = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "config": config.model_dump(mode="json"),
        "evaluations": results,
        "peers": versions,
        **system_info(),
    }
    path = options.out / f"learning_{config.env.id.lower()}_{config.algorithm.name}_{config.total_steps}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    show(results)
    print(path)


def _arguments() -> tuple[argparse.Namespace, Config]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="*", help="presets and TOML files")
    parser.add_argument("--peers", default="sb3", help="comma-separated: sb3, sbx, or none")
    parser.add_argument("--ours", choices=("yes", "no"), default="yes", help="no: more seeds of the peers alone")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="seeds of a peer side by side")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--store", type=Path, default=Path("runs/learning.jsonl"), help="seeds that are done")
    words, overrides = split_overrides(sys.argv[1:], find_options(parser))
    options = parser.parse_args(words)
    options.store.parent.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    return options, parse_config(options.config, overrides)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()


def show(results: dict[str, Any]) -> None:
    """Final and best evaluations, side by side."""
    table = Table("code", "evaluation", "step", "interquartile mean", "95% interval", "each seed")
    for name, evaluations in results.items():
        if isinstance(evaluations, str):
            table.add_row(name, evaluations)
            continue
        best = max(evaluations, key=lambda e: e["interquartile_mean"])
        for label, e in (("final", evaluations[-1]), ("best", best)):
            band = "-" if e["interval"] is None else f"{e['interval'][0]:.1f} to {e['interval'][1]:.1f}"
            seeds = " ".join(f"{x:.1f}" for x in e["per_seed"])
            table.add_row(name, label, str(e["step"]), f"{e['interquartile_mean']:.1f}", band, seeds)
    Console().print(table)


if __name__ == "__main__":
    main()
