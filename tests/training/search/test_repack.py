"""Halving on the device loop: lanes of full programs, of which those that go on are put together anew."""

import json
import tomllib
from contextlib import closing

import numpy as np
import pytest
import tomli_w
from search_runs import Killed, Writer, searched, write_search
from tiny_run import read_rows
from tiny_sweep import load_text, tiny_text

from ddpg_jax.cli.main import main
from ddpg_jax.cli.sweep_status import read_progress
from ddpg_jax.errors import ConfigError, StorageError
from ddpg_jax.training.search.engines.engine import Ended
from ddpg_jax.training.search.file import Search, load_search
from ddpg_jax.training.search.packs import alone
from ddpg_jax.training.search.record import TrialsRecord, read_lines
from ddpg_jax.training.search.run import dry_run, run_search
from ddpg_jax.training.signals import StopRequest
from ddpg_jax.training.sweep.run import run_sweep

STOP = "[stop]\nrungs = [0.2, 0.5]\nkeep = 0.5\n"
TAUS = ((0.9, 8), (0.8, 8), (0.1, 8), (0.2, 16), (0.7, 16), (0.6, 16))
"""Of each setting, which the best one has most of, and the width of its networks, which is its structure."""
MIXED = (
    """
[search]
sampler = "random"
trials = 8
batch = 5
retrain = 2
[search.space]
"algorithm.tau" = { low = 0.01, high = 0.9 }
"algorithm.hidden" = { choice = [[8], [16]] }
"""
    + STOP
)
TASKS = """
[[search.tasks]]
config = { env.id = "jax:pendulum" }
low = 0
high = 50
[[search.tasks]]
config = { env.id = "jax:cartpole_swingup" }
low = 0
high = 100
"""


def listed(folder, settings=TAUS, stop=STOP):
    """A search of these settings on the device loop."""
    path = write_search(folder, stop, "jax:pendulum")
    values = [{"algorithm.tau": tau, "algorithm.hidden": [width]} for tau, width in settings]
    path.write_text(tomli_w.dumps({"settings": values}) + path.read_text())
    return path


def lines_of(directory, event):
    return [line for line in read_lines(directory / "trials.jsonl")[0] if line["event"] == event]


def starts(directory):
    return [(line["trials"], line["until"]) for line in lines_of(directory, "started")]


def start_of(directory, number):
    """What the file of the pack says that was started for that time."""
    name = lines_of(directory, "started")[number]["pack"]
    return tomllib.loads((directory / "runs" / f"{name}.toml").read_text()).get("start")


def left(directory):
    runs = sorted(file.relative_to(directory).as_posix() for file in (directory / "runs").rglob("*"))
    return (directory / "trials.jsonl").read_bytes(), runs, json.loads((directory / "result.json").read_text())


def test_those_that_go_on_are_put_together_by_structure(tmp_path):
    """Of two programs of three settings 0, 1 and 4 go on; then 0 and 1, which are a program already."""
    run, engine = searched(listed(tmp_path), tmp_path / "run")
    directory = run.directory
    assert starts(directory) == [([0, 1, 2], 200), ([3, 4, 5], 200), ([0, 1], 500), ([4], 500), ([0, 1], None)]
    assert {line["trial"]: line["step"] for line in lines_of(directory, "stopped")} == {2: 200, 3: 200, 5: 200, 4: 500}
    names = [line["pack"] for line in lines_of(directory, "started")]
    assert names[2] == names[4]
    of_first = [{"run": names[0], "combination": place} for place in (0, 1)]
    assert start_of(directory, 2) == {"step": 200, "sources": of_first}
    assert start_of(directory, 3) == {"step": 200, "sources": [{"run": names[1], "combination": 1}]}
    assert start_of(directory, 0) is None
    assert {task.command[3] for task in engine.tasks} == {"sweep"}
    assert run.result["finished"] == [0, 1]
    assert [entry["run"] for entry in run.result["combinations"]][:3] == [names[2], names[2], names[3]]
    states = {trial.number: (trial.state, trial.step, trial.run) for trial in read_progress(directory)}
    assert states[0] == ("ended", 1000, names[2])
    assert states[4] == ("stopped", 500, names[3])
    assert states[2] == ("stopped", 200, names[0])


