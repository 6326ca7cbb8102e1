"""`result.json`: what a run reached, how fast, and on what."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ddpg_jax.runs.statistics import summarize
from ddpg_jax.xla.memory import available_cores
from ddpg_jax.xla.modes import numeric_flags

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.types import Evaluation, HostArray

PACKAGES = ("ddpg-jax", "jax", "jaxlib", "flax", "optax", "gymnasium", "numpy", "mujoco")


class Evaluated(NamedTuple):
    """An evaluation and the environment steps of each seed before it."""

    step: int
    evaluation: Evaluation


def make_result(
    config: Config,
    step: int,
    updates: int,
    seconds: Mapping[str, float],
    evaluated: list[Evaluated],
    diverged: HostArray | None = None,
) -> dict[str, Any]:
    """Gathers the result of a run.

    `final` is the evaluation at the end, `best` the evaluation with the highest interquartile mean: the best over time
    flatters, so both are there and named.

    Args:
      config: the run.
      step: environment steps of each seed.
      updates: critic updates of each seed.
      seconds: spent in each phase of the loop, "compile" among them.
      evaluated: all evaluations, in order, at least one.
      diverged: seeds that were frozen, bool `[S]`; they are named, and the statistics are those of the others.

    Returns:
      Values that JSON knows.
    """
    kept = np.ones(len(config.seed_list), bool) if diverged is None else ~diverged
    summaries: list[dict[str, Any]] = [{"step": e.step, **summarize(e.evaluation.returns[kept])} for e in evaluated]
    running = sum(seconds.values()) - seconds["compile"]
    num_seeds = len(config.seed_list)
    return {
        "env": config.env.id,
        "algorithm": config.algorithm_name,
        "seeds": [seed for seed, keep in zip(config.seed_list, kept, strict=True) if keep],
        **(
            {}
            if kept.all()
            else {"diverged_seeds": [s for s, keep in zip(config.seed_list, kept, strict=True) if not keep]}
        ),
        "complete": step >= config.total_steps,
        "env_steps_per_seed": step,
        "updates_per_seed": updates,
        "final": summaries[-1] | {"lengths": evaluated[-1].evaluation.lengths[kept].tolist()},
        "best": max(summaries, key=lambda s: s["interquartile_mean"]),
        "seconds": {**seconds, "training": running},
        "env_steps_per_second": step * num_seeds / running,
        "updates_per_second": updates * num_seeds / running,
        **provenance(config.model_dump(mode="json")),
        **system_info(),
    }


def provenance(settings: Mapping[str, Any]) -> dict[str, Any]:
    """When, by which command, from which commit and of which configuration a result came about.

    Args:
      settings: the whole configuration; equal ones have equal hashes.

    Returns:
      Values that JSON knows. The commit is that of the git checkout that the program was started in; None outside one.
    """
    hashed = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": date, "command": shlex.join(sys.argv), "commit": _commit(Path.cwd()), "config_sha256": hashed}


def _commit(folder: Path) -> str | None:
    """The commit that is checked out in a folder or above it, read from git's files."""
    try:
        git = next(path for path in (each / ".git" for each in (folder, *folder.parents)) if path.exists())
        if git.is_file():  # a worktree
            git = (git.parent / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()).resolve()
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        name = head.removeprefix("ref:").strip()
        if name == head:
            return head
        common = git / "commondir"
        shared = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.exists() else git
        if (shared / name).is_file():
            return (shared / name).read_text(encoding="utf-8").strip()
        packed = (line.split() for line in (shared / "packed-refs").read_text(encoding="utf-8").splitlines())
        return next(words[0] for words in packed if words[1:] == [name])
    except (OSError, ValueError, StopIteration):
        return None


def package_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that figures depend on; None: not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def system_info() -> dict[str, Any]:
    """Versions and devices, as they stand beside every figure."""
    devices = jax.devices()
    return {
        "versions": package_versions(),
        "device": {"kind": devices[0].device_kind, "platform": devices[0].platform, "count": len(devices)},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": available_cores()},
        "settings": {"XLA_FLAGS": numeric_flags()},
    }


def system_differences(before: Mapping[str, Any], *, single_device: bool = False) -> list[str]:
    """Lines of warning where `system_info` is not what it was before.

    Args:
      before: what it was.
      single_device: whether one device is used, however many there are.
    """
    now, lines = system_info(), list[str]()
    for what in ("versions", "device", "machine", "settings"):
        old, new = before.get(what, now[what]), now[what]  # versions before format 2 kept no settings
        if what == "machine" and now["device"]["platform"] != "cpu":
            continue
        if what == "device" and single_device:
            new = new | {"count": old.get("count")}
        differing = [f"{name} {old.get(name)} -> {value}" for name, value in new.items() if old.get(name) != value]
        if differing:
            lines.append(f"warning: other {what} than before, so the last bits may differ: {', '.join(differing)}")
    return lines


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
