"""A look at what an engine needs: versions, names, storage that all nodes share. `ddpg-jax doctor --engine KIND`."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import socket
import subprocess
from pathlib import Path

from ddpg_jax.errors import ConfigError
from ddpg_jax.training.search.engines.engine import EngineConfig, EngineKind
from ddpg_jax.training.search.engines.local import divide, own_cores, visible_gpus

PROBLEM = "PROBLEM"
"""How lines begin that say what keeps an engine from working."""

_LOCAL_FILESYSTEMS = {"overlay", "ext4", "xfs", "btrfs", "tmpfs", "apfs", "ramfs"}
"""Kinds of storage that other machines do not see."""


def examine_engine(kind: EngineKind, config: EngineConfig | None = None, folder: Path | None = None) -> list[str]:
    """Looks at what an engine needs; nothing is started, and no cluster is joined.

    Args:
      kind: of the engine.
      config: of `[engine]`; None: the defaults.
      folder: where runs will lie; None: the working directory.

    Returns:
      One line for each thing; those that begin with `PROBLEM` keep the engine from working.
    """
    config = config or EngineConfig(kind=kind)
    folder = folder or Path.cwd()
    lines = {"local": _local, "ray": _ray, "slurm": _slurm, "kubernetes": _kubernetes}[kind](config)
    return lines if kind == "local" else [*lines, _resolves(), _shared(folder)]


def _local(config: EngineConfig) -> list[str]:
    gpus = visible_gpus()
    try:
        places = divide(config, own_cores(), gpus)
    except ConfigError as error:
        return [f"PROBLEM {error}"]
    lines = [f"{len(places)} processes side by side, {len(own_cores())} cores, {len(gpus)} GPUs"]
    for number, place in enumerate(places[:8]):
        shown = f", GPU {','.join(place.gpus)} ({place.share:g} of its memory)" if place.gpus else ""
        lines.append(f"process {number}: cores {','.join(map(str, place.cores))}{shown}")
    return lines


def _ray(config: EngineConfig) -> list[str]:
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return ["PROBLEM Ray is not installed: pip install 'ddpg-jax[ray]'"]
    python = platform.python_version()
    lines = [f"ray {version}, Python {python}: every node needs the same Ray, and Python {python.rpartition('.')[0]}"]
    if config.address is None:
        return [*lines, "engine.address is left out: a Ray of this machine's own is started"]
    return [*lines, *_compare_cluster(config.address, version, python)]


def _compare_cluster(address: str, version: str, python: str) -> list[str]:
    """What the versions of a running cluster are, as its own command line says."""
    from ddpg_jax.training.search.engines.ray import cluster_versions

    try:
        theirs = cluster_versions(address)
    except ConfigError as error:
        return [f"PROBLEM {error}"]
    ours = (version, python)
    same = theirs[0] == ours[0] and theirs[1].rpartition(".")[0] == ours[1].rpartition(".")[0]
    return [f"{'' if same else 'PROBLEM '}the cluster at {address} has ray {theirs[0]}, Python {theirs[1]}"]


def _slurm(config: EngineConfig) -> list[str]:
    names = ("sbatch", "scontrol", "scancel", "squeue")
    if missing := [name for name in names if shutil.which(name) is None]:
        return [f"PROBLEM {', '.join(missing)}: not found; start the sweep where jobs are submitted"]
    done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)  # noqa: S607
    if done.returncode:
        return [f"PROBLEM the controller does not answer: {done.stderr.strip()[-200:]}"]
    return [*slurm_lines(done.stdout, config)]


def slurm_lines(said: str, config: EngineConfig) -> list[str]:
    """What `scontrol show config` means for a sweep."""
    fields = dict(re.findall(r"^(\S+)\s*= (.*?)\s*$", said, re.MULTILINE))
    codes = fields.get("RequeueExit", "(null)").split(",")
    lines = [f"SLURM {fields.get('SLURM_VERSION', '?')}, cluster {fields.get('ClusterName', '?')}"]
    by_site = "75" in codes
    if config.requeue == "site" and not by_site:
        lines.append('PROBLEM engine.requeue = "site", but RequeueExit does not hold 75; use engine.requeue = "script"')
    elif by_site and config.requeue == "script":
        lines.append('RequeueExit holds 75: use engine.requeue = "site", or tasks are put into the queue twice')
    else:
        lines.append(f'RequeueExit = {",".join(codes)}: engine.requeue = "{config.requeue}" fits')
    if fields.get("JobRequeue", "1") == "0":
        lines.append("JobRequeue = 0: the script asks for --requeue by itself")
    return lines


def _kubernetes(config: EngineConfig) -> list[str]:
    missing = [f"engine.{name}" for name in ("image", "volume") if getattr(config, name) is None]
    return (
        [f"PROBLEM {' and '.join(missing)} must be given"] if missing else ["the job is written as text; it is not run"]
    )


def _resolves() -> str:
    """Whether the name of this machine leads to an address, which Ray and programs of several processes need."""
    name = platform.node()
    try:
        return f"{name} is {socket.gethostbyname(name)}"
    except OSError as error:
        return f"PROBLEM the name {name} leads to no address ({error}); name it in /etc/hosts"


def _shared(folder: Path) -> str:
    """Whether runs would lie on storage that other machines see, as far as its kind tells."""
    folder = folder.absolute()
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return f"{folder}: whether all nodes see it is not known here"
    over = [(where, kind) for where, kind in mounts if folder.is_relative_to(where)]
    kind = max(over, key=lambda mount: len(mount[0]))[1] if over else "?"
    what = (
        "other machines do not see it; choose storage that all nodes share" if kind in _LOCAL_FILESYSTEMS else "shared"
    )
    return f"{folder} lies on {kind}: {what}"