def test_a_setting_that_diverged_does_not_go_on(tmp_path):
    run, _ = searched(listed(tmp_path), tmp_path / "run", Writer(diverges=(0.9, 0.7)))
    assert starts(run.directory)[2:] == [([1], 500), ([3, 5], 500), ([1], None), ([5], None)]
    run, _ = searched(listed(tmp_path), tmp_path / "other", Writer(codes={0: 3}))
    assert [trials for trials, _ in starts(run.directory)[2:]] == [[3, 4, 5], [4, 5]]
    assert run.result["combinations"][-1]["failed"] == "its environment failed"


def test_lanes_that_do_not_fit_are_halved_and_their_survivors_put_together(tmp_path):
    """The program of four settings ends with exit code 2; of each of its halves one setting goes on."""
    settings = [(tau, 8) for tau in (0.4, 0.3, 0.2, 0.5)]
    run, _ = searched(listed(tmp_path, settings), tmp_path / "run", Writer(codes={0: 2}))
    assert starts(run.directory)[:4] == [([0, 1, 2, 3], 200), ([0, 1], 200), ([2, 3], 200), ([0, 3], 500)]
    names = [line["pack"] for line in lines_of(run.directory, "started")]
    assert [(each["run"], each["combination"]) for each in start_of(run.directory, 3)["sources"]] == [
        (names[1], 0),
        (names[2], 1),
    ]
    assert not any(entry["failed"] for entry in run.result["combinations"])


def test_a_program_that_goes_on_from_others_is_halved_with_what_it_goes_on_from(tmp_path):
    settings = [(tau, 8) for tau in (0.4, 0.3, 0.2, 0.5)]
    run, _ = searched(listed(tmp_path, settings), tmp_path / "run", Writer(codes={1: 2}))
    assert starts(run.directory)[:4] == [([0, 1, 2, 3], 200), ([0, 3], 500), ([0], 500), ([3], 500)]
    assert [start_of(run.directory, number)["sources"][0]["combination"] for number in (2, 3)] == [0, 3]


def test_lanes_of_a_program_that_was_at_its_end_before_are_not_taken_out_of_it(tmp_path, monkeypatch):
    """A sampler gives 0 and 1 again, whose checkpoints are gone; of the second batch 4 and 6 are the best."""
    drawn = [(0.9, 8), (0.8, 8), (0.1, 16), (0.2, 16), (0.9, 8), (0.8, 8), (0.85, 16), (0.2, 16)]
    values = [{"algorithm.tau": tau, "algorithm.hidden": [width]} for tau, width in drawn]
    monkeypatch.setattr(Search, "sample", lambda self, told, begun, count: values[begun : begun + count])
    text = MIXED.replace("batch = 5", "batch = 4").replace("[0.2, 0.5]", "[0.2]").replace("retrain = 2", "retrain = 0")
    run, _ = searched(write_search(tmp_path, text, "jax:pendulum"), tmp_path / "run")
    first, second = starts(run.directory)[:3], starts(run.directory)[3:]
    assert first == [([0, 1], 200), ([2, 3], 200), ([0, 1], None)]
    assert second == [([4, 5], 200), ([6, 7], 200), ([4, 5], None), ([6], None)]
    assert run.result["finished"] == [0, 1, 4, 5, 6]


