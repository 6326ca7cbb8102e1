"""Ray: a task for each start of a program, on whichever node has room; Ray never sees a seed.

A Ray task starts the same command line as a person would, as a process of its own, and waits for it: variables are set
before jax is imported, a crash of XLA is an exit code, and SIGTERM reaches a main thread. What can be resumed (75), and
what was lost with its worker or its node, Ray starts again by itself; all other codes come back and are judged here.
Run directories lie on storage that all nodes share. A cluster runs the code of whoever reaches it: keep its network
private.
"""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ddpg_jax.errors import ConfigError, Interrupted
from ddpg_jax.training.search.engines.child import Child
from ddpg_jax.training.search.engines.engine import (
    STOPPED,
    Ended,
    EngineConfig,
    Starts,
    Task,
    ended_by_signal,
    last_words,
    log_path,
    read_marks,
    starts_again,
    stopped_code,
)
from ddpg_jax.training.search.engines.local import gpu_variables
from ddpg_jax.types import StopFn

_LOOK_SECONDS = 0.2
_PAUSE_SECONDS = 1.0
"""Before what ended soon is started again."""

_SAVING_SECONDS = 600.0
"""For a program to save after a stop; where its node is lost meanwhile, nobody notes its end."""

_PASSED = ("JAX_", "XLA_", "DDPG_JAX_", "MUJOCO_", "OMP_NUM_THREADS", "NPROC", "PJRT_NPROC", "PYTHONPATH", "PATH")
"""Variables of the driver that its programs get on every node; Ray itself would set OMP_NUM_THREADS=1 for one core."""


class Outcome(NamedTuple):
    """What a Ray task returns: the exit code of its program, and the node where it ran."""

    code: int
    node: str


