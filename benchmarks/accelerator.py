"""What an accelerator makes of the package, in one command that needs nothing from outside.

    python benchmarks/accelerator.py [--small] [--seconds 460] [--out FILE.json]

* correctness: a few updates of each algorithm from equal weights and batches, on the device and on the CPU, with
  products as the device makes them by default and with exact ones; and a run that is interrupted and resumed on the
  device against one that is not, by the SHA-256 of all that they end with.
* rates: the device loop over widths, batches, numbers of seeds and bfloat16, and the host loop; a rate is the median
  over repeats after the first.
* seconds an agent: those of 1,000,000 steps of TD3 with 300 seeds side by side, from a slice of them.
* memory: what was forecast before anything was allocated, and the most that was in use.

All is measured in one process, a case after the other, until `--seconds` are over; what then is left is named under
"left_out". The file is written anew after each case. `--small` has a case of each kind, for a machine without an
accelerator: it shows that the command works, not how fast anything is.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # so that what is in use is what was asked for

import device_throughput
import jax
import jax.numpy as jnp
import numpy as np
import throughput
from contenders import record
from device_throughput import Entry
from rich.console import Console

import ddpg_jax as dj
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.errors import DdpgJaxError, Interrupted
from ddpg_jax.runs.checkpoints.checkpoint import digest
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.types import Batch, EnvSpec, Transition

AGENT_STEPS, AGENT_SEEDS = 1_000_000, 300
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ddpg": {},
    "td3": {},
    "d4pg": {"v_min": -300.0, "v_max": 0.0},
    "fasttd3": {"v_min": -300.0, "v_max": 0.0},
}
ROUND_SECONDS, REPEATS = 0.5, 5
_ONE = Entry("device", 64, 64, 100)


def device_cases(small: bool) -> dict[str, Entry]:
    """The cases of the device loop by name, those that matter most first."""
    if small:
        return {"64, 4 seeds": _ONE._replace(seeds=4, steps=20)}
    agents = {f"td3, 64, {AGENT_SEEDS} seeds": _ONE._replace(algorithm="td3", seeds=AGENT_SEEDS)}
    seeds = {f"64, {count} seeds": _ONE._replace(seeds=count) for count in (1, 16, 128, 1024)}
    widths = {f"{width}, batch 256": Entry("device", width, 256, 100) for width in (256, 1024)}
    half = {f"{name}, bfloat16": entry._replace(precision="bfloat16") for name, entry in widths.items()}
    more = {f"256, batch 256, {count} seeds": Entry("device", 256, 256, 50, seeds=count) for count in (16, 128)}
    batches = {f"256, batch {batch}": Entry("device", 256, batch, 100) for batch in (64, 4096)}
    return agents | seeds | widths | half | more | batches


def main() -> None:
    """Measures one case after the other and writes what there is after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=460.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    found = record(sys.argv, ()) | {"cases": {}, "left_out": [], "seconds": 0.0}
    cases: dict[str, Callable[[], dict[str, Any]]] = {
        f"update of {name}": partial(compare_update, name) for name in (["td3"] if options.small else ALGORITHMS)
    }
    cases["resume"] = partial(compare_resumed, 400 if options.small else 4000)
    cases |= {name: partial(measure_device, entry) for name, entry in device_cases(options.small).items()}
    widths = (64,) if options.small else (64, 256)
    cases |= {f"host, {width}": partial(measure_host, width, options.small) for width in widths}
    console = Console()
    console.print(f"{found['device']['kind']}, jax {jax.__version__}")
    for name, case in cases.items():
        if time.monotonic() - began > options.seconds:
            found["left_out"].append(name)
            continue
        found["cases"][name] = try_case(case)
        found["seconds"] = round(time.monotonic() - began, 1)
        console.print(f"{found['seconds']:6.1f} s  {name}: {summarize(found['cases'][name])}", soft_wrap=True)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    if found["left_out"]:
        console.print(f"left out, as {options.seconds:.0f} s were over: {', '.join(found['left_out'])}")
    sys.exit(any("failed" in each or each.get("equal") is False for each in found["cases"].values()))


