"""A search whose settings go on from rung to rung each at its own time, by the rule of `asha`.

What is decided depends on which run ended first, so it cannot be decided again from the file alone. Here the record is
the state: its lines are gone through as they stand, and each decision follows from those before it. A driver that was
killed finds its state there, starts again what had not ended, and decides as it would have done; where runs end in the
same order, it ends with the same record.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ddpg_jax.errors import Interrupted
from ddpg_jax.training.search.asha import Rung, find_promoted, find_stopped
from ddpg_jax.training.search.driver import Driver
from ddpg_jax.training.search.file import StopConfig
from ddpg_jax.training.search.packs import Pack, alone
from ddpg_jax.training.search.record import Line
from ddpg_jax.training.search.samplers import Told
from ddpg_jax.training.search.trials import Trial


class _Job(NamedTuple):
    """A start that is in the record, of which no score is.

    Attributes:
      trial: number of its setting.
      pack: what is trained.
      until: step of its task; None: its end.
      code: how it ended; None: it has not.
    """

    trial: int
    pack: Pack
    until: int | None
    code: int | None = None


class AsynchronousDriver(Driver):
    """Runs a search whose `[stop]` is of kind "asha"; arguments as of `Driver`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        stop = self._search.stop or StopConfig()
        self._keep, self._rung = stop.keep, [Rung() for _ in stop.rungs]
        self._jobs: list[_Job] = []
        self._handed: set[str] = set()
        """names of the runs that the engine has"""
        self._level: list[int] = []
        """of each setting, how many rungs it was sent to, the end included"""
        self._sent: list[set[int]] = []
        """of each setting, the tasks on which it was sent to the last of them"""

    def _search_all(self) -> bool:
        """Goes through the record, and on from there; see `Driver`."""
        while self._record.ahead and not self._record.ahead[0].get("fresh"):
            self._apply(self._record.take())
        while not self._record.ahead:
            self._finish_decisions()
            self._decide()
            if not self._jobs:
                break
            self._await()
        return False

    def _wanted(self) -> int:
        """How much there is to be gone through, or to be asked for."""
        return len(self._record.ahead) or self._search.settings.trials - len(self.trials)

    def _fresh_key(self) -> dict[str, Any]:
        return {"fresh": True}

    def _apply(self, line: Line) -> None:
        """Changes the state by a line of the record."""
        event = line["event"]
        if event == "asked":
            self.trials.append(Trial(line["trial"], line["values"], said=line.get("refused", "")))
            self._level.append(0)
            self._sent.append(set())
        elif event == "started":
            self._apply_start(line["trials"][0], line)
        elif event == "ended":
            ran = [(job.pack.name, job.until, job.code) for job in self._jobs]
            place = ran.index((line["pack"], line["until"], None))
            self._jobs[place] = self._jobs[place]._replace(code=line["code"])
        elif event == "scored":
            self._apply_end(line)
        else:
            number = line["trial"]
            self._rung[self._level[number] - 1].stopped.add(number)
            self.trials[number] = self.trials[number]._replace(stopped=True)

    def _apply_start(self, number: int, line: Line) -> None:
        if line["rung"] > self._level[number]:
            self._level[number], self._sent[number] = line["rung"], set()
            self.trials[number] = self.trials[number]._replace(parts={})
            if line["rung"] > 1:
                self._rung[line["rung"] - 2].promoted.add(number)
        place = [task.name for task in self._search.tasks].index(line.get("task", ""))
        self._sent[number].add(place)
        self._jobs.append(_Job(number, self._pack(number, place), line["until"]))

    def _apply_end(self, line: Line) -> None:
        """One run is scored; a setting has reached a rung when those on all tasks are."""
        done = next(job for job in self._jobs if job.code is not None and job.trial == line["trial"])
        self._apply_score(done.trial, done.pack, line, done.code or 0)

    def _apply_score(self, number: int, pack: Pack, line: Line, code: int) -> None:
        super()._apply_score(number, pack, line, code)
        self._jobs = [job for job in self._jobs if job.code is None or job.trial != number]
        level, trial = self._level[number], self.trials[number]
        if not line.get("fresh") and level <= len(self._rung) and len(trial.parts) == len(self._search.tasks):
            self._rung[level - 1].scores[number] = trial.score

    def _pack(self, number: int, task: int) -> Pack:
        return alone(number, self._config(number, task), task)

    def _finish_decisions(self) -> None:
        """Does the rest of what a driver had begun that was killed."""
        for job in [job for job in self._jobs if job.code is not None]:
            self._score(job.pack, job.code or 0, job.until)
        for trial in self.trials:
            if not trial.said and len(self._sent[trial.number]) < len(self._search.tasks):
                self._send(trial.number, max(1, self._level[trial.number]))

    def _decide(self) -> None:
        """Decides all that follows from what has ended so far; as many settings train as a batch has."""
        while True:
            self._stop_hopeless()
            if len({job.trial for job in self._jobs}) >= self._search.settings.batch:
                return
            promoted = self._promoted()
            if promoted is not None:
                self._send(promoted, self._level[promoted] + 1)
            elif len(self.trials) < self._search.settings.trials:
                self._ask_one()
            else:
                return

    def _stop_hopeless(self) -> None:
        for place, rung in enumerate(self._rung):
            for number in find_stopped(rung, self._most(place), self._keep):
                step = self.trials[number].step
                self._notify(f"trial {number} stops at step {step}")
                self._apply(self._record.once("stopped", {"trial": number, "step": step}))

    def _promoted(self) -> int | None:
        """Who goes on next: from the highest rung that one can go on from."""
        found = (find_promoted(self._rung[i], self._most(i), self._keep) for i in reversed(range(len(self._rung))))
        return next((number for number in found if number is not None), None)

    def _most(self, place: int) -> int:
        """How many settings will have reached a rung in the end, at most."""
        refused = sum(bool(trial.said) and not self._level[trial.number] for trial in self.trials)
        return self._search.settings.trials - refused - sum(rung.gone for rung in self._rung[:place])

    def _ask_one(self) -> None:
        """Asks for a setting, and sends it to the first rung; the sampler takes what still trains for what failed."""
        told = [Told(trial.values, trial.score) for trial in self.trials]
        number = len(self.trials)
        (values,) = self._search.sample(told, number, 1)
        self._apply(self._record.once("asked", {"trial": number, "values": values} | dict(self._refusal(values))))
        if self.trials[number].said:
            self._notify(f"trial {number} is no configuration: {self.trials[number].said}")
        else:
            self._send(number, 1)

    def _send(self, number: int, level: int) -> None:
        """Has a setting trained to a rung, on each task."""
        steps = self._rungs(number)
        again = self._sent[number] if level == self._level[number] else set[int]()
        for place in sorted(set(range(len(steps))) - again):
            pack, until = self._pack(number, place), steps[place][level - 1]
            self._notify(f"trial {number} trains to {'its end' if until is None else f'step {until}'}: run {pack.name}")
            keys = {"pack": pack.name, "trials": [number], "until": until, "rung": level}
            self._apply(self._record.once("started", keys | self._task_key(pack)))

    def _await(self) -> None:
        """Has the engine run what was sent, and waits for the first that ends.

        Raises:
          Interrupted: a stop was asked for.
        """
        for job in self._jobs:  # settings that came twice are one run, which is started for one after the other
            if job.pack.name not in self._handed:
                self._handed.add(job.pack.name)
                self._submit(job.pack, job.until)
        found = self._engine.wait(self._stop)
        if self._stop():
            raise Interrupted("interrupted")
        for ended in found:  # each by itself, as if they had been waited for one by one
            self._handed.discard(ended.name)
            self._tell_failure(ended)
            job = next(job for job in self._jobs if job.pack.name == ended.name)
            self._apply(self._record.once("ended", {"pack": ended.name, "until": job.until, "code": ended.code}))
            self._score(job.pack, ended.code, job.until)
            self._decide()
