"""A look at the installation: versions, devices, memory, extras, a self-test of about two seconds, and determinism."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from ddpg_jax.cli.failures import no_device
from ddpg_jax.config.load import load_config
from ddpg_jax.config.schema import Config
from ddpg_jax.envs.host.video import draw_frame
from ddpg_jax.errors import ConfigError, DdpgJaxError, EnvironmentFault, StorageError
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint, digest
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.loggers.progress import SafeConsole
from ddpg_jax.runs.result import package_versions, system_info
from ddpg_jax.training.train import train
from ddpg_jax.types import HostArray
from ddpg_jax.xla.compilation_cache import cache_folder, usage
from ddpg_jax.xla.memory import available_bytes, human_bytes
from ddpg_jax.xla.process import make_core_devices

EXTRAS = {
    "mujoco": ("mujoco",),
    "video": ("moviepy", "pygame"),
    "dm-control": ("shimmy", "dm_control"),
    "gymnax": ("gymnax",),
    "brax": ("brax",),
    "playground": ("mujoco_playground",),
    "export": ("flatbuffers",),
    "onnx": ("onnx", "onnxruntime"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "trackio": ("trackio",),
    "search": ("optuna", "cmaes"),
    "ray": ("ray",),
    "peers": ("stable_baselines3", "sbx", "cpprb"),
    "test": ("pytest", "hypothesis", "chex"),
}


def examine() -> int:
    """Prints what is installed and trains for a moment; returns the exit code."""
    console = SafeConsole(highlight=False)
    versions = package_versions()
    console.print("versions  " + ", ".join(f"{name} {value or 'missing'}" for name, value in versions.items()))
    try:
        facts = system_info()
    except (RuntimeError, AssertionError) as error:
        if (line := no_device(error)) is None:
            raise
        console.print(f"device    none: {line}", markup=False)
        return ConfigError.exit_code
    device = facts["device"]
    console.print(f"device    {device['count']} x {device['kind']} ({device['platform']})")
    console.print(f"memory    {human_bytes(available_bytes())} free, {facts['machine']['cores']} cores")
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        state = f"without {', '.join(missing)}: pip install 'ddpg-jax[{extra}]'" if missing else "installed"
        console.print(f"extra     {extra}: {state}")
    console.print(f"programs  {_programs()}", markup=False)
    _draw(console)
    return _self_test(console)


def _draw(console: Console) -> None:
    """Says whether frames can be drawn here, for videos."""
    for package, identifier in (("pygame", "Pendulum-v1"), ("mujoco", "InvertedPendulum-v5")):
        if importlib.util.find_spec(package) is None:
            continue
        try:
            found = draw_frame(identifier)
        except EnvironmentFault as error:
            found = f"no, so there are no videos of such environments: {error}"
        console.print(f"frame     {package}: {found}", markup=False, soft_wrap=True)


def _programs() -> str:
    """Where the command line keeps compiled programs, and how much that is."""
    try:
        folder = cache_folder()
        held = usage(folder)
    except (OSError, RuntimeError) as error:
        return f"are not kept: {error}"
    return f"{held.programs} kept in {folder}, {human_bytes(held.size)}"


def examine_determinism(configs: tuple[Config, ...] | None = None) -> int:
    """Runs each of some configurations twice and compares all that they leave, to the bit; returns the exit code.

    Args:
      configs: the runs; None: a moment of Pendulum on the host loop and on the device loop.
    """
    console, equal = SafeConsole(highlight=False, soft_wrap=True), True
    make_core_devices()  # as the device loop does, before the host loop uses jax
    for config in configs or (_moment(), _moment(env={"id": "jax:pendulum"})):
        with tempfile.TemporaryDirectory() as folder:
            once, again = (_kept(config, Path(folder) / name) for name in ("once", "again"))
            difference = first_difference(once, again)
            hashed = digest(once)
        equal = equal and difference is None
        said = (
            f"equal to the bit, sha256 {hashed[:16]}..." if difference is None else f"DIFFERENT, first in {difference}"
        )
        console.print(f"{config.env.id}, two runs of {config.total_steps} steps: {said}", markup=False)
    return 0 if equal else DdpgJaxError.exit_code


def first_difference(a: Checkpoint, b: Checkpoint) -> str | None:
    """The name of the first array in which two checkpoints differ, or of the first row; None: they are equal."""
    for name in sorted(a.arrays.keys() | b.arrays.keys()):
        one, other = a.arrays.get(name), b.arrays.get(name)
        if one is None or other is None or one.tobytes() != other.tobytes():
            return name
    for number in range(a.rows.first, a.rows.stop):
        rows = (each.rows.read(number, number + 1) for each in (a, b))
        one, other = ({name: x.tobytes() for name, x in row.items()} for row in rows)
        if one != other:
            return f"row {number} of the replay"
    return None


def _kept(config: Config, path: Path) -> Checkpoint:
    """What a run leaves in its last checkpoint."""
    train(config, path, quiet=True)
    store = CheckpointStore(RunDirectory(path).checkpoints)
    found, _ = store.newest()
    if found is None:
        raise StorageError(f"{path} holds no checkpoint; set checkpoint.every")
    checkpoint = store.load(found)
    rows = checkpoint.rows.read(checkpoint.rows.first, checkpoint.rows.stop)

    def read(first: int, stop: int) -> dict[str, HostArray]:
        start = checkpoint.rows.first
        return {name: x[first - start : stop - start] for name, x in rows.items()}

    return checkpoint._replace(rows=checkpoint.rows._replace(read=read))


def _moment(**changes: Any) -> Config:
    """Two seeds for a moment."""
    settings = {"hidden": [16, 16], "warmup_steps": 100}
    return load_config(seeds=2, total_steps=400, algorithm=settings, evaluation={"episodes": 1}, **changes)


def _self_test(console: Console) -> int:
    """Trains two seeds for a moment; says whether it worked and how fast it was."""
    config = _moment()
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = train(config, Path(folder) / "run", quiet=True).result
    except DdpgJaxError as error:
        console.print(f"self-test failed: {error}")
        return error.exit_code
    seconds, updates = time.perf_counter() - began, result["updates_per_seed"]
    console.print(f"self-test passed: 2 seeds, {updates} updates each on {config.env.id} in {seconds:.1f} s")
    return 0
