"""SLURM: one array job for the tasks that are submitted together, as a script that a person can read.

Each start of the array's script is a start of one task. SLURM sends SIGTERM `NOTICE_SECONDS` before the time limit;
the program saves and ends with 75, and the task goes into the queue again: `engine.requeue = "site"` leaves that to the
controller, whose slurm.conf then says RequeueExit=75, and the script becomes the program; with "script" it does so
itself. Run directories, and the folder of the sweep, lie on storage that all nodes share.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ddpg_jax.errors import ConfigError
from ddpg_jax.training.search.engines.engine import (
    STOPPED,
    Ended,
    EngineConfig,
    Starts,
    Task,
    last_words,
    log_path,
    plain_code,
    read_marks,
    starts_again,
    stopped_code,
)
from ddpg_jax.training.search.engines.slurm_commands import JobState, NoAnswer, job_states, nodes, run_command
from ddpg_jax.types import StopFn

NOTICE_SECONDS = 180
"""From the notice to the end of a job, for a run to save."""

_LOOK_SECONDS = 3.0
"""Between two questions to the controller; it forgets jobs `MinJobAge` (300 s by default) after their end."""

_PATIENCE_SECONDS = 60.0
"""For an answer of the controller at the first question and at a stop. While jobs run it is waited for without end."""

_START = """printf '\\n--- start on %s, %s\\n' "$SLURMD_NODENAME" "$(date '+%F %T')" >>"$log\""""

_BY_SCRIPT = """\
trap 'noticed=1; [ -n "$program" ] && kill -TERM $program' TERM
"$@" >>"$log" 2>&1 &
program=$!
[ -n "$noticed" ] && kill -TERM $program
while :; do
  noticed=
  wait $program
  code=$?
  [ $code -gt 128 ] && [ -n "$noticed" ] || break  # else the notice ended the wait, not the program
done
printf '\\n--- ended with %s\\n' $code >>"$log"
if [ $code -eq 75 ]; then scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"; fi
exit $code"""

_BY_SITE = 'exec "$@" >>"$log" 2>&1'


def render(tasks: Sequence[Task], config: EngineConfig, folder: Path | None = None, avoid: Sequence[str] = ()) -> str:
    """The script of an array job, one task of the array for each of ours.

    Args:
      tasks: at least one.
      config: of `[engine]`.
      folder: of the sweep; the job's name is made of it, and what SLURM itself says goes there.
      avoid: nodes that must not be used.

    Returns:
      Text for sbatch.
    """
    cores, gpus = config.cores_per_process or 1, int(config.gpus_per_process or 0)
    options = {
        "job-name": job_name(folder),
        "array": f"0-{len(tasks) - 1}" + (f"%{config.processes}" if config.processes else ""),
        "output": shlex.quote(f"{folder.absolute()}/slurm/%A_%a.out") if folder else "slurm-%A_%a.out",
        "open-mode": "append",
        "signal": f"B:TERM@{NOTICE_SECONDS}",
        "cpus-per-task": str(cores),
        "gpus-per-task": str(gpus) if gpus else "",
        "partition": config.partition or "",
        "time": config.time or "",
        "exclude": ",".join(avoid),
    }
    lines = ["#!/bin/bash", *(f"#SBATCH --{name}={value}" for name, value in options.items() if value)]
    lines += ["#SBATCH --ntasks=1", "#SBATCH --requeue", *config.lines, "", 'case "$SLURM_ARRAY_TASK_ID" in']
    for number, task in enumerate(tasks):
        log = shlex.quote(str(log_path(task.directory.absolute())))
        lines += [
            f"{number})  # {task.name}".replace("\n", " "),
            f"  log={log}",
            f"  set -- {shlex.join(task.command)}",
            "  ;;",
        ]
    lines += ["esac", 'mkdir -p "$(dirname "$log")"']
    lines.append(_START)
    return "\n".join([*lines, _BY_SITE if config.requeue == "site" else _BY_SCRIPT, ""])


def job_name(folder: Path | None) -> str:
    """The name of all jobs of a sweep, by which a driver finds those of one that was killed."""
    return "ddpg-jax" + (f"-{zlib.crc32(os.fsencode(folder.absolute())):08x}" if folder else "")


class _Job(NamedTuple):
    """A task in an array.

    Attributes:
      task: itself.
      starts: those of earlier arrays.
      before: marks of earlier starts in its log when it was first submitted.
      settled: whether it was seen to end with 75 once; the controller may be just about to queue it again.
    """

    task: Task
    starts: Starts
    before: int
    settled: bool = False


class _Array(NamedTuple):
    """Tasks that are submitted together.

    Attributes:
      script: what sbatch is given.
      jobs: of its tasks, in their order.
      asked: whether sbatch was run, and no answer came: the controller may have the array.
    """

    script: Path
    jobs: list[_Job]
    asked: bool = False


