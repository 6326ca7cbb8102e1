"""Our device loop beside RLtools, a C++ code whose every size is the compiler's: Pendulum, TD3, one update a step.

    python benchmarks/rltools.py [--rounds 9] [--agents 5] [--out FILE.json]

RLtools is built here, from the headers in its package, with g++ and OpenBLAS (`libopenblas-dev`); `--no-blas` builds it
without, and `--headers` takes a folder that is there. Of OpenBLAS' kernels it gets those that are fastest. Equal in
both: widths, batch, an update of the critics a step, of the actor and of all targets at every second, one batch for all
of them, no evaluation. Unequal: its environment is its own, and each of its processes has one thread and one seed, so
beside several seeds of ours two processes stand.

First, updates a second in interleaved rounds. Then how long it takes from the start of a process to an agent: until its
mean return over 10 episodes is -200 or more for the first time, evaluated every 1000 steps. Ours is DDPG by its
defaults (configs/pendulum/device.toml), once with an empty cache of programs and once with what that left there; that
RLtools has to be built first is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contenders import Contender, load, median_ratio, race, record, serve
from device_throughput import Entry, device
from rich.console import Console
from rich.table import Table

VERSION = "2.2.1"
SOURCE = Path(__file__).with_name("rltools_td3.cpp")
CONFIG = Path(__file__).parent.parent / "configs" / "pendulum" / "device.toml"
GOOD, EVERY = -200.0, 1000
CORES = ("", "HASWELL", "ZEN", "SKYLAKEX", "COOPERLAKE")


class Case(NamedTuple):
    """Ours, as many processes of theirs, the steps of each in a round, and the ratio asked for."""

    ours: Entry
    processes: int
    steps: int
    asked: float | None = None


CASES = {
    "64, one seed": Case(Entry("device", 64, 64, 8000, algorithm="td3"), 1, 8000, 1.1),
    "64, 8 seeds": Case(Entry("device", 64, 64, 2000, seeds=8, algorithm="td3"), 2, 8000, 1.3),
    "64, batch 256": Case(Entry("device", 64, 256, 2000, algorithm="td3"), 1, 2000),
    "256, batch 256": Case(Entry("device", 256, 256, 300, algorithm="td3"), 1, 300),
}


def headers(folder: Path) -> Path:
    """The headers of RLtools, out of its package."""
    download = ["download", "--quiet", "--no-deps", f"rltools=={VERSION}", "-d", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *download], check=True)
    (wheel,) = folder.glob("rltools-*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(folder)], check=True)
    return folder / "rltools" / "external" / "rl_tools" / "include"


def build(include: Path, program: Path, sizes: Mapping[str, int], *, blas: bool) -> float:
    """Builds RLtools for a width, a batch, a number of steps and of those between evaluations; returns the seconds."""
    backend = ["-DRL_TOOLS_BACKEND_ENABLE_OPENBLAS", "-DRL_TOOLS_DISABLE_UNALIGNED_MEMORY_ALLOCATIONS"]
    defined = [f"-DBENCH_{name}={size}" for name, size in sizes.items()] + backend * blas
    optimized = ["-std=c++17", "-O3", "-march=native", "-ffast-math", "-DNDEBUG"]
    command = ["g++", *optimized, f"-I{include}", *defined, str(SOURCE), "-o", str(program)]
    began = time.perf_counter()
    subprocess.run(command + ["-lopenblas"] * blas, check=True)
    return time.perf_counter() - began


def start(program: Path, seed: int, core: str) -> subprocess.Popen[str]:
    """A process of RLtools, of one thread."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"} | ({"OPENBLAS_CORETYPE": core} if core else {})
    return subprocess.Popen([str(program), str(seed)], stdout=subprocess.PIPE, text=True, env=environment)


def theirs(program: Path, processes: int, core: str) -> Iterator[float]:
    """Updates a second of processes side by side, each by its own clock."""
    running = [start(program, i, core) for i in range(processes)]
    for each in running:
        *_, last = each.communicate()[0].splitlines()
        _, updates, seconds = last.split()
        yield int(updates) / float(seconds)


def fastest_core(program: Path) -> str:
    """The processor for which OpenBLAS is fastest when told that it runs on it; "" where its own choice is.

    In a virtual machine it may take a processor of today for one of 2004, and is a quarter as fast.
    """
    rates = {core: max(next(theirs(program, 1, core)) for _ in range(2)) for core in CORES}
    return max(rates, key=lambda core: rates[core])


def run_case(name: str, rounds: int, build_theirs: Callable[..., float]) -> dict[str, Any]:
    """Interleaves both."""
    case = CASES[name]
    sizes = {"WIDTH": case.ours.width, "BATCH": case.ours.batch, "STEPS": case.steps, "EVERY": 0}
    with tempfile.TemporaryDirectory() as folder:
        build_theirs(program := Path(folder) / "td3", sizes)
        return _race(name, case, rounds, program)


