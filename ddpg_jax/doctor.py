"""A look at the installation: versions, devices, memory, extras, and a self-test of about two seconds."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path

from rich.console import Console

from ddpg_jax.errors import DdpgJaxError
from ddpg_jax.memory import available_bytes, human_bytes
from ddpg_jax.reading import load_config
from ddpg_jax.reports.result import environment
from ddpg_jax.training import train

EXTRAS = {
    "mujoco": ("mujoco",),
    "video": ("moviepy", "pygame"),
    "gymnax": ("gymnax",),
    "brax": ("brax",),
    "playground": ("mujoco_playground",),
    "peers": ("stable_baselines3", "sbx", "cpprb"),
    "test": ("pytest", "hypothesis", "chex"),
}


def examine() -> int:
    """Prints what is installed and trains for a moment; returns the exit code."""
    console = Console(highlight=False)
    facts = environment()
    console.print("versions  " + ", ".join(f"{name} {value or 'missing'}" for name, value in facts["versions"].items()))
    device = facts["device"]
    console.print(f"device    {device['count']} x {device['kind']} ({device['platform']})")
    console.print(f"memory    {human_bytes(available_bytes())} free, {facts['machine']['cores']} cores")
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        state = f"without {', '.join(missing)}: pip install 'ddpg-jax\\[{extra}]'" if missing else "installed"
        console.print(f"extra     {extra}: {state}")
    return _self_test(console)


def _self_test(console: Console) -> int:
    """Trains two seeds for a moment; says whether it worked and how fast it was."""
    config = load_config(
        seeds=2, total_steps=400, algorithm={"hidden": [16, 16], "warmup_steps": 100}, evaluation={"episodes": 1}
    )
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = train(config, Path(folder) / "run").result
    except DdpgJaxError as error:
        console.print(f"self-test failed: {error}")
        return error.exit_code
    seconds, updates = time.perf_counter() - began, result["updates_per_seed"]
    console.print(f"self-test passed: 2 seeds, {updates} updates each on {config.env.id} in {seconds:.1f} s")
    return 0