class SlurmEngine:
    """Submits tasks with sbatch and asks the controller what came of them.

    Args:
      config: of `[engine]`.
      folder: of the sweep; scripts are written into its `slurm/`.

    Raises:
      ConfigError: SLURM's commands are not there.
    """

    def __init__(self, config: EngineConfig, folder: Path) -> None:
        if missing := [name for name in ("sbatch", "scontrol", "scancel", "squeue") if shutil.which(name) is None]:
            raise ConfigError(
                f'engine.kind = "slurm" needs {", ".join(missing)}: start the sweep where jobs are submitted'
            )
        self._config, self._folder = config, folder
        self._queued: list[_Job] = []
        self._array: _Array | None = None
        self._jobs: dict[str, _Job] = {}
        self._avoid: set[str] = set()
        self._cancel_all()

    def submit(self, task: Task) -> None:
        """Takes a task; it goes to SLURM with the others at the next `wait`; see `Engine`."""
        self._queued.append(_Job(task, Starts(), read_marks(log_path(task.directory)).starts))

    def wait(self, stop: StopFn) -> list[Ended]:
        """Submits what is queued and waits until a task has ended for good; see `Engine`."""
        while self._queued or self._array or self._jobs:
            if stop():
                return self._stop()
            with suppress(NoAnswer):  # the controller starts anew; the jobs do not notice
                self._submit_queued()
                if ended := self._collect():
                    return ended
            until = time.monotonic() + _LOOK_SECONDS
            while not stop() and time.monotonic() < until:
                time.sleep(0.1)
        return []

    def close(self) -> None:
        """Cancels what still runs; see `Engine`."""
        self._queued = []
        if self._jobs or self._array:
            self._cancel_all()
        self._jobs, self._array = {}, None

    def _submit_queued(self) -> None:
        """Makes one array of what is queued; one of which no answer came is looked for first, not made twice."""
        if self._array is None and self._queued:
            self._array = _Array(self._write_script(), self._queued)
            self._queued = []
        if self._array is None or self._found():
            return
        try:
            said = run_command("sbatch", "--parsable", str(self._array.script))
        except NoAnswer:
            self._array = self._array._replace(asked=True)
            raise
        self._note(said.strip().partition(";")[0])

    def _write_script(self) -> Path:
        scripts = self._folder / "slurm"
        scripts.mkdir(parents=True, exist_ok=True)
        avoid = sorted(self._avoid) if self._avoid and self._avoid < nodes() else []
        script = scripts / f"array-{len(list(scripts.glob('array-*.sh'))):04d}.sh"
        tasks = [job.task for job in self._queued]
        script.write_text(render(tasks, self._config, self._folder, avoid), encoding="utf-8")
        return script

    def _found(self) -> bool:
        """Whether the controller has the array of which it gave no answer."""
        if self._array is None or not self._array.asked:
            return False
        chosen = f"--name={job_name(self._folder)}"
        for line in run_command("squeue", "--noheader", "--states=all", "--format=%F %o", chosen).splitlines():
            array, _, script = line.strip().partition(" ")
            if Path(script).name == self._array.script.name:
                self._note(array)
                return True
        return False

    def _note(self, array: str) -> None:
        """Takes down that the controller has the array, under this number."""
        if self._array is not None:
            self._jobs |= {f"{array}_{number}": job for number, job in enumerate(self._array.jobs)}
        self._array = None

    def _collect(self) -> list[Ended]:
        """What has ended for good since the last look; what is started again is queued."""
        ended: list[Ended] = []
        states = job_states({name.partition("_")[0] for name in self._jobs})
        for name, job in list(self._jobs.items()):
            found = states.get(name) or _forgotten(job.task)
            if found.going:
                continue
            if found.code == STOPPED and not job.settled and found.state != "CANCELLED":
                self._jobs[name] = job._replace(settled=True)
                continue
            del self._jobs[name]
            starts = job.starts.add(found.code, 0.0)
            if found.state != "CANCELLED" and starts_again(found.code, starts, self._config.retries):
                self._avoid |= {found.node} if starts.storage > job.starts.storage and found.node else set()
                self._queued.append(job._replace(starts=starts, settled=False))
            else:
                ended.append(_ended(job, found))
        return ended

    def _stop(self) -> list[Ended]:
        """Gives running jobs notice, and takes them out of the queue once they are put into it again."""
        self._queued, ended, asked = [], list[Ended](), set[str]()
        until = time.monotonic() + _PATIENCE_SECONDS
        while self._jobs or self._array:
            try:
                if not self._found():
                    self._array = None
                self._end_jobs(asked, ended)
                until = time.monotonic() + _PATIENCE_SECONDS
            except NoAnswer:
                if time.monotonic() > until:
                    raise
            time.sleep(1.0 if self._jobs or self._array else 0.0)
        return ended

    def _end_jobs(self, asked: set[str], ended: list[Ended]) -> None:
        """One look at a stop: `asked` gains the jobs that were given notice, `ended` those that are over."""
        states = job_states({name.partition("_")[0] for name in self._jobs})
        for name, job in list(self._jobs.items()):
            found = states.get(name) or _forgotten(job.task)
            if found.state == "RUNNING" and name not in asked:
                with suppress(ConfigError):  # it has just ended, or the next look tries again
                    run_command("scancel", "--batch", "--signal=TERM", name)
                    asked.add(name)
            elif found.state == "PENDING" or not found.going:
                if found.going:
                    run_command("scancel", name)
                    found = found._replace(code=STOPPED)
                del self._jobs[name]
                if read_marks(log_path(job.task.directory)).starts > job.before:
                    ended.append(_ended(job, found._replace(code=stopped_code(found.code))))

    def _cancel_all(self) -> None:
        """Cancels the jobs of this sweep, those of a driver that was killed too, and waits until none is left."""
        chosen = f"--name={job_name(self._folder)}"
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                if not run_command("squeue", "--noheader", "--format=%A", chosen).strip():
                    return
                run_command("scancel", chosen)
            except NoAnswer:
                if time.monotonic() > until:
                    raise
            time.sleep(1.0)


def _forgotten(task: Task) -> JobState:
    """The state of a task that the controller does not know any more, from the log; lost if no end stands there."""
    marks = read_marks(log_path(task.directory))
    return JobState("FORGOTTEN", -signal.SIGKILL if marks.code is None else plain_code(marks.code), marks.node)


def _ended(job: _Job, found: JobState) -> Ended:
    log = log_path(job.task.directory)
    said = f"cancelled\n{last_words(log)}" if found.state == "CANCELLED" else last_words(log)
    return Ended(job.task.name, found.code, read_marks(log).starts - job.before, said)