def try_case(case: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a case says, or why it could not be had: the others go on, as after one that does not fit into memory."""
    try:
        return case()
    except (DdpgJaxError, jax.errors.JaxRuntimeError, MemoryError) as error:
        return {"failed": str(error).splitlines()[0][:300]}
    finally:
        gc.collect()


def summarize(found: dict[str, Any]) -> str:
    """A line of what a case found."""
    texts = {name: f"{value:.4g}" if isinstance(value, float) else str(value)[:60] for name, value in found.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def compare_update(name: str, updates: int = 4) -> dict[str, Any]:
    """A few updates on the device and on the CPU: the largest differences of metrics (relative) and of parameters."""
    config = dj.load_config(algorithm={"name": name, "hidden": [256, 256], "batch_size": 256} | ALGORITHMS[name])
    spec = EnvSpec((17,), "float32", (-1.0,) * 6, (1.0,) * 6)
    agent, key = make_agent(config, spec), jax.random.key(0)
    rng, shape = np.random.default_rng(0), (updates, 256)
    obs, next_obs, reward = (rng.normal(size=(*shape, *size)).astype(np.float32) for size in ((17,), (17,), ()))
    action, discount = rng.uniform(-1, 1, (*shape, 6)).astype(np.float32), np.full(shape, 0.99, np.float32)
    data = Transition(obs=obs, action=action, reward=reward, next_obs=next_obs, discount=discount)
    batch = Batch(data, np.ones(shape, np.float32), np.zeros(shape, np.int32))

    def on(device: Any, precision: str | None) -> tuple[dict[str, Any], list[Any]]:
        with jax.default_device(device), jax.default_matmul_precision(precision):
            state, metrics, _ = jax.jit(agent.update)(jax.jit(agent.init)(key), jax.tree.map(jnp.asarray, batch), key)
            return jax.tree.map(np.asarray, metrics), [np.asarray(x) for x in jax.tree.leaves(state.params)]

    wanted_metrics, wanted = on(jax.devices("cpu")[0], "highest")
    found: dict[str, Any] = {}
    for label, precision in (("default", None), ("exact", "highest")):
        metrics, weights = on(jax.devices()[0], precision)
        apart = {each: np.abs(metrics[each] - value) / (np.abs(value) + 1e-6) for each, value in wanted_metrics.items()}
        found[f"metrics_{label}"] = max(float(np.max(each)) for each in apart.values())
        found[f"weights_{label}"] = max(float(np.max(np.abs(a - b))) for a, b in zip(weights, wanted, strict=True))
    return found | {"equal": found["metrics_exact"] < 1e-3}


def compare_resumed(steps: int) -> dict[str, Any]:
    """A run on the device, and one that is stopped half way and resumed: whether all that they end with is equal."""
    config = dj.load_config(
        seeds=4,
        total_steps=steps,
        env={"id": "jax:pendulum"},
        algorithm={"warmup_steps": 100},
        checkpoint={"every": steps // 2},
        evaluation={"every": steps // 2, "episodes": 2},
        logging={"every": steps // 4, "tensorboard": False},
    )
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder) / "whole", Path(folder) / "parts"
        dj.train(config, whole, quiet=True)
        with suppress(Interrupted):
            dj.train(config, parts, quiet=True, callbacks=[stop_half_way])
        dj.resume_run(parts, quiet=True)
        found = [sha256_of(whole), sha256_of(parts)]
    return {"equal": found[0] == found[1], "sha256": found[0]}


def stop_half_way(report: Any) -> None:
    """Asks for a stop where half of the steps are made."""
    if 2 * report.step >= report.config.total_steps:
        report.stop()


def sha256_of(run: Path) -> str:
    """Of the last checkpoint, replay and statistics with it, and of the record."""
    store = CheckpointStore(RunDirectory(run).checkpoints)
    newest, _ = store.newest()
    return hashlib.sha256(f"{digest(store.load(newest))}{(run / 'metrics.jsonl').read_text()}".encode()).hexdigest()


def measure_device(entry: Entry) -> dict[str, Any]:
    """Steps of all seeds a second, and memory."""
    racer = device_throughput.device(entry)
    seconds = seconds_of(racer.advance)
    rate = entry.steps * entry.seeds / seconds
    found: dict[str, Any] = {"seed_steps_per_second": rate, "compile_seconds": racer.ready["compile"]}
    if entry.seeds == AGENT_SEEDS:
        found["seconds_an_agent_of_1e6_steps"] = AGENT_STEPS / rate
    statistics = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:  # of the whole process, so far
        found["peak_bytes_so_far"] = statistics["peak_bytes_in_use"]
        found["bytes_in_use"] = statistics["bytes_in_use"]
    return found | {"forecast_bytes": racer.ready["forecast_bytes"]}


def measure_host(width: int, small: bool) -> dict[str, Any]:
    """Environment steps a second of the host loop on gymnasium's Pendulum, one update each."""
    steps = 100 if small else 500
    case = throughput.Case("Pendulum-v1", width, width, 1, steps)
    return {"steps_per_second": steps / seconds_of(throughput.ours(case).advance)}


def seconds_of(advance: Callable[[], None]) -> float:
    """Median seconds of a round, over repeats that take half a second each or more."""
    advance()
    began = time.perf_counter()
    advance()
    count = max(1, round(ROUND_SECONDS / max(1e-6, time.perf_counter() - began)))
    times: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(count):
            advance()
        times.append((time.perf_counter() - began) / count)
    return float(np.median(times))


if __name__ == "__main__":
    main()
