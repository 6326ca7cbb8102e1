"""What all engines share: tasks, what comes of them, when one is started again, and the log of its starts.

An engine starts command lines and looks at their exit codes; it knows nothing of configurations or seeds.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import Field, ValidationError, model_validator

from ddpg_jax.config.mistakes import nearest, shown
from ddpg_jax.config.section import Count, CountOrZero, Section
from ddpg_jax.errors import ConfigError, Interrupted, StorageError
from ddpg_jax.types import StopFn

EngineKind = Literal["local", "ray", "slurm", "kubernetes"]

MAX_STORAGE_STARTS = 3
"""Starts of a task that ends with the code of a storage error."""

STOPPED = Interrupted.exit_code

SHORT_SECONDS = 10.0
"""What ends sooner is not started again at once."""

_SAID_LINES, _SAID_BYTES = 8, 4000
_MARK = re.compile(r"^--- (?:start on (?P<node>\S*)|ended with (?P<code>-?\d+))", re.MULTILINE)


class Task(NamedTuple):
    """A program to be run to its end.

    Attributes:
      name: unlike that of any other task.
      command: the words of its command line, which goes on where an earlier start left off.
      directory: of its run. Its log lies beside it, see `log_path`, as a run begins in an empty directory.
    """

    name: str
    command: tuple[str, ...]
    directory: Path


class Ended(NamedTuple):
    """What came of a task.

    Attributes:
      name: of the task.
      code: its exit code; negative: the number of the signal that ended it.
      attempts: how often it was started.
      said: the last lines of its last start.
    """

    name: str
    code: int
    attempts: int
    said: str


class Engine(Protocol):
    """Runs tasks, as many side by side as there is room for."""

    def submit(self, task: Task) -> None:
        """Takes a task; it is started when there is room, by `wait` at the latest."""
        ...

    def wait(self, stop: StopFn) -> list[Ended]:
        """Waits until at least one task has ended for good.

        Args:
          stop: asked again and again. Once it says so, running tasks are asked to stop (SIGTERM), and are waited for;
            those that can be resumed have code 75. Tasks that were not started are given up.

        Returns:
          What ended; empty if there is nothing to wait for, or only if `stop` said so.
        """
        ...

    def close(self) -> None:
        """Ends what still runs; nothing outlives an engine."""
        ...


class EngineConfig(Section):
    """`[engine]`: what runs the programs of a sweep."""

    kind: EngineKind = "local"
    """local: processes of this machine; ray, slurm: of a cluster; kubernetes: written as text, not run"""
    processes: Count | None = None
    """local: programs side by side; left out: as many as there are cores and GPUs for; slurm: at most so many"""
    cores_per_process: Count | None = None
    """left out: 1, or what each of `processes` can have"""
    gpus_per_process: float | None = Field(default=None, ge=0, le=64)
    """a whole number, or a fraction if programs share one; left out: local one where there are any, elsewhere 0"""
    address: str | None = None
    """ray: of the cluster, as "auto"; left out: one is started on this machine"""
    partition: str | None = None
    """slurm: which part of the cluster; left out: the default"""
    time: str | None = Field(default=None, pattern=r"^(\d+-)?\d+(:\d+){0,2}$")
    """slurm: limit of one start, as "4:00:00"; what is not done by then is put into the queue again"""
    lines: tuple[str, ...] = ()
    """slurm: lines of the script before the command, as "#SBATCH --mem=8G" or "module load cuda\""""
    requeue: Literal["script", "site"] = "script"
    """slurm: who puts an interrupted task into the queue again; site: its slurm.conf says RequeueExit=75"""
    image: str | None = None
    """kubernetes: container image that holds this package"""
    volume: str | None = None
    """kubernetes: claim of a volume that all nodes can write, mounted where the runs lie"""
    namespace: str = "default"
    """kubernetes: where the job belongs"""
    retries: CountOrZero = 2
    """starts more of a task that a signal ended; then that is its result"""

    @model_validator(mode="after")
    def _check_kind(self) -> EngineConfig:
        for kinds, names in _OF_KIND.items():
            for name in names:
                if name in self.model_fields_set and self.kind not in kinds:
                    allowed = " or ".join(f'"{kind}"' for kind in kinds)
                    raise ValueError(f'{name} belongs to engine.kind = {allowed}, not "{self.kind}"')
        gpus = self.gpus_per_process or 0.0
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus_per_process = {gpus}: must be a fraction below 1, or a whole number")
        if 0 < gpus < 1 and self.kind in ("slurm", "kubernetes"):
            raise ValueError(f'gpus_per_process = {gpus}: engine.kind = "{self.kind}" gives whole GPUs only')
        return self