def run_child(command: tuple[str, ...], directory: str, variables: Mapping[str, str], folder: str, share: float) -> Any:
    """Runs one start of a program; this is what a worker of Ray executes, in its main thread.

    Args:
      command: its words.
      directory: of its run.
      variables: the driver's, see `_PASSED`; what is missing among them is unset.
      folder: working directory, if it exists on this node.
      share: of GPUs that Ray has given.

    Returns:
      An `Outcome` as a plain tuple.

    Raises:
      Interrupted: it can be resumed, and nobody asked it to stop: Ray starts it again.
    """
    node = import_module("ray").get_runtime_context().get_node_id()
    own = {name: value for name, value in os.environ.items() if not name.startswith(_PASSED)}
    gpus = tuple(os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")) if share else ()
    environment = own | dict(variables) | gpu_variables(gpus, min(share, 1.0))
    where: dict[str, Any] = {"folder": folder if Path(folder).is_dir() else None, "node": f"{platform.node()}/{node}"}
    child = Child(command, Path(directory), environment, **where)
    try:
        while (code := child.poll()) is None:
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:  # the driver cancelled this task
        child.stop()
        while (code := child.poll()) is None:
            time.sleep(_LOOK_SECONDS)
        return stopped_code(code), node
    finally:
        child.kill()
    if code == STOPPED:
        time.sleep(_PAUSE_SECONDS)
        raise Interrupted(f"{directory} was interrupted and goes on")
    return code, node


class _Submitted(NamedTuple):
    """A task that Ray has.

    Attributes:
      task: itself.
      starts: those that came back.
      before: marks of earlier starts in its log when it was submitted.
    """

    task: Task
    starts: Starts
    before: int


class RayEngine:
    """Runs tasks on a Ray cluster, or on a Ray of its own on this machine.

    Args:
      config: of `[engine]`.

    Raises:
      ConfigError: Ray is not installed, or the cluster is not reached.
    """

    def __init__(self, config: EngineConfig) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # it is 15: programs beside others would hardly run
        try:
            ray = import_module("ray")
        except ImportError as error:
            raise ConfigError("engine.kind = \"ray\" needs Ray: pip install 'ddpg-jax[ray]'") from error
        self._ray, self._config, self._own = ray, config, not ray.is_initialized()
        if self._own:
            _connect(ray, config.address)
        self._cores, self._gpus = config.cores_per_process or 1, config.gpus_per_process or 0.0
        self._refs: dict[Any, _Submitted] = {}

    def submit(self, task: Task) -> None:
        """Takes a task and hands it to Ray at once; see `Engine`."""
        self._hand_over(_Submitted(task, Starts(), read_marks(log_path(task.directory)).starts))

    def wait(self, stop: StopFn) -> list[Ended]:
        """Waits until a task has ended for good; see `Engine`."""
        while self._refs:
            if stop():
                return self._stop()
            done, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=_LOOK_SECONDS)
            if ended := [each for ref in done for each in self._judge(ref)]:
                return ended
        return []

    def close(self) -> None:
        """Ends what still runs: a worker that is killed takes its program along; see `Engine`."""
        for ref in self._refs:
            with suppress(Exception):
                self._ray.cancel(ref, force=True)
        self._refs = {}
        if self._own:
            self._ray.shutdown()

    def _hand_over(self, submitted: _Submitted, avoid: str = "") -> None:
        """Has Ray start a task, on another node than the one to avoid if there is another."""
        strategy: Any = "SPREAD"
        others = [node["NodeID"] for node in self._ray.nodes() if node["Alive"] and node["NodeID"] != avoid]
        if avoid and others:
            strategies = import_module("ray.util.scheduling_strategies")
            strategy = strategies.NodeAffinitySchedulingStrategy(
                others[submitted.starts.total % len(others)], soft=True
            )
        remote = self._ray.remote(run_child).options(
            num_cpus=self._cores,
            num_gpus=self._gpus,
            max_retries=-1,
            retry_exceptions=[Interrupted],
            scheduling_strategy=strategy,
            name=submitted.task.name,
        )
        variables = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
        task = submitted.task
        directory = str(task.directory.absolute())
        ref = remote.remote(task.command, directory, variables, os.getcwd(), self._gpus)
        self._refs[ref] = submitted

    def _judge(self, ref: Any) -> list[Ended]:
        """What has come of a task that Ray gave back; nothing if it is started again."""
        submitted = self._refs.pop(ref)
        code, node, said = self._outcome(ref)
        starts = submitted.starts.add(code, 0.0)
        if starts_again(code, starts, self._config.retries):
            time.sleep(_PAUSE_SECONDS)
            self._hand_over(submitted._replace(starts=starts), avoid="" if ended_by_signal(code) else node)
            return []
        return [self._ended(submitted, code, said)]

    def _outcome(self, ref: Any) -> tuple[int, str, str]:
        """Code, node, and what Ray says where the task itself could not end."""
        try:
            code, node = self._ray.get(ref)
        except self._ray.exceptions.TaskCancelledError:
            return STOPPED, "", ""
        except self._ray.exceptions.RayError as error:
            return 1, "", str(error)[-1000:]
        return code, node, ""

    def _ended(self, submitted: _Submitted, code: int, said: str) -> Ended:
        log = log_path(submitted.task.directory)
        attempts = read_marks(log).starts - submitted.before
        return Ended(submitted.task.name, code, attempts, said or last_words(log))

    def _stop(self) -> list[Ended]:
        """Cancels all tasks: running ones ask their programs to stop, those that never started are given up."""
        for ref in self._refs:
            self._ray.cancel(ref, force=False)
        ended: list[Ended] = []
        for ref in list(self._refs):
            submitted = self._refs.pop(ref)
            code, _, said = self._outcome(ref)
            log = log_path(submitted.task.directory)
            code = self._awaited_code(log) if code == STOPPED else code
            if read_marks(log).starts > submitted.before:
                ended.append(self._ended(submitted, code, said))
        return ended

    def _awaited_code(self, log: Path) -> int:
        """The code of a cancelled start, waited for: Ray may call a task cancelled while its program still saves."""
        until = time.monotonic() + _SAVING_SECONDS
        while (marks := read_marks(log)).starts and marks.code is None and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        return STOPPED if marks.code is None else stopped_code(marks.code)


def _connect(ray: Any, address: str | None) -> None:
    """Joins a cluster, or starts one of this machine; Ray takes SIGTERM for itself there, and has to give it back."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        more: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level="error", **more)
    except Exception as error:  # Ray raises Exception itself where a node does not come up
        what = f"no Ray cluster is reached at engine.address = {address!r}" if address else "Ray does not start here"
        raise ConfigError(f"{what}: {error}") from error
    finally:
        with suppress(ValueError):  # in another thread than the main one, where Ray took nothing
            signal.signal(signal.SIGTERM, before)


def cluster_versions(address: str) -> tuple[str, str]:
    """Versions of Ray and Python of a running cluster, which Ray itself compares where one joins.

    Raises:
      ConfigError: it is not reached, or has other versions than this process.
    """
    ray = import_module("ray")
    joined = not ray.is_initialized()
    if joined:
        _connect(ray, address)
    try:
        return tuple(ray.get(ray.remote(_versions).options(num_cpus=0).remote()))
    finally:
        if joined:
            ray.shutdown()


def _versions() -> list[str]:
    """Of a node."""
    return [import_module("ray").__version__, platform.python_version()]
