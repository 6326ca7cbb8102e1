"""Several processes, each training its own seeds on its own devices, and one result of all.

No program spans two processes: seeds do not talk to each other, so all that crosses the network is the returns, once,
at the end, and at each report whether a stop was asked for.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from ddpg_jax.config.load import dump_toml
from ddpg_jax.config.schema import Config
from ddpg_jax.config.wording import option
from ddpg_jax.errors import ConfigError, DdpgJaxError, Interrupted, StorageError, printable
from ddpg_jax.runs import filesystem
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.loggers.progress import message_printer
from ddpg_jax.runs.plots import learning_curve
from ddpg_jax.runs.statistics import summarize
from ddpg_jax.training.run import Run
from ddpg_jax.training.shared_stop import SharedStop
from ddpg_jax.training.signals import StopRequest
from ddpg_jax.training.train import train
from ddpg_jax.types import HostArray


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the processes of a job; to be called before anything of jax is used.

    Args:
      coordinator: `host:port` of the first process; None: found out from the cluster (SLURM, Open MPI, Cloud TPU, ...).
      num_processes: how many there are; None: as above.
      process_id: which of them this one is, from 0; None: as above.

    Raises:
      ConfigError: the others were not found.
    """
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the processes of the job did not find each other: {error}; outside a cluster that jax knows, give "
            f"{option('coordinator')} as HOST:PORT, {option('num_processes')} and {option('process_id')}"
        ) from error


def own_seeds(config: Config) -> Config:
    """The configuration with the seeds of this process: the whole list is divided in order.

    Raises:
      ConfigError: the seeds cannot be divided evenly.
    """
    count, index = jax.process_count(), jax.process_index()
    share, rest = divmod(len(config.seed_list), count)
    if rest:
        raise ConfigError(f"{len(config.seed_list)} seeds cannot be divided evenly among {count} processes")
    return config.model_copy(update={"seeds": config.seed_list[index * share : (index + 1) * share]})


def train_distributed(
    config: Config,
    run_dir: str | Path,
    *,
    overwrite: bool = False,
    resume: Literal["never", "auto"] = "never",
    console: Console | None = None,
    quiet: bool = False,
) -> Run:
    """Trains the seeds of this process; process 0 then writes the result of all.

    Args:
      config: the whole run, the same in every process.
      run_dir: directory of the whole; each process writes a run of its own into `process-<i>` of it.
      overwrite: whether the files of an earlier run there may be removed.
      resume: "auto": each process goes on with the run that it finds in its directory, if it finds one.
      console: as in `train`.
      quiet: as in `train`.

    Returns:
      The run of all; every process returns the same result.

    Raises:
      ConfigError: the seeds cannot be divided evenly.
      StorageError: there is a run and `overwrite` is not set.
      Interrupted: a signal was heard by a process, or another one failed: all end at the same report, saved, and once
        they have, `resume="auto"` goes on.
      DdpgJaxError: the processes have no evaluation in common.
    """
    whole, own_dir = RunDirectory(run_dir), Path(run_dir) / f"process-{jax.process_index()}"
    if resume == "never":
        _make_room(whole, overwrite)
    shares = _tell_all(_own_share(config))
    if jax.process_index() == 0 and (console is not None or not quiet):
        say = print if console is None else message_printer(console)
        for line in map(_in_words, shares):
            say(line)
    with StopRequest() as heard, SharedStop(heard) as stop:
        how: dict[str, Any] = {"overwrite": overwrite, "resume": resume, "console": console, "quiet": quiet}
        try:
            own = train(own_seeds(config), own_dir, callbacks=stop.callbacks, **how)
        except Interrupted as error:  # which tells how the run of this process goes on, and alone it cannot
            raise Interrupted(
                "interrupted, as all processes of the job are; to go on, start each of them again with "
                f"{option('resume', 'auto')}"
            ) from error
    steps, returns = _evaluations_of_all(RunDirectory(own.directory).metrics)
    if not steps:
        raise DdpgJaxError("the processes have no evaluation in common; what each one reached is in process-<i>")
    figures = ("env_steps_per_second", "updates_per_second", "env_steps_per_seed", "updates_per_seed", "complete")
    rates, updates, *reached = _from_all(np.array([own.result[name] for name in figures], np.float64)).T
    lost = _from_all(np.isin(own_seeds(config).seed_list, own.result.get("diverged_seeds", [])).astype(np.int64))
    kept, diverged = divide_seeds(config.seed_list, lost.reshape(-1) > 0)
    returns = returns[:, lost.reshape(-1) == 0]
    summaries: list[dict[str, Any]] = [
        {"step": step, **summarize(each)} for step, each in zip(steps, returns, strict=True)
    ]
    result = own.result | {
        "seeds": kept,
        **({"diverged_seeds": diverged} if diverged else {}),
        "processes": jax.process_count(),
        "shares": shares,
        "complete": bool(reached[2].all()),
        "final": summaries[-1],
        "best": max(summaries, key=lambda summary: summary["interquartile_mean"]),
        "env_steps_per_second": float(rates.sum()),
        "updates_per_second": float(updates.sum()),
        "env_steps_per_seed": int(reached[0].min()),
        "updates_per_seed": int(reached[1].min()),
    }
    if jax.process_index() == 0:
        whole.write_text(whole.config, dump_toml(config))
        whole.write_result(result)
        title = f"{config.env.id}, {config.algorithm_name}"
        learning_curve(whole.learning_curve, np.array(steps), returns.mean(2), title)
    multihost_utils.sync_global_devices("the result is written")
    return Run(whole.path, config, result)


