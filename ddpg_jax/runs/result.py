"""`result.json`: what a run reached, how fast, and on what."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ddpg_jax.runs.statistics import summarize
from ddpg_jax.xla.memory import available_cores

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
        "algorithm": config.algorithm.name,
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
        **system_info(),
    }


def system_info() -> dict[str, Any]:
    """Versions and devices, as they stand beside every figure."""
    devices = jax.devices()
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "device": {"kind": devices[0].device_kind, "platform": devices[0].platform, "count": len(devices)},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": available_cores()},
    }


def system_differences(before: Mapping[str, Any], *, single_device: bool = False) -> list[str]:
    """Lines of warning where `system_info` is not what it was before.

    Args:
      before: what it was.
      single_device: whether one device is used, however many there are.
    """
    now, lines = system_info(), list[str]()
    for what in ("versions", "device", "machine"):
        old, new = before[what], now[what]
        if what == "machine" and now["device"]["platform"] != "cpu":
            continue
        if what == "device" and single_device:
            new = new | {"count": old.get("count")}
        differing = [f"{name} {old.get(name)} -> {value}" for name, value in new.items() if old.get(name) != value]
        if differing:
            lines.append(f"warning: other {what} than before, so the last bits may differ: {', '.join(differing)}")
    return lines


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