@pytest.mark.parametrize("more", ["", TASKS], ids=["one task", "two tasks"])
def test_cut_anywhere_it_ends_with_the_same_record_runs_and_ranking(more, tmp_path, monkeypatch):
    """In each line of the record, and where its engine is called."""
    monkeypatch.setattr("ddpg_jax.training.search.run._draw", lambda *arguments: None)  # which takes most of the time
    text = MIXED.replace("[search.space]", f"{more}[search.space]") if more else MIXED
    path = write_search(tmp_path, text, "jax:pendulum")
    whole, engine = searched(path, tmp_path / "run")
    assert any(start_of(whole.directory, number) for number in range(len(lines_of(whole.directory, "started"))))
    expected, calls = left(whole.directory), 2 * len(engine.tasks)
    pieces = expected[0].splitlines(keepends=True)
    for number in range(0, len(pieces), 3 if more else 1):
        torn = pieces[number][: len(pieces[number]) // 2]
        (tmp_path / "run" / "trials.jsonl").write_bytes(b"".join(pieces[:number]) + torn)
        searched(path, tmp_path / "run", resume="auto")
        assert left(tmp_path / "run") == expected, number
    for life in range(0, calls, 5):
        directory = tmp_path / f"killed-{life}"
        with pytest.raises(Killed):
            searched(path, directory, Writer(life=life))
        searched(path, directory, resume="auto")
        assert left(directory) == expected


def test_a_record_of_a_program_for_each_setting_is_refused_in_a_line(tmp_path):
    """As earlier versions left it."""
    path = listed(tmp_path)
    search = load_search(path)
    searched(path, tmp_path / "run")
    (tmp_path / "run" / "trials.jsonl").unlink()
    with closing(TrialsRecord(tmp_path / "run" / "trials.jsonl")) as record:
        values = search.sample([], 0, 6)
        for number, each in enumerate(values):
            record.once("asked", {"trial": number, "values": each})
        pack = alone(0, search.config(values[0]))
        record.once("started", {"pack": pack.name, "trials": [0], "until": 200})
    with pytest.raises(StorageError, match=r"line 7: holds .* its file or its version is another") as caught:
        searched(path, tmp_path / "run", resume="auto")
    assert "\n" not in str(caught.value)


def test_asynchronous_halving_trains_each_setting_by_itself(tmp_path):
    path = write_search(tmp_path, MIXED.replace("[stop]", '[stop]\nkind = "asha"'), "jax:pendulum")
    lines = dry_run(load_search(path), None).splitlines()
    assert len(lines) == 5
    assert all(" train " in line for line in lines)
    lines = dry_run(load_search(listed(tmp_path)), None).splitlines()
    assert [" sweep " in line and line.endswith("--until 200") for line in lines] == [True, True]


def test_a_search_finds_its_own_start(tmp_path):
    path = listed(tmp_path)
    path.write_text(path.read_text() + "[start]\nstep = 100\nsources = [{ run = 'one', combination = 0 }]\n")
    with pytest.raises(ConfigError, match=r"\[start\] is of a sweep in one program"):
        load_search(path)


class Trainer(Writer):
    """Runs each program here."""

    def wait(self, stop):
        task = self.waiting.pop()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StopRequest, "_active", None)  # as a process of its own has
            return [Ended(task.name, main(task.command[3:]), 1, "")]


def test_what_they_reach_is_what_they_would_have_reached(tmp_path):
    """Real programs: each score, a mean of all evaluations, is that of a sweep that was never stopped.

    Seven environments step together, so what is evaluated after 30 and 60 steps is so after 35 and 63.
    """
    tiny = tiny_text() + "env.num_envs = 7\n"
    rates = (1e-3, 3e-3, 1e-2, 3e-2)
    space = f'[search.space]\n"algorithm.critic_learning_rate" = {{ choice = {list(rates)} }}\n'
    head = '[search]\nsampler = "grid"\nretrain = 0\nmetric = "area"\n'
    path = tmp_path / "search.toml"
    path.write_text(tiny + head + space + "[stop]\nrungs = [0.5]\nkeep = 0.5\n")
    run = run_search(load_search(path), tmp_path / "run", engine=Trainer(), notify=lambda line: None)
    grid = f"[grid]\nalgorithm.critic_learning_rate = {list(rates)}\n"
    whole = run_sweep(load_text(tmp_path, tiny + grid), tmp_path / "whole")
    rows = [row for row in read_rows(whole.directory / "metrics.jsonl") if row["event"] == "evaluation"]
    finished = run.result["finished"]
    assert len(finished) == 2
    for entry in run.result["combinations"]:
        last = 63 if entry["combination"] in finished else 35
        assert entry["step"] == last
        for seed, figure in zip((4, 9), entry["per_seed"], strict=True):
            own = [row for row in rows if (row["combination"], row["seed"]) == (entry["combination"], seed)]
            expected = np.mean([row["mean_return"] for row in own if row["step"] <= last])
            np.testing.assert_allclose(figure, expected, rtol=1e-4)
    assert [trials for trials, _ in starts(run.directory)] == [[0, 1, 2, 3], finished]