def _race(name: str, case: Case, rounds: int, program: Path) -> dict[str, Any]:
    core = fastest_core(program)
    ours, rates = Contender("ours", name, script=Path(__file__).name), {"ours": [], "rltools": []}
    for _ in range(rounds):
        seconds = race({"ours": ours}, 1)["ours"][0]
        rates["ours"].append(case.ours.steps * case.ours.seeds / seconds)
        rates["rltools"].append(sum(theirs(program, case.processes, core)))
    ours.close()
    return {
        "case": name,
        "ours": case.ours._asdict(),
        "their_processes": case.processes,
        "their_steps": case.steps,
        "their_core": core,
        "seed_updates_per_second": {each: float(np.median(rate)) for each, rate in rates.items()},
        "ratio": median_ratio(rates, "ours", "rltools"),
        "asked": case.asked,
        "rounds": rates,
    }


def until_good(lines: Iterator[tuple[int, float]], began: float) -> tuple[int, float]:
    """The step of the first evaluation that is good enough, and the seconds since the start."""
    for step, value in lines:
        if value >= GOOD:
            return step, time.perf_counter() - began
    raise SystemExit(f"no evaluation reached {GOOD:g}")


def their_agent(program: Path, seed: int, core: str) -> tuple[int, float]:
    """As `until_good`, of RLtools."""
    began = time.perf_counter()
    process = start(program, seed, core)
    assert process.stdout is not None
    words = (line.split() for line in process.stdout)
    found = until_good(((int(each[1]), float(each[2])) for each in words if each[0] == "evaluation"), began)
    process.kill()
    process.communicate()
    return found


def our_agent(folder: Path, cache: Path, seed: int) -> tuple[int, float]:
    """As `until_good`, of ours: when the evaluation stands in the record of the run."""
    fields = {"seeds": f"[{seed}]", "evaluation.every": EVERY, "evaluation.episodes": 10, "checkpoint.every": 0}
    words = [f"--{name}={value}" for name, value in fields.items()]
    command = [sys.executable, "-m", "ddpg_jax", "train", str(CONFIG), "--run-dir", str(folder), "--quiet", *words]
    environment = os.environ | {"DDPG_JAX_CACHE": str(cache)}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    found = until_good(_evaluations(folder / "metrics.jsonl", process), began)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return found


def agents(folder: Path, build_theirs: Callable[..., float], number: int) -> dict[str, Any]:
    """How long each takes to an agent, in turns, a seed each turn."""
    sizes = {"WIDTH": 64, "BATCH": 64, "STEPS": 20_000, "EVERY": EVERY}
    building = build_theirs(program := folder / "td3", sizes)
    core = fastest_core(program)
    ways: dict[str, Callable[[int], tuple[int, float]]] = {
        "rltools": lambda seed: their_agent(program, seed, core),
        "ours, first start": lambda seed: our_agent(folder / f"first-{seed}", folder / f"cache-{seed}", seed),
        "ours, second start": lambda seed: our_agent(folder / f"second-{seed}", folder / f"cache-{seed}", seed),
    }
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in ways}
    for seed in range(number):
        for name, way in ways.items():
            found[name].append(way(seed))
    return {"rltools, building": {"steps": [], "seconds": [building], "median_seconds": building}} | {
        name: {
            "steps": [step for step, _ in each],
            "seconds": [seconds for _, seconds in each],
            "median_seconds": float(np.median([seconds for _, seconds in each])),
        }
        for name, each in found.items()
    }


def show(results: list[dict[str, Any]], reached: dict[str, Any]) -> None:
    """Two tables, at most 80 columns wide."""
    console = Console(width=80)
    table = Table("hidden layers", "ours", "RLtools", "times", "asked", title="seed-updates/s")
    for result in results:
        rates, asked = result["seed_updates_per_second"], result["asked"]
        more = f" ({result['their_processes']} processes)" * (result["their_processes"] > 1)
        cells = f"{rates['ours']:.0f}", f"{rates['rltools']:.0f}{more}", f"{result['ratio']:.2f}"
        table.add_row(result["case"], *cells, "" if asked is None else f">= {asked}")
    console.print(table)
    table = Table("", "seconds, median", "all", "steps", title=f"from the start of a process to a return of {GOOD:g}")
    for name, each in reached.items():
        seconds = " ".join(f"{x:.2f}" for x in each["seconds"])
        table.add_row(name, f"{each['median_seconds']:.2f}", seconds, " ".join(map(str, each["steps"])))
    console.print(table)


def _evaluations(path: Path, process: subprocess.Popen[bytes]) -> Iterator[tuple[int, float]]:
    """Steps and returns in the record of a run, as they come."""
    read = 0
    while process.poll() is None:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        for line in lines[read:]:
            if line.endswith("\n"):
                read += 1
                row = json.loads(line)
                if row["event"] == "evaluation":
                    yield row["step"], row["mean_return"]
        time.sleep(0.01)


def main() -> None:
    """Runs all, or is a contender."""
    if sys.argv[1:2] == ["--contender"]:
        serve(lambda: device(CASES[sys.argv[3]].ours))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--agents", type=int, default=5, help="seeds of the times to an agent")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--headers", type=Path, help="RLtools' folder `include`; default: from its package")
    parser.add_argument("--no-blas", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        build_theirs = partial(build, options.headers or headers(Path(folder)), blas=not options.no_blas)
        results = [run_case(case, options.rounds, build_theirs) for case in options.cases]
        reached = agents(Path(folder), build_theirs, options.agents)
    show(results, reached)
    facts = record(sys.argv, ()) | {"rltools": VERSION, "blas": not options.no_blas}
    found = facts | {"load": [before, load()], "cases": results, "agents": reached}
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
