"""Asynchronous halving: who goes on and who stops, in whatever order runs end; what a killed driver leaves."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_runs import SPACE, TASK, Killed, Writer, check_asynchronous, searched, write_search

from ddpg_jax.cli.sweep_status import read_progress
from ddpg_jax.errors import ConfigError
from ddpg_jax.training.search.asha import Rung, find_promoted, find_stopped
from ddpg_jax.training.search.file import load_search
from ddpg_jax.training.search.record import read_lines

ASHA = (
    """
[search]
sampler = "random"
trials = 9
batch = 3
retrain = 1
"""
    + SPACE
    + """
[stop]
kind = "asha"
rungs = [0.2, 0.45]
keep = 0.4
"""
)
TASKS = (
    TASK
    + """[[search.tasks]]
config = { env.id = "MountainCarContinuous-v0", total_steps = 2000 }
low = -100
high = 100
"""
)


class Shuffler(Writer):
    """Ends its runs in an order that the seed gives; see `Writer`."""

    def __init__(self, seed=0, life=None):
        super().__init__(life=life)
        self.seed = seed

    def wait(self, stop):
        if self.waiting:  # which one is told by what waits, not by how often it was asked: a new driver asks anew
            names = sorted(task.name + task.command[-1] for task in self.waiting)
            chosen = random.Random(f"{self.seed} {names}").choice(names)  # noqa: S311
            place = next(i for i, task in enumerate(self.waiting) if task.name + task.command[-1] == chosen)
            self.waiting.append(self.waiting.pop(place))
        return super().wait(stop)


def events(directory):
    return read_lines(directory / "trials.jsonl")[0]


def left(directory):
    runs = sorted(file.relative_to(directory).as_posix() for file in (directory / "runs").rglob("*"))
    return (directory / "trials.jsonl").read_bytes(), runs, json.loads((directory / "result.json").read_text())


def test_who_goes_on_and_who_stops_by_hand():
    rung = Rung({0: 5.0, 1: 7.0})
    assert find_promoted(rung, 9, 0.4) is None  # floor(0.4 x 2) = 0
    assert find_stopped(rung, 9, 0.4) == []
    rung.scores[2] = 6.0
    assert find_promoted(rung, 9, 0.4) == 1
    rung.promoted.add(1)
    rung.scores |= {3: 9.0, 4: None, 5: 8.0}
    assert find_promoted(rung, 9, 0.4) == 3  # floor(0.4 x 6) = 2: 3 and 5
    assert find_stopped(rung, 9, 0.4) == [0]  # four better ones; ceil(0.4 x 9) = 4 go on at most
    rung.promoted |= {3, 5}
    assert find_promoted(rung, 7, 0.4) is None
    assert find_stopped(rung, 7, 0.4) == [2, 0]
    assert find_promoted(Rung({0: 1.0, 1: 2.0}), 2, 0.4) == 1  # nobody else comes: rounded up
    assert rung.gone == 1


@given(st.permutations(range(7)), st.sets(st.integers(0, 6), max_size=3), st.sampled_from([0.2, 0.33, 0.5, 0.9]))
def test_everybody_goes_on_or_stops_in_the_end_and_none_that_stopped_is_among_the_best(order, failed, keep):
    rung = Rung()
    for number in order:
        rung.scores[number] = None if number in failed else float(number)
        rung.stopped |= set(find_stopped(rung, 7, keep))
        while (promoted := find_promoted(rung, 7, keep)) is not None:
            rung.promoted.add(promoted)
    alive = sorted(set(range(7)) - failed, reverse=True)
    assert rung.promoted | rung.stopped == set(alive)
    assert not rung.promoted & rung.stopped
    assert not set(alive[: -int(-keep * 7 // 1)]) & rung.stopped


@pytest.mark.parametrize("seed", range(3))
def test_nobody_waits_for_a_rung_and_the_best_reaches_the_end(seed, tmp_path):
    run, _ = searched(write_search(tmp_path, ASHA), tmp_path / "run", Shuffler(seed))
    lines = events(run.directory)
    check_asynchronous(lines)
    asked = {line["trial"]: line["values"]["algorithm.tau"] for line in lines if line["event"] == "asked"}
    assert run.result["combinations"][0]["combination"] == max(asked, key=asked.__getitem__)
    first = next(i for i, line in enumerate(lines) if line["event"] == "started" and line["rung"] == 2)
    assert sum(line["event"] == "asked" for line in lines[:first]) < 9
    assert len(run.result["finished"]) + sum(each["stopped"] for each in run.result["combinations"]) == 9
    assert run.result["retrained"]["per_seed"] == pytest.approx([100 * max(asked.values()) + 1])
    states = [each.state for each in read_progress(run.directory)]
    assert states.count("ended") == len(run.result["finished"])
    assert states.count("stopped") == 9 - states.count("ended")


@pytest.mark.parametrize("more", ["", TASKS])
def test_killed_at_every_call_of_its_engine_it_ends_with_the_same_record(more, tmp_path):
    path = write_search(tmp_path, ASHA + more)
    whole, engine = searched(path, tmp_path / "whole", Shuffler())
    calls = 2 * len(engine.tasks)
    for life in random.Random(0).sample(range(calls), 2):  # noqa: S311
        directory = tmp_path / f"killed-{life}"
        with pytest.raises(Killed):
            searched(path, directory, Shuffler(life=life))
        again, _ = searched(path, directory, Shuffler(), resume="auto")
        assert left(again.directory) == left(whole.directory)


def test_cut_after_any_line_it_ends_with_the_same_record(tmp_path):
    """Not only where the engine was called: between the lines of one decision too; and within a line."""
    path = write_search(tmp_path, ASHA + TASKS)
    whole, _ = searched(path, tmp_path / "run", Shuffler())
    expected = left(whole.directory)
    pieces = expected[0].splitlines(keepends=True)
    for number in random.Random(1).sample(range(len(pieces)), 5):  # noqa: S311
        torn = pieces[number][: len(pieces[number]) // 2]
        (tmp_path / "run" / "trials.jsonl").write_bytes(b"".join(pieces[:number]) + torn)
        searched(path, tmp_path / "run", Shuffler(), resume="auto")
        assert left(tmp_path / "run") == expected, number


def test_trials_may_be_added_to_a_search_that_has_ended(tmp_path):
    path = write_search(tmp_path, ASHA)
    before = events(searched(path, tmp_path / "run", Shuffler())[0].directory)
    write_search(tmp_path, ASHA.replace("trials = 9", "trials = 12"))
    run, _ = searched(path, tmp_path / "run", Shuffler(), resume="auto")
    after = events(run.directory)
    assert after[: len(before)] == before
    check_asynchronous(after, trials=12)
    assert len(run.result["combinations"]) == 12


def test_settings_that_come_twice_are_one_run_at_a_time(tmp_path):
    text = ASHA.replace("{ low = 0.01, high = 0.9 }", "{ choice = [0.1, 0.3] }")
    text = text.replace("{ low = 8, high = 64, integer = true }", "{ choice = [8] }")

    class Jealous(Shuffler):
        def submit(self, task):
            assert task.name not in [other.name for other in self.waiting]
            super().submit(task)

    run, engine = searched(write_search(tmp_path, text), tmp_path / "run", Jealous())
    check_asynchronous(events(run.directory))
    assert len({task.name for task in engine.tasks}) == 3  # and the best with fresh seeds


def test_what_is_no_configuration_or_fails_does_not_hold_up_the_others(tmp_path):
    text = ASHA.replace('sampler = "random"', 'sampler = "grid"').replace("keep = 0.4", "keep = 0.5")
    text = text.replace("{ low = 0.01, high = 0.9 }", "{ choice = [0.1, 7.0, 0.3, 0.2] }")
    text = text.replace("{ low = 8, high = 64, integer = true }", "{ choice = [8] }")
    run, _ = searched(write_search(tmp_path, text), tmp_path / "run", Writer(codes={0: 4}))
    entries = {entry["combination"]: entry for entry in run.result["combinations"]}
    assert len(entries) == 4
    assert "algorithm.tau" in entries[1]["failed"]
    assert entries[0]["failed"] == "all seeds diverged"
    assert run.result["finished"] == [2]
    assert entries[3]["stopped"]


def test_a_sampler_that_goes_by_generations_is_refused(tmp_path):
    with pytest.raises(ConfigError, match='take "tpe"'):
        load_search(write_search(tmp_path, ASHA.replace('"random"', '"cmaes"')))
