"""The same lanes in worker processes, for environments that are slow to step.

Each worker owns a contiguous part of the flattened S x E lanes and runs `VectorEnv` over it. Arrays travel through one
block of shared memory, single bytes and error texts through pipes. A worker that dies or hangs is reported with its
lanes; every worker ends with its parent.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ddpg_jax.envs.host.traits import PLAIN, Traits
from ddpg_jax.envs.host.vector import EpisodeSeedFn, LaneNameFn, MakeFn, VectorEnv
from ddpg_jax.errors import EnvironmentFault, Interrupted
from ddpg_jax.types import EnvSpec, HostArray, Step, StopFn, never_stop

_START_SECONDS = 120.0
_LOOK_SECONDS = 0.5
"""Time between two looks at the workers that have not answered. The pipe of one that died tells at once, unless an
environment has started a process that was born with it."""


class _Part(NamedTuple):
    """The lanes of one worker."""

    first: int
    stop: int


class SubprocVectorEnv:
    """`VectorEnv` over worker processes; same arguments, same reports, same numbers.

    Args:
      make: makes one environment; it must be importable from a fresh process, as must `episode_seed`.
      shape: (S, E).
      episode_seed: `(lane, episode) -> seed`.
      spec: what one environment looks like.
      workers: number of processes, at most S x E are used.
      timeout: seconds a worker may take for one step.
      traits: likewise.
      lane_name: as in `VectorEnv`, and so are `info_keys`.
      info_keys: they are warned of by each worker.
      stop: asked again and again while workers are waited for; the lanes are of no use once it has said so.

    Raises:
      EnvironmentFault: a worker died, hung, or its environment failed; or it cannot be handed to another process.
      Interrupted: `stop` said so.
    """

    def __init__(
        self,
        make: MakeFn,
        shape: tuple[int, int],
        episode_seed: EpisodeSeedFn,
        *,
        spec: EnvSpec,
        workers: int,
        timeout: float,
        traits: Traits = PLAIN,
        lane_name: LaneNameFn | None = None,
        info_keys: Sequence[str] = (),
        stop: StopFn = never_stop,
    ) -> None:
        count = shape[0] * shape[1]
        self.spec, self.traits = spec, traits
        self._shape, self._timeout, self._stop = shape, timeout, stop
        cuts = np.linspace(0, count, min(workers, count) + 1).astype(int)
        self._parts = [_Part(int(a), int(b)) for a, b in pairwise(cuts)]
        _start_tracker()
        keys = tuple(info_keys)
        sizes = [a.nbytes for a in _arrays(None, spec, count, len(keys)).values()]
        self._memory = SharedMemory(create=True, size=sum(sizes))
        self._arrays = _arrays(self._memory, spec, count, len(keys))
        context = mp.get_context("spawn")
        self._closed = False
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        # multiprocessing ends by SIGTERM what is left when this process ends, and workers ignore that
        util.Finalize(self, _kill, (self._processes,), exitpriority=1)
        try:
            for part in self._parts:
                ours, theirs = context.Pipe()
                arguments = (theirs, self._memory.name, spec, shape, part, make, episode_seed, lane_name, keys)
                process = context.Process(target=_work, args=arguments, daemon=True)
                _start(process)
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)
            self._await(_START_SECONDS)
        except BaseException:
            self.close()
            raise

    def reset(self, episode: HostArray | None = None, active: HostArray | None = None) -> HostArray:
        """As `VectorEnv.reset`."""
        self._check_open()
        self._arrays["episode"][:] = 0 if episode is None else episode.reshape(-1)
        self._arrays["active"][:] = True if active is None else active.reshape(-1)
        self._command(b"r")
        return self._reshape("obs")

    def step(self, action: HostArray, active: HostArray | None = None) -> Step:
        """As `VectorEnv.step`."""
        self._check_open()
        self._arrays["action"][:] = action.reshape(self._arrays["action"].shape)
        self._arrays["active"][:] = True if active is None else active.reshape(-1)
        self._command(b"s")
        return Step(*(self._reshape(name) for name in Step._fields))

    @property
    def ended_info(self) -> HostArray:
        """As `VectorEnv.ended_info`."""
        return self._reshape("info")

    def close(self) -> None:
        """Ends the workers and frees the shared memory; no process remains. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        for pipe in self._pipes:
            pipe.close()  # a worker that reads a closed pipe ends
        deadline = time.monotonic() + 2.0
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes.clear()
        self._processes.clear()
        self._arrays = {}
        self._memory.close()
        self._memory.unlink()

    def _check_open(self) -> None:
        if self._closed:
            raise EnvironmentFault("the worker processes were closed; make new lanes")

    def _command(self, command: bytes) -> None:
        for i, pipe in enumerate(self._pipes):
            try:
                pipe.send_bytes(command)
            except OSError as error:
                raise EnvironmentFault(self._lost(i)) from error
        self._await(self._timeout)

    def _await(self, seconds: float) -> None:
        """Waits until every worker has answered, or one has died."""
        left, waiting = seconds, dict(enumerate(self._pipes))
        while waiting:
            if self._stop():
                raise Interrupted("interrupted while worker processes were waited for; start it again")
            began = time.monotonic()
            ready = wait(list(waiting.values()), timeout=min(max(0.0, left), _LOOK_SECONDS))
            left -= min(time.monotonic() - began, _LOOK_SECONDS)  # more passes only while it is suspended, as by Ctrl-Z
            heard = [i for i, pipe in waiting.items() if pipe in ready or (not ready and self._has_ended(i))]
            if not heard and left <= 0:
                raise EnvironmentFault(f"{self._name(next(iter(waiting)))} did not answer within {seconds:g} s")
            for i in heard:
                answer = self._answer(i)
                if answer:
                    raise EnvironmentFault(*answer.split("\0", 1))
                del waiting[i]

    def _has_ended(self, i: int) -> bool:
        return self._processes[i].exitcode is not None

    def _answer(self, i: int) -> str:
        try:
            if not self._pipes[i].poll():
                return self._lost(i)
            return self._pipes[i].recv_bytes().decode()
        except (EOFError, OSError):
            return self._lost(i)

    def _lost(self, i: int) -> str:
        if not self._has_ended(i):  # its pipe has, so it is about to
            self._processes[i].join(1.0)
        code = self._processes[i].exitcode
        how = f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        return f"{self._name(i)} {how}"

    def _name(self, i: int) -> str:
        part = self._parts[i]
        return f"worker process {i} (lanes {part.first} to {part.stop - 1}, counted over seeds x environments)"

    def _reshape(self, name: str) -> HostArray:
        values = self._arrays[name]
        return values.reshape(*self._shape, *values.shape[1:]).copy()