_OF_KIND: dict[tuple[str, ...], tuple[str, ...]] = {
    ("local", "slurm"): ("processes",),
    ("ray",): ("address",),
    ("slurm",): ("partition", "time", "lines", "requeue"),
    ("kubernetes",): ("image", "volume", "namespace"),
}
"""Fields that have an effect with some engines only."""


def parse_engine(table: Mapping[str, Any], where: str) -> EngineConfig:
    """Checks an `[engine]` table.

    Args:
      table: its values.
      where: what it stands in, for messages.

    Raises:
      ConfigError: it lists every mistake.
    """
    try:
        return EngineConfig.model_validate(dict(table))
    except ValidationError as error:
        lines: list[str] = []
        for details in error.errors(include_url=False):
            name = ".".join(["engine", *map(str, details["loc"])])
            if details["type"] == "extra_forbidden":
                said = f"{name}: unknown key{nearest(str(details['loc'][-1]), list(EngineConfig.model_fields))}"
            else:
                message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
                said = f"{name} = {shown(details['input'])}: {message}" if details["loc"] else message
            lines.append(f"  {said}")
        raise ConfigError("\n".join([f"{where}: [engine] is wrong:", *lines])) from error


class Starts(NamedTuple):
    """How often a task was started, and how those starts ended.

    Attributes:
      total: all of them.
      storage: those that ended with the code of a storage error.
      signals: those that a signal ended.
      short: those at the end that lasted less than `SHORT_SECONDS` each.
    """

    total: int = 0
    storage: int = 0
    signals: int = 0
    short: int = 0

    def add(self, code: int, seconds: float) -> Starts:
        """These and one more that ended."""
        return Starts(
            self.total + 1,
            self.storage + (code == StorageError.exit_code),
            self.signals + ended_by_signal(code),
            self.short + 1 if seconds < SHORT_SECONDS else 0,
        )


def starts_again(code: int, starts: Starts, retries: int) -> bool:
    """Whether a task that ended so, and was not asked to stop, is started once more.

    Args:
      code: of its last start.
      starts: the last one among them.
      retries: starts more of a task that a signal ended.
    """
    if code == STOPPED:
        return True
    if code == StorageError.exit_code:
        return starts.storage < MAX_STORAGE_STARTS
    return ended_by_signal(code) and starts.signals <= retries


def ended_by_signal(code: int) -> bool:
    """Whether a code says that a signal ended the program: Python's negative number, or a shell's 128 + n."""
    return code < 0 or 128 < code <= 128 + 64


def plain_code(code: int) -> int:
    """The code with a signal as Python writes it, negative."""
    return 128 - code if code > 0 and ended_by_signal(code) else code


def stopped_code(code: int) -> int:
    """The code of a task that was asked to stop: one that could not listen yet is as resumable as before."""
    return STOPPED if plain_code(code) == -signal.SIGTERM else code


def pause_seconds(starts: Starts) -> float:
    """How long to wait before a task is started again, so that one that always ends at once does not fill the machine.

    A start that finds the lock of a predecessor that is just ending gets another chance in this way, too.
    """
    return min(30.0, 0.1 * 2.0 ** min(starts.short, 10)) if starts.short else 0.0


def log_path(directory: Path) -> Path:
    """Where all starts of a task write what they say: beside its directory, which must be empty for a new run."""
    return directory.with_name(directory.name + ".log")


def mark_start(log: Path, node: str) -> None:
    """Notes in a log that a start begins, and where."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _append(log, f"--- start on {node}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")


def mark_end(log: Path, code: int) -> None:
    """Notes in a log how a start ended."""
    _append(log, f"--- ended with {code}\n")


class LogMarks(NamedTuple):
    """What the marks in a log say.

    Attributes:
      starts: how many there were.
      node: where the last one was.
      code: how it ended; None: that is not noted, as it, or who watched it, was killed.
    """

    starts: int
    node: str
    code: int | None


def read_marks(log: Path) -> LogMarks:
    """Reads the marks of a log; no log: nothing was started."""
    found = list(_MARK.finditer(_read(log)))
    starts = [mark for mark in found if mark["node"] is not None]
    code = found[-1]["code"] if found else None
    return LogMarks(len(starts), starts[-1]["node"].rstrip(",") if starts else "", None if code is None else int(code))


def last_words(log: Path) -> str:
    """The last lines that the last start wrote into a log, without our marks."""
    text = _read(log)[-_SAID_BYTES:]
    text = text[text.rfind("--- start on ") :] if "--- start on " in text else text
    lines = [line for line in text.splitlines() if line.strip() and not _MARK.match(line)]
    return "\n".join(lines[-_SAID_LINES:])


def _read(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _append(log: Path, text: str) -> None:
    """One write at the end of a file, in a line of its own."""
    with open(log, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            text = text if file.read(1) == b"\n" else "\n" + text
        file.write(text.encode())
