"""Processes of this machine, side by side, with cores and GPUs divided among them.

No number of threads is set: XLA and BLAS count the cores that a process may run on, and a number that was set would
keep the host loop from running its kernels on one thread (`ddpg_jax.xla.process`).
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

from ddpg_jax.errors import ConfigError
from ddpg_jax.training.search.engines.child import Child
from ddpg_jax.training.search.engines.engine import (
    Ended,
    EngineConfig,
    Starts,
    Task,
    last_words,
    log_path,
    pause_seconds,
    starts_again,
    stopped_code,
)
from ddpg_jax.types import StopFn

_LOOK_SECONDS = 0.1
_CLOSE_SECONDS = 10.0
"""Time between two looks at the processes, and what they have to end in when the engine is closed."""

_MEMORY_SHARE = 0.9


class Place(NamedTuple):
    """Room for one process.

    Attributes:
      cores: numbers of those that it may use.
      gpus: what CUDA_VISIBLE_DEVICES says to it; None: there are none to divide.
      share: of each GPU that it has.
    """

    cores: tuple[int, ...]
    gpus: tuple[str, ...] | None
    share: float

    def variables(self) -> dict[str, str]:
        """The environment variables that keep a process to its GPUs, and to its part of their memory."""
        return {} if self.gpus is None else gpu_variables(self.gpus, self.share)


def gpu_variables(gpus: tuple[str, ...], share: float) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES, and the part of their memory that jax takes at its start; no GPUs: none is seen."""
    variables = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    return variables | {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{_MEMORY_SHARE * share:.4g}"} if gpus else variables


def divide(config: EngineConfig, cores: list[int], gpus: list[str]) -> list[Place]:
    """Divides cores and GPUs among processes.

    Args:
      config: how many processes, and what each gets.
      cores: numbers of those that may be used.
      gpus: names of those that may be used.

    Returns:
      One place for each process. Where more cores are asked for than there are, processes share them in turn.

    Raises:
      ConfigError: there are not enough GPUs.
    """
    wanted = config.gpus_per_process if config.gpus_per_process is not None else float(bool(gpus))
    rooms = _gpu_rooms(wanted, gpus)
    if wanted and len(rooms) < (config.processes or 1):
        raise ConfigError(
            f"engine.processes = {config.processes or 1} with gpus_per_process = {wanted:g}: there is room for "
            f"{len(rooms)} on {len(gpus)} GPUs"
        )
    fitting = max(1, len(cores) // (config.cores_per_process or 1))
    count = config.processes or (min(fitting, len(rooms)) if wanted else fitting)
    each = config.cores_per_process or max(1, len(cores) // count)
    places: list[Place] = []
    for number in range(count):
        own = {cores[(number * each + i) % len(cores)] for i in range(each)}
        hidden = () if gpus else None
        places.append(Place(tuple(sorted(own)), rooms[number] if wanted else hidden, min(wanted, 1.0)))
    return places


def _gpu_rooms(wanted: float, gpus: list[str]) -> list[tuple[str, ...]]:
    """Which GPUs each process would have; those that share one follow each other last, so that all are used first."""
    if wanted >= 1:
        size = int(wanted)
        return [tuple(gpus[i : i + size]) for i in range(0, len(gpus) - size + 1, size)]
    sharers = int(1 / wanted + 1e-9) if wanted else 0
    return [(gpu,) for _ in range(sharers) for gpu in gpus]


def visible_gpus() -> list[str]:
    """The GPUs that programs started here would see: CUDA_VISIBLE_DEVICES, or all of the driver's."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [name.strip() for name in said.split(",") if name.strip() and name.strip() != "-1"]
    found = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(found, key=int)


def own_cores() -> list[int]:
    """The numbers of the cores that this process may use; without numbers, as on macOS, how many there are."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


class _Waiting(NamedTuple):
    """A task that will be started, not before some time."""

    task: Task
    starts: Starts
    not_before: float


class _Running(NamedTuple):
    task: Task
    starts: Starts
    place: Place
    child: Child


class LocalEngine:
    """Runs tasks as processes of this machine. All its methods belong to one thread: processes end with it.

    Args:
      config: of `[engine]`.

    Raises:
      ConfigError: there are not enough GPUs.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._retries = config.retries
        self._free = divide(config, own_cores(), visible_gpus())
        self._waiting: deque[_Waiting] = deque()
        self._running: list[_Running] = []

    def submit(self, task: Task) -> None:
        """Takes a task; see `Engine`."""
        self._waiting.append(_Waiting(task, Starts(), 0.0))

    def wait(self, stop: StopFn) -> list[Ended]:
        """Starts tasks and waits until one has ended for good; see `Engine`."""
        while self._waiting or self._running:
            if stop():
                return self._stop()
            self._start()
            if ended := self._collect(stopping=False):
                return ended
            time.sleep(_LOOK_SECONDS)
        return []

    def close(self) -> None:
        """Ends what still runs, by force if need be; see `Engine`."""
        self._waiting.clear()
        for running in self._running:
            running.child.stop()
        until = time.monotonic() + _CLOSE_SECONDS
        while self._running and time.monotonic() < until:
            self._collect(stopping=True)
            time.sleep(_LOOK_SECONDS)
        for running in self._running:
            running.child.kill()
        self._running = []

    def _start(self) -> None:
        """Starts what waits, in order, as long as there is a place."""
        now = time.monotonic()
        for waiting in [each for each in self._waiting if each.not_before <= now][: len(self._free)]:
            self._waiting.remove(waiting)
            place, task = self._free.pop(0), waiting.task
            child = Child(task.command, task.directory, os.environ | place.variables(), place.cores)
            self._running.append(_Running(task, waiting.starts, place, child))

    def _collect(self, *, stopping: bool) -> list[Ended]:
        """What has ended for good since the last look; what is started again waits."""
        ended: list[Ended] = []
        for running in list(self._running):
            if (code := running.child.poll()) is None:
                continue
            self._running.remove(running)
            self._free.append(running.place)
            starts = running.starts.add(code, running.child.seconds)
            if not stopping and starts_again(code, starts, self._retries):
                self._waiting.append(_Waiting(running.task, starts, time.monotonic() + pause_seconds(starts)))
                continue
            said = last_words(log_path(running.task.directory))
            ended.append(Ended(running.task.name, stopped_code(code) if stopping else code, starts.total, said))
        return ended

    def _stop(self) -> list[Ended]:
        """Asks what runs to stop, and waits for it; what waits is given up."""
        self._waiting.clear()
        for running in self._running:
            running.child.stop()
        ended: list[Ended] = []
        while self._running:
            ended += self._collect(stopping=True)
            time.sleep(_LOOK_SECONDS)
        return ended