def _arrays(memory: SharedMemory | None, spec: EnvSpec, count: int, keys: int) -> dict[str, HostArray]:
    """The arrays in the block of shared memory, or arrays of their sizes without one."""
    layout: list[tuple[str, tuple[int, ...], Any]] = [
        ("info", (keys,), np.float64),
        ("action", (spec.action_size,), np.float32),
        ("reward", (), np.float32),
        ("obs", spec.obs_shape, spec.obs_dtype),
        ("next_obs", spec.obs_shape, spec.obs_dtype),
        ("terminated", (), np.bool_),
        ("truncated", (), np.bool_),
        ("active", (), np.bool_),
        ("episode", (), np.int64),
    ]
    arrays: dict[str, HostArray] = {}
    offset = 0
    for name, shape, dtype in layout:
        buffer = None if memory is None else memory.buf
        start = 0 if memory is None else offset
        arrays[name] = np.ndarray((count, *shape), dtype, buffer, start)
        offset += arrays[name].nbytes
    return arrays


def _start(process: BaseProcess) -> None:
    """Starts a worker.

    Raises:
      EnvironmentFault: what it is to run cannot be handed to another process.
    """
    try:
        with _main_left_alone():
            process.start()
    except OSError:
        raise
    except Exception as error:  # whatever there is that cannot be handed over
        raise EnvironmentFault(
            f"the environment cannot be handed to a worker process: {error}; "
            "put what makes it into a module, or set env.workers to 0"
        ) from error


@contextmanager
def _main_left_alone() -> Generator[None]:
    """A process that is started meanwhile does not run the program's main module again.

    What it needs of it is handed over. The module may be no file (`python -`, a notebook), or begin to train at once.
    """
    main = sys.modules["__main__"]
    kept = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    vars(main).pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(kept)


def _kill(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def _start_tracker() -> None:
    """Starts multiprocessing's tracker of shared memory, so that it outlives a notice sent to the process group."""
    if not hasattr(signal, "SIGUSR1"):
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: Any) -> None:
    """Ends this process when its parent has ended, even while an environment hangs."""
    wait([parent.sentinel])
    os._exit(1)


def _work(
    pipe: Connection,
    memory_name: str,
    spec: EnvSpec,
    shape: tuple[int, int],
    part: _Part,
    make: MakeFn,
    episode_seed: EpisodeSeedFn,
    lane_name: LaneNameFn | None,
    keys: tuple[str, ...],
) -> None:
    """The life of a worker: answers each command with an empty message, or with the text of an error."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):  # sent to the whole process group; the parent decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(mp.parent_process(),), daemon=True).start()
    memory = SharedMemory(memory_name)
    arrays = _arrays(memory, spec, shape[0] * shape[1], len(keys))
    mine = {name: values[part.first : part.stop] for name, values in arrays.items()}
    try:
        size = (part.stop - part.first, 1)
        names: Any = {"first_lane": part.first, "num_envs": shape[1], "lane_name": lane_name, "info_keys": keys}
        with closing(VectorEnv(make, size, episode_seed, **names)) as lanes:
            pipe.send_bytes(b"")
            while True:
                if pipe.recv_bytes() == b"r":
                    mine["obs"][:] = lanes.reset(mine["episode"][:, None], mine["active"][:, None])[:, 0]
                else:
                    step = lanes.step(mine["action"][:, None], mine["active"][:, None])
                    for name, values in step._asdict().items():
                        mine[name][:] = values[:, 0]
                    mine["info"][:] = lanes.ended_info[:, 0]
                pipe.send_bytes(b"")
    except EnvironmentFault as error:
        pipe.send_bytes(f"{error}\0{error.trace}".encode())
    except (EOFError, ConnectionError):
        pass  # the parent closed the pipe, or is gone


HostEnv: TypeAlias = VectorEnv | SubprocVectorEnv
