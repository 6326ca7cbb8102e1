"""Becomes another program that ends with its parent: `python -I launch.py PARENT CORES COMMAND...`.

It is run as a file of its own, and imports the standard library alone. What it does could stand in a function between
fork and exec, too; but that is not safe in a process that has threads, and Python 3.12 warns of it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def launch_words(parent: int, cores: Sequence[int], command: Sequence[str]) -> list[str]:
    """The command line by which a program is started.

    Args:
      parent: process that starts it; in the thread that does so, as that thread's end counts.
      cores: those that it may use; empty: all.
      command: the program's own words.
    """
    return [sys.executable, "-I", "-S", __file__, str(parent), ",".join(map(str, cores)), *command]


def die_with(parent: int) -> None:
    """Has the system kill this process when its parent ends, however that comes about; on Linux only.

    SIGKILL, not SIGTERM: who starts the same task anew must not find this one still saving. What was saved counts.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before that
        os._exit(128 + signal.SIGKILL)


def main(words: Sequence[str]) -> None:
    """Becomes the program."""
    parent, cores, *command = words
    die_with(int(parent))
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
