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
from typing import Any, NamedTuple

from ddpg_jax.config.schema import Config
from ddpg_jax.config.sweep_file import Values
from ddpg_jax.errors import ConfigError, Interrupted
from ddpg_jax.training.search.engines.engine import Ended, Engine
from ddpg_jax.training.search.file import Search
from ddpg_jax.training.search.packs import Pack, alone, divide, make_task, read_reached, write_pack
from ddpg_jax.training.search.record import TrialsRecord
from ddpg_jax.training.search.samplers import Told
from ddpg_jax.types import StopFn

RUNS = "runs"
"""Folder of the packs, in the directory of a search."""

FRESH = 1_000_000
"""Added to the seeds of a search for those that its best setting is trained again with."""

_FAILED = {2: "its configuration is wrong", 3: "its environment failed", 4: "all seeds diverged"}
"""By exit codes of the command line."""

NotifyFn = Callable[[str], None]


class Trial(NamedTuple):
    """A setting, and what became of it.

    Attributes:
      number: in the order of asking.
      values: what it sets, by path.
      pack: name of its run, in the folder of the runs; None: it was refused.
      step: of its last score.
      score: by the metric of the search; None: it failed.
      per_seed: likewise of each seed.
      said: why it failed; empty: it did not.
      stopped: whether others went on in its place.
    """

    number: int
    values: Values
    pack: str | None = None
    step: int = 0
    score: float | None = None
    per_seed: tuple[float | None, ...] = ()
    said: str = ""
    stopped: bool = False


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
            while (wanted := self._wanted()) and (asked := self._ask(wanted)):
                self._train([trial for trial in asked if not trial.said])
            self._retrain()
            more = self._wanted() > 0 and wanted == 0

    def best(self) -> Trial | None:
        """The best of the trials that were not stopped; None: none has a score."""
        ended = [trial for trial in self.trials if trial.score is not None and not trial.stopped]
        return max(ended, key=_score_of, default=None)

    def _wanted(self) -> int:
        """How many settings the next batch has: as many as it had, where it is in the record whole."""
        left = min(self._search.settings.batch, self._search.settings.trials - len(self.trials))
        events = [line["event"] for line in self._record.ahead]
        there = next((i for i, event in enumerate(events) if event != "asked"), None)
        return left if there is None else there

    def _ask(self, count: int) -> list[Trial]:
        told = [Told(trial.values, trial.score) for trial in self.trials]
        asked: list[Trial] = []
        for number, values in enumerate(self._search.sample(told, len(self.trials), count), len(self.trials)):
            line = self._record.once("asked", {"trial": number, "values": values}, lambda v=values: self._refusal(v))
            asked.append(Trial(number, values, said=line.get("refused", "")))
            if asked[-1].said:
                self._notify(f"trial {number} is no configuration: {asked[-1].said}")
        self.trials += asked
        return asked

    def _refusal(self, values: Values) -> Mapping[str, Any]:
        """Why a setting cannot be trained, if so."""
        try:
            self._search.config(values)
        except ConfigError as error:
            return {"refused": "; ".join(line.strip() for line in str(error).splitlines()[1:])}
        return {}

    def _train(self, trials: list[Trial]) -> None:
        """Trains a batch from rung to rung, of which fewer and fewer go on."""
        if not trials:
            return
        packs = divide(self._search, {trial.number: trial.values for trial in trials})
        for step in rungs(self._search, self._search.config(trials[0].values)):
            self._run_packs(packs, step)
            if step is not None and self._search.stop is not None:
                packs = self._keep_best(packs, step, self._search.stop.keep)

    def _run_packs(self, packs: Sequence[Pack], until: int | None) -> None:
        """Has packs trained to a step, or to their end (None), and notes what they have reached."""
        at = {"until": until}
        if not self._record.ahead:
            count = sum(len(pack.trials) for pack in packs)
            where = "their end" if until is None else f"step {until}"
            self._notify(f"{count} settings in {len(packs)} runs, to {where}")
        for pack in packs:
            self._record.once("started", {"pack": pack.name, "trials": list(pack.trials), **at})
        known = {line["pack"] for line in self._record.ahead if line["event"] == "ended" and line["until"] == until}
        ended = self._ended([pack for pack in packs if pack.name not in known], until)
        broken: list[Pack] = []
        for pack in packs:
            line = self._record.once("ended", {"pack": pack.name, **at}, lambda p=pack: {"code": ended[p.name].code})
            if line["code"] in _FAILED and len(pack.trials) > 1 and not self._config(pack.trials[0]).on_device:
                broken.append(pack)
            else:
                self._score(pack, line, until)
        if broken:  # on the host loop an environment that fails ends the program of all settings beside it
            self._run_packs([alone(trial, self._config(trial)) for pack in broken for trial in pack.trials], until)

    def _config(self, trial: int) -> Config:
        return self._search.config(self.trials[trial].values)

    def _ended(self, packs: Iterable[Pack], until: int | None) -> dict[str, Ended]:
        """Runs packs, and waits for all of them.

        Raises:
          Interrupted: a stop was asked for.
        """
        once = {pack.name: pack for pack in packs}  # settings that came twice are one run
        waiting = set(once)
        for pack in once.values():
            write_pack(pack, self._runs)
            self._engine.submit(make_task(pack, self._runs, until, self._words))
        ended: dict[str, Ended] = {}
        while waiting:
            for each in self._engine.wait(self._stop):
                ended[each.name] = each
                waiting.discard(each.name)
                if each.code:
                    self._notify(f"run {each.name} ended with exit code {each.code}: {each.said}")
            if self._stop():
                raise Interrupted("interrupted")
        return ended

    def _score(self, pack: Pack, line: Mapping[str, Any], until: int | None) -> None:
        """Notes what the settings of a pack have reached."""
        step = self._last_step(self.trials[pack.trials[0]]) if until is None else until
        metric = self._search.settings.metric
        read = cache(lambda: read_reached(self._runs / pack.name, pack, step, metric))

        def find_out(place: int) -> Mapping[str, Any]:
            if line["code"]:
                return {"score": None, "per_seed": []}
            reached = read()[place]
            return {"score": reached.score, "per_seed": list(reached.per_seed)}

        for place, number in enumerate(pack.trials):
            keys = {"trial": number, "pack": pack.name, "step": step}
            found = self._record.once("scored", keys, lambda place=place: find_out(place))
            said = _FAILED.get(line["code"], f"ended with exit code {line['code']}") if line["code"] else ""
            said = said or ("" if found["score"] is not None else "a seed diverged")
            figures = {"step": step, "score": found["score"], "per_seed": tuple(found["per_seed"]), "said": said}
            self.trials[number] = self.trials[number]._replace(pack=pack.name, **figures)

    def _last_step(self, trial: Trial) -> int:
        config = self._search.config(trial.values)
        return -(-config.total_steps // config.env.num_envs) * config.env.num_envs

    def _keep_best(self, packs: Sequence[Pack], step: int, share: float) -> list[Pack]:
        """The share of packs that go on from a rung; each is one setting."""
        ranked = sorted(packs, key=lambda pack: (-_score_of(self.trials[pack.trials[0]]), pack.trials[0]))
        alive = [pack for pack in ranked if self.trials[pack.trials[0]].score is not None]
        kept = {pack.name for pack in alive[: ceil(share * len(packs))]}
        for pack in packs:
            if pack.name not in kept:
                number = pack.trials[0]
                self._record.once("stopped", {"trial": number, "step": step})
                self.trials[number] = self.trials[number]._replace(stopped=True)
        return [pack for pack in packs if pack.name in kept]

    def _retrain(self) -> None:
        """Trains the best setting again, with seeds that it was not chosen by."""
        best, count = self.best(), self._search.settings.retrain
        if best is None or not count:
            return
        config = self._search.config(best.values)
        seeds = tuple(FRESH + i for i in range(count))
        pack = alone(best.number, config.model_copy(update={"seeds": seeds}))
        before = self.trials[best.number]
        self._run_packs([pack], None)
        self.retrained, self.trials[best.number] = self.trials[best.number], before


def _score_of(trial: Trial) -> float:
    return float("-inf") if trial.score is None else trial.score


def rungs(search: Search, config: Config) -> list[int | None]:
    """The steps to which settings are trained, one after the other; the last, None, is their end.

    Raises:
      ConfigError: a rung is at no evaluation before the end.
    """
    shares = () if search.stop is None else search.stop.rungs
    return [*(_at_evaluation(config, share) for share in shares), None]


def _at_evaluation(config: Config, share: float) -> int:
    """The first evaluation at which a share of the steps is made."""
    every = config.evaluation.every
    wanted = max(every, ceil(share * config.total_steps / every) * every)
    if wanted >= config.total_steps:
        raise ConfigError(
            f"stop.rungs: {share} of {config.total_steps} steps is at no evaluation before the end: lower "
            f"evaluation.every={every}"
        )
    return wanted
