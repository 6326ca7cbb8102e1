"""A search from its first setting to its ranking: asks, has packs trained, and tells, one decision after another.

The driver holds no state but its record. Each time it is started it takes all decisions again from the first, and finds
what it had found out in `trials.jsonl`; so a search that was killed anywhere goes on where it was and ends with the
record, the runs and the ranking of one that was not. It decides in an order of its own: settings of a batch are asked
together, all of its packs are waited for, and are told of in the order of their numbers, whichever ended first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from ddpg_jax.config.schema import Config
from ddpg_jax.config.sweep_file import Values
from ddpg_jax.errors import ConfigError, Interrupted
from ddpg_jax.training.search.engines.engine import Ended, Engine
from ddpg_jax.training.search.file import Search
from ddpg_jax.training.search.packs import Pack, alone, divide, make_task, read_reached, write_pack
from ddpg_jax.training.search.record import Line, TrialsRecord
from ddpg_jax.training.search.repack import halve, repack
from ddpg_jax.training.search.samplers import Told
from ddpg_jax.training.search.trials import FAILED, Trial, best_of, join_parts, last_step, part_of, rungs, score_of
from ddpg_jax.types import StopFn

RUNS = "runs"
"""Folder of the packs, in the directory of a search."""

FRESH = 1_000_000
"""Added to the seeds of a search for those that its best setting is trained again with."""

NotifyFn = Callable[[str], None]


class Driver:
    """Runs a search.

    Args:
      search: from `load_search`.
      directory: of the search, which is there.
      record: its decisions.
      engine: runs the packs.
      stop: whether a stop was asked for.
      notify: is told a line, of what goes on.
      words: of the command line that each pack is given, as `--plugin`.
    """

    def __init__(
        self,
        search: Search,
        directory: Path,
        record: TrialsRecord,
        engine: Engine,
        stop: StopFn,
        notify: NotifyFn,
        words: Sequence[str] = (),
    ) -> None:
        self._search, self._runs, self._record, self._engine = search, directory / RUNS, record, engine
        self._stop, self._notify, self._words = stop, notify, words
        self._configs: dict[tuple[int, int], Config] = {}
        self._at_end = set[str]()
        self.trials: list[Trial] = []
        self.retrained: Trial | None = None

    def run(self) -> None:
        """Brings the search to its end; what it has reached is in `trials` and `retrained`.

        Raises:
          Interrupted: a stop was asked for; all is saved.
          StorageError: the record is of another search, or cannot be written.
        """
        more = True
        while more:  # more than once where trials were added to a search that had come to its end
            ran_out = self._search_all()
            self._retrain()
            more = not ran_out and self._wanted() > 0

    def _search_all(self) -> bool:
        """Asks for settings and trains them; whether the sampler has no more of them."""
        while (wanted := self._wanted()) and (asked := self._ask(wanted)):
            self._train([trial for trial in asked if not trial.said])
        return wanted > 0

    def _wanted(self) -> int:
        """How many settings the next batch has: as many as it had, where it is in the record whole."""
        left = min(self._search.settings.batch, self._search.settings.trials - len(self.trials))
        events = [line["event"] for line in self._record.ahead]
        there = next((i for i, event in enumerate(events) if event != "asked"), None)
        return left if there is None else there

    def _ask(self, count: int) -> list[Trial]:
        told = [Told(trial.values, trial.score) for trial in self.trials]
        settings = [line["values"] for line in self._record.ahead[:count] if line["event"] == "asked"]
        if len(settings) < count:  # what was asked for stays: with more trials in the file a model begins later
            settings += self._search.sample(told, len(self.trials), count)[len(settings) :]
        asked: list[Trial] = []
        for number, values in enumerate(settings, len(self.trials)):
            line = self._record.once("asked", {"trial": number, "values": values}, lambda v=values: self._refusal(v))
            asked.append(Trial(number, values, said=line.get("refused", "")))
            if asked[-1].said:
                self._notify(f"trial {number} is no configuration: {asked[-1].said}")
        self.trials += asked
        return asked

    def _refusal(self, values: Values) -> Mapping[str, Any]:
        """Why a setting cannot be trained, if so."""
        try:
            for task in self._search.tasks:
                self._search.config(values, task)
        except ConfigError as error:
            return {"refused": "; ".join(line.strip() for line in str(error).splitlines()[1:])}
        return {}

    def _train(self, trials: list[Trial]) -> None:
        """Trains a batch from rung to rung, of which fewer and fewer go on."""
        if not trials:
            return
        packs = divide(self._search, {trial.number: trial.values for trial in trials})
        steps = self._rungs(trials[0].number)
        for rung in range(len(steps[0])):
            until = [of_task[rung] for of_task in steps]
            packs = self._run_packs(packs, until)
            if rung + 1 < len(steps[0]) and self._search.stop is not None:
                packs = repack(self._search, packs, self._keep_best(packs, self._search.stop.keep), until)

    def _rungs(self, number: int) -> list[list[int | None]]:
        """The steps of the rungs of a setting, for each task."""
        return [rungs(self._search, self._config(number, place)) for place in range(len(self._search.tasks))]

    def _run_packs(
        self, packs: Sequence[Pack], steps: Sequence[int | None], more: Mapping[str, Any] = {}
    ) -> list[Pack]:
        """Has packs trained to a step of their task, or to their end (None), and notes what they have reached.

        Returns:
          Those that hold the settings then: what had failed as a whole was trained in parts.
        """
        if not self._record.ahead:
            trials = {trial for pack in packs for trial in pack.trials}
            where = "their end" if steps[0] is None else f"step {steps[0]}"
            self._notify(f"{len(trials)} settings in {len(packs)} runs, to {where}")
        for pack in packs:
            keys = {"pack": pack.name, "trials": list(pack.trials), "until": steps[pack.task]}
            self._record.once("started", {**keys, **self._task_key(pack), **more})
        known = {(line["pack"], line["until"]) for line in self._record.ahead if line["event"] == "ended"}
        ended = self._ended((pack for pack in packs if (pack.name, steps[pack.task]) not in known), steps)
        held: list[Pack] = []
        parts: list[Pack] = []
        for pack in packs:
            keys = {"pack": pack.name, "until": steps[pack.task]}
            line = self._record.once("ended", keys, lambda p=pack: {"code": ended[p.name].code})
            if apart := self._take_apart(pack, line["code"]):
                parts += apart
            else:
                self._score(pack, line["code"], line["until"], more)
                held.append(pack)
                if line["until"] is None:
                    self._at_end.add(pack.name)
        return held + (self._run_packs(parts, steps, more) if parts else [])

    def _take_apart(self, pack: Pack, code: int) -> list[Pack]:
        """The smaller packs that one is trained as which failed as a whole; none: it did not, or each would.

        On the host loop an environment that fails ends the program of all settings beside it. On the device loop lanes
        that are stopped at a step have to fit into memory together.
        """
        if code not in FAILED or len(pack.trials) == 1:
            return []
        if not self._config(pack.trials[0], pack.task).on_device:
            return [alone(trial, self._config(trial, pack.task), pack.task) for trial in pack.trials]
        if code != ConfigError.exit_code or self._search.stop is None:
            return []
        return halve(self._search, pack, {number: self.trials[number].values for number in pack.trials})

    def _config(self, number: int, task: int) -> Config:
        """The configuration of a setting on a task, by their numbers."""
        if (number, task) not in self._configs:
            self._configs[number, task] = self._search.config(self.trials[number].values, self._search.tasks[task])
        return self._configs[number, task]

    def _task_key(self, pack: Pack) -> dict[str, Any]:
        """What a line of the record says of a pack's task: its name, where there are several."""
        name = self._search.tasks[pack.task].name
        return {"task": name} if name else {}

    def _ended(self, packs: Iterable[Pack], steps: Sequence[int | None]) -> dict[str, Ended]:
        """Runs packs, and waits for all of them.

        Raises:
          Interrupted: a stop was asked for.
        """
        once = {pack.name: pack for pack in packs}  # settings that came twice are one run
        waiting = set(once)
        for pack in once.values():
            self._submit(pack, steps[pack.task])
        ended: dict[str, Ended] = {}
        while waiting:
            for each in self._engine.wait(self._stop):
                ended[each.name] = each
                waiting.discard(each.name)
                self._tell_failure(each)
            if self._stop():
                raise Interrupted("interrupted")
        return ended

    def _submit(self, pack: Pack, until: int | None) -> None:
        write_pack(pack, self._runs)
        self._engine.submit(make_task(pack, self._runs, until, self._words))

    def _tell_failure(self, ended: Ended) -> None:
        if ended.code:
            self._notify(f"run {ended.name} ended with exit code {ended.code}: {ended.said}")

    def _score(self, pack: Pack, code: int, until: int | None, more: Mapping[str, Any] = {}) -> None:
        """Notes what the settings of a pack have reached."""
        step = last_step(self._config(pack.trials[0], pack.task), until)
        metric = self._search.settings.metric
        read = cache(lambda: read_reached(self._runs / pack.name, pack, step, metric))

        def find_out(place: int) -> Mapping[str, Any]:
            if code:
                return {"score": None, "per_seed": []}
            reached = read()[place]
            return {"score": reached.score, "per_seed": list(reached.per_seed)}

        for place, number in enumerate(pack.trials):
            keys = {"trial": number, "pack": pack.name, "step": step, **self._task_key(pack), **more}
            line = self._record.once("scored", keys, lambda place=place: find_out(place))
            self._apply_score(number, pack, line, code)

    def _apply_score(self, number: int, pack: Pack, line: Line, code: int) -> None:
        """Adds to a setting what a line says that it has reached on a task."""
        trial, task = self.trials[number], self._search.tasks[pack.task]
        trial = trial._replace(parts={**trial.parts, task.name: part_of(line, code)})
        self.trials[number] = join_parts(trial, self._search.tasks)

    def _keep_best(self, packs: Sequence[Pack], share: float) -> dict[int, Values]:
        """The share of the settings of all packs that go on from a rung, by number."""
        numbers = dict.fromkeys(number for pack in packs for number in pack.trials)
        ranked = sorted(numbers, key=lambda number: (-score_of(self.trials[number]), number))
        alive = [number for number in ranked if self.trials[number].score is not None]
        best = set(alive[: ceil(share * len(numbers))])
        # settings that came twice are one run, and of one that was at its end before no lanes are left to take
        whole = {pack.name for pack in packs if pack.name in self._at_end or best.issuperset(pack.trials)}
        best.update(number for pack in packs if pack.name in whole for number in pack.trials)
        for number in numbers:
            if number not in best:
                self._record.once("stopped", {"trial": number, "step": self.trials[number].step})
                self.trials[number] = self.trials[number]._replace(stopped=True)
        return {number: self.trials[number].values for number in sorted(best)}

    def _retrain(self) -> None:
        """Trains the best setting again, with seeds that it was not chosen by."""
        best, count = best_of(self.trials), self._search.settings.retrain
        if best is None or not count:
            return
        seeds = tuple(FRESH + i for i in range(count))
        packs: list[Pack] = []
        for place in range(len(self._search.tasks)):
            config = self._config(best.number, place).model_copy(update={"seeds": seeds})
            packs.append(alone(best.number, config, place))
        before = self.trials[best.number]
        self.trials[best.number] = before._replace(parts={})
        self._run_packs(packs, [None] * len(packs), self._fresh_key())
        self.retrained, self.trials[best.number] = self.trials[best.number], before

    def _fresh_key(self) -> dict[str, Any]:
        """What marks the lines of the record that are of fresh seeds; a search of one task never had a mark."""
        return {"fresh": True} if self._search.tasks[0].name else {}