def _own_share(config: Config) -> dict[str, Any]:
    """What this process does."""
    devices = jax.local_devices()
    return {
        "process": jax.process_index(),
        "host": platform.node(),
        "devices": len(devices),
        "device": devices[0].device_kind,
        "seeds": list(own_seeds(config).seed_list),
    }


def _in_words(share: dict[str, Any]) -> str:
    """A line of who does what."""
    seeds, devices = ", ".join(map(str, share["seeds"])), f"{share['devices']} x {share['device']}"
    return printable(f"process {share['process']} on {share['host']}, {devices}: seeds {seeds}")


def divide_seeds(seeds: Sequence[int], lost: HostArray) -> tuple[list[int], list[int]]:
    """The seeds that are left, and those that have diverged, bool `[S]`."""
    pairs = list(zip(seeds, lost.tolist(), strict=True))
    return [seed for seed, gone in pairs if not gone], [seed for seed, gone in pairs if gone]


def _make_room(whole: RunDirectory, overwrite: bool) -> None:
    """Refuses a directory that holds a run, or removes what is there of an earlier job and would not be replaced."""
    if not overwrite and (whole.config.exists() or any(whole.path.glob("process-*"))):
        raise StorageError(
            f"{whole.path} holds a run: name another {option('run_dir')}, go on with it by {option('resume', 'auto')}, "
            f"or replace it with {option('overwrite')}"
        )
    multihost_utils.sync_global_devices("the directory was looked at")
    if jax.process_index() == 0:
        for path in (whole.config, whole.result, whole.learning_curve):
            path.unlink(missing_ok=True)
        for path in whole.path.glob("process-*"):
            own = path.name in {f"process-{i}" for i in range(jax.process_count())}
            if not own and RunDirectory(path).config.is_file():  # that of a run, and of a link the link alone
                filesystem.remove(path)


def _evaluations_of_all(metrics: Path) -> tuple[list[int], HostArray]:
    """Steps `[N]` that every process has evaluated at, and the returns of all seeds there, `[N, S, episodes]`."""
    steps, returns = _evaluations(metrics)
    most = int(_from_all(np.array([len(steps)], np.int64)).max())
    told = _from_all(np.array(steps + [-1] * (most - len(steps)), np.int64))
    common = sorted(set.intersection(*(set(each.tolist()) for each in told)) - {-1})
    kept = np.array([returns[steps.index(step)] for step in common])
    return common, np.concatenate(list(_from_all(kept)), 1) if common else kept


def _evaluations(metrics: Path) -> tuple[list[int], HostArray]:
    """Steps and returns `[N, S, episodes]` of the evaluations of a run, from its record."""
    by_step: dict[int, list[list[float]]] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        if row["event"] == "evaluation":
            by_step.setdefault(row["step"], []).append(row["returns"])
    return list(by_step), np.array(list(by_step.values()))


def _tell_all(said: dict[str, Any]) -> list[dict[str, Any]]:
    """What every process says, in their order."""
    text = json.dumps(said).encode()
    longest = int(_from_all(np.array([len(text)], np.int64)).max())
    padded = text.ljust(-(-longest // 8) * 8)
    return [json.loads(each.tobytes()) for each in _from_all(np.frombuffer(padded, np.int64))]


def _from_all(values: HostArray) -> HostArray:
    """The values of every process, `[processes, ...]`, of a dtype of 8 bytes; they travel as words, unrounded."""
    words = multihost_utils.process_allgather(values[..., None].view(np.uint32))
    return np.ascontiguousarray(words).view(values.dtype)[..., 0]
