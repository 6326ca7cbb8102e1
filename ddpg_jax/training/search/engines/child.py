"""One start of a task as a child process: its group, its log, its end. The local engine and Ray's tasks use it."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ddpg_jax.training.search.engines.engine import log_path, mark_end, mark_start
from ddpg_jax.training.search.engines.launch import launch_words


class Child:
    """A running program, first of a process group of its own, so that Ctrl-C reaches its engine alone.

    Args:
      command: its words.
      directory: of its run; what it says goes into the log beside it.
      environment: its variables.
      cores: those that it may use; empty: all.
      folder: its working directory; None: that of this process.
      node: what the log calls the place where it runs; None: the name of this machine.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        cores: Sequence[int] = (),
        folder: str | None = None,
        node: str | None = None,
    ) -> None:
        self._log, self._began = log_path(directory), time.monotonic()
        mark_start(self._log, node or platform.node())
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                launch_words(os.getpid(), cores, command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                process_group=0,
            )

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self._began

    def poll(self) -> int | None:
        """Its exit code, or None while it runs. What it left of its process group is killed."""
        if self._process.returncode is not None:
            return self._process.returncode
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        self._kill_group()  # before its number, which is the group's, can be given to another
        code = self._process.wait()
        mark_end(self._log, code)
        return code

    def stop(self) -> None:
        """Asks it to save and end, with code 75; its own children hear of it from it."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def kill(self) -> int:
        """Ends it and its process group at once; returns its exit code."""
        if (code := self._process.returncode) is not None:
            return code
        self._kill_group()
        code = self._process.wait()
        mark_end(self._log, code)
        return code

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
