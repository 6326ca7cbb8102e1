"""The process that sends the record of a run while it is trained, and how training speaks with it.

It is another process so that nothing a back-end does can stop, slow or end training: not its imports, not a server that
does not answer, not a crash. It hears of the end of the run by its standard input: a line with the seconds that it has
left, or, where the trainer was killed, nothing but the end of the file; then it ends at once. What it has to tell is a
line of JSON on its standard output; what back-ends print goes to `followers/NAME.log`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from ddpg_jax.errors import StorageError, printable
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.sinks.position import follower_file

if TYPE_CHECKING:
    from ddpg_jax.runs.sinks.follower import Follower
    from ddpg_jax.runs.sinks.sweep import SweepFollower

POLL = 1.0
"""Seconds between two looks at the record."""

PATIENCE = 30.0
"""Seconds that one call of a sink may take once the run has ended; one that began long before gets two more."""

_SHORTEST, _LONGEST_WAIT = 2.0, 60.0
_WORK, _BUSY = 0.3, 10.0
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from ddpg_jax.runs.sinks import process; process.main()"
)


class Child:
    """A process that follows a run to a sink.

    Args:
      directory: of the run.
      name: of the sink.

    Raises:
      OSError: it cannot be started.
      StorageError: its folder cannot be made.
    """

    def __init__(self, directory: RunDirectory, name: str) -> None:
        log = follower_file(directory, name, ".log")
        command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), str(directory.path), name]
        with log.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - no shell, and words of our own
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                process_group=0,  # a Ctrl-C at the terminal is for the trainer
            )
        self._log = log

    def end(self, seconds: float) -> None:
        """Tells it that the run has ended, and how long it may take."""
        with suppress(OSError):
            _stream(self._process.stdin).write(f"{seconds}\n".encode())
            _stream(self._process.stdin).flush()

    def wait(self, seconds: float) -> str | None:
        """Waits for its end; what went wrong, or None."""
        try:
            said = self._process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            self.kill()
            return "it did not end"
        except ValueError:
            said = b""
        with suppress(ValueError, KeyError, TypeError):
            return json.loads(said.splitlines()[-1])["problem"] if said.strip() else self._ended()
        return self._ended()

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.communicate()

    def _ended(self) -> str:
        return f"its process ended with code {self._process.returncode}; {self._log} may say why"


def main() -> None:
    """The program of the child: `directory name`."""
    from ddpg_jax.runs.sinks.factory import make_follower

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError):
        os.nice(10)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    directory, name = RunDirectory(sys.argv[2]), sys.argv[3]
    clock = Clock(answer)
    threading.Thread(target=clock.listen, args=(sys.stdin,), daemon=True).start()
    clock.tell(follow(lambda: make_follower(directory, name), clock))


class Clock:
    """When a follower has to end.

    Args:
      answer: where it says how it ended.
    """

    def __init__(self, answer: IO[str]) -> None:
        self._answer, self._lock = answer, threading.Lock()
        self.ended = threading.Event()
        self._began = time.monotonic()
        self._doing = "begin"

    def begin(self, doing: str) -> None:
        """Notes that a call begins which may take long."""
        self._began, self._doing = time.monotonic(), doing

    def listen(self, stream: IO[str]) -> None:
        """Waits for the end of the run, then for the end of patience; in a thread of its own."""
        line = stream.readline()
        if not line:
            os._exit(1)  # the trainer was killed: what goes on with the run sends what is left
        end, left = time.monotonic(), float(line)
        self.ended.set()
        busy, worked = end + _SHORTEST, time.process_time()
        while (now := time.monotonic()) < end + left and now < max(self._began + PATIENCE, busy):
            if time.process_time() > worked + _WORK:  # it computes, as while it imports, and waits for nobody
                busy, worked = now + _BUSY, time.process_time()
            time.sleep(0.1)
        self.tell(f"no answer for {time.monotonic() - self._began:.0f} s when it was to {self._doing}")

    def tell(self, problem: str | None) -> None:
        """Says how it ended, and ends the process, whatever threads still wait."""
        with self._lock:
            self._answer.write(json.dumps({"problem": problem}) + "\n")
            self._answer.flush()
            os._exit(0)


def follow(begin: Callable[[], Follower | SweepFollower], clock: Clock) -> str | None:
    """Sends what is written until the run has ended; a sink that fails is tried again, less and less often.

    Args:
      begin: makes the follower.
      clock: says when the run has ended.

    Returns:
      What went wrong at last; None: all was sent.
    """
    follower, failures, problem = None, 0, None
    while True:
        ending, more = clock.ended.is_set(), False
        try:
            clock.begin("take rows")
            follower = follower or begin()
            more = follower.advance(at_end=ending)
            failures, problem = 0, None
        except Exception as error:  # whatever a back-end raises
            failures, problem = failures + 1, describe(error)
        if more:
            continue
        if ending:
            break
        clock.ended.wait(min(POLL * 2**failures, _LONGEST_WAIT))
    try:
        clock.begin("end")
        if follower is not None:
            follower.close()
    except Exception as error:
        problem = problem or describe(error)
    return problem


def describe(error: Exception) -> str:
    """An error of a back-end, on one line of a bounded length."""
    text = str(error).strip() if isinstance(error, StorageError) else f"{type(error).__name__}: {str(error).strip()}"
    return printable(text.partition("\n")[0])[:300]


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - it is a pipe
    return stream
