"""SLURM's commands: what they are asked, how their answers are read, and whether the controller answered at all."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import NamedTuple

from ddpg_jax.errors import ConfigError
from ddpg_jax.training.search.engines.engine import STOPPED, plain_code

_NO_ANSWER = re.compile(
    "unable to contact slurm controller|connect failure|connection refused|timed out|zero bytes were transmitted|"
    "temporarily unable",
    re.IGNORECASE,
)
"""What a command says that did not reach the controller, as while it starts anew; nothing follows of any job."""

_GOING = frozenset(
    [
        "PENDING",
        "RUNNING",
        "CONFIGURING",
        "COMPLETING",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "SIGNALING",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
        "SPECIAL_EXIT",
    ]
)
"""States of a job that has not ended; all others are final."""


class NoAnswer(ConfigError):
    """The controller did not answer; whether it did what it was asked is not known."""


class JobState(NamedTuple):
    """What the controller says of one task of an array.

    Attributes:
      state: PENDING, RUNNING, COMPLETED, ...
      code: exit code, negative for a signal; of no meaning while it goes on.
      node: where it ran last.
    """

    state: str
    code: int
    node: str

    @property
    def going(self) -> bool:
        """Whether it has not ended."""
        return self.state in _GOING


def job_states(arrays: set[str]) -> dict[str, JobState]:
    """What the controller says of the tasks of arrays, by `array_task`; it may have forgotten some.

    Raises:
      NoAnswer: it did not answer.
    """
    states: dict[str, JobState] = {}
    for array in arrays:
        try:
            said = run_command("scontrol", "--oneliner", "show", "job", array)
        except ConfigError as error:
            if "Invalid job id" in str(error):
                continue  # it has forgotten all of the array
            raise NoAnswer(str(error)) from error
        for line in said.splitlines():
            states |= _read_state(line)
    return states


def _read_state(line: str) -> dict[str, JobState]:
    """One line of `scontrol --oneliner show job`: a task, or those that have not begun, as 3,5-7%2."""
    fields = dict(re.findall(r"(\w+)=(\S*)", line))
    code, _, number = fields.get("ExitCode", "1:0").partition(":")
    state = fields.get("JobState", "UNKNOWN")
    ended_by = {"TIMEOUT": 15, "OUT_OF_MEMORY": 9, "NODE_FAIL": 9}.get(state, int(number))
    found = JobState(state, -ended_by if ended_by else plain_code(int(code)), fields.get("BatchHost", ""))
    found = found._replace(code=STOPPED) if state in ("CANCELLED", "PREEMPTED") else found
    return {f"{fields.get('ArrayJobId')}_{each}": found for each in _numbers(fields.get("ArrayTaskId", ""))}


def _numbers(text: str) -> list[int]:
    """`3,5-7%2` as numbers."""
    parts = [part.partition("-") for part in text.partition("%")[0].split(",") if part]
    return [each for low, dash, high in parts for each in range(int(low), int(high if dash else low) + 1)]


def nodes() -> set[str]:
    """The names of all nodes."""
    return set(run_command("sinfo", "--noheader", "--Node", "--format=%N").split()) if shutil.which("sinfo") else set()


def run_command(*words: str) -> str:
    """What one of SLURM's commands prints.

    Raises:
      ConfigError: it failed; with what it said.
      NoAnswer: it did not reach the controller.
    """
    done = subprocess.run(words, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-500:]
        raise (NoAnswer if _NO_ANSWER.search(said) else ConfigError)(f"{words[0]} failed: {said}")
    return done.stdout
