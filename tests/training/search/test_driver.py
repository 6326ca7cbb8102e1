"""What a search decides, with runs that only write their record; killed anywhere, it ends as one that was not."""

import json
import random
import tomllib
from contextlib import closing

import pytest
from search_runs import SPACE, Killed, Writer, searched, write_search

from ddpg_jax.errors import ConfigError, Interrupted
from ddpg_jax.training.search.driver import FRESH, Driver
from ddpg_jax.training.search.file import load_search
from ddpg_jax.training.search.record import TrialsRecord, read_lines
from ddpg_jax.training.search.run import dry_run

HALVING = (
    """
[search]
sampler = "random"
trials = 7
batch = 4
retrain = 2
"""
    + SPACE
    + """
[stop]
rungs = [0.2, 0.45]
keep = 0.5
"""
)


def test_the_best_of_each_batch_go_on_and_the_best_of_all_is_trained_again(tmp_path):
    run, engine = searched(write_search(tmp_path, HALVING), tmp_path / "run")
    lines = read_lines(run.directory / "trials.jsonl")[0]
    asked = [line["values"]["algorithm.tau"] for line in lines if line["event"] == "asked"]
    assert len(asked) == 7
    stopped = {line["trial"]: line["step"] for line in lines if line["event"] == "stopped"}
    first, second = sorted(range(4), key=lambda i: -asked[i]), sorted(range(4, 7), key=lambda i: -asked[i])
    expected = {number: 200 for number in first[2:]} | {first[1]: 500} | {second[2]: 200, second[1]: 500}
    assert stopped == expected
    starts = [(len(line["trials"]), line["until"]) for line in lines if line["event"] == "started"]
    assert starts == [(1, 200)] * 4 + [(1, 500)] * 2 + [(1, None)] + [(1, 200)] * 3 + [(1, 500)] * 2 + [(1, None)] * 2
    best = max(first[0], second[0], key=lambda i: asked[i])
    top = run.result["combinations"][0]
    assert top["combination"] == best
    assert top["interquartile_mean"] == pytest.approx(100 * asked[best] + 1 + 1)  # the middle of seeds 0, 1, 2
    assert run.result["retrained"]["per_seed"] == pytest.approx([100 * asked[best] + 1, 100 * asked[best] + 2])
    config = tomllib.loads((engine.tasks[-1].directory.parent / f"{engine.tasks[-1].name}.toml").read_text())
    assert config["seeds"] == [FRESH, FRESH + 1]
    assert (run.directory / "ranking.png").is_file()
    assert tomllib.loads((run.directory / "best.toml").read_text())["algorithm"]["tau"] == asked[best]
    assert engine.closed


def test_killed_anywhere_it_ends_with_the_same_record_runs_and_ranking(tmp_path):
    path = write_search(tmp_path, HALVING)
    whole, engine = searched(path, tmp_path / "whole")

    def left(directory):
        runs = sorted(file.relative_to(directory).as_posix() for file in (directory / "runs").rglob("*"))
        result = json.loads((directory / "result.json").read_text())
        return (directory / "trials.jsonl").read_bytes(), runs, result

    calls = 2 * len(engine.tasks)
    chance = random.Random(0)  # noqa: S311
    for life in chance.sample(range(calls), 5):
        directory = tmp_path / f"killed-{life}"
        with pytest.raises(Killed):
            searched(path, directory, Writer(life=life))
        again, engine = searched(path, directory, resume="auto")
        assert left(again.directory) == left(whole.directory)
        assert len(engine.tasks) < calls // 2 or life < 5  # what had ended is not run again


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_trials_may_be_added_to_a_search_that_has_ended(sampler, tmp_path):
    """What was asked for stays, though a model begins later where there are more trials."""
    if sampler == "tpe":
        pytest.importorskip("optuna")
    halving = HALVING.replace('"random"', f'"{sampler}"').replace("batch = 4", "batch = 2")
    path = write_search(tmp_path, halving)
    before = read_lines(searched(path, tmp_path / "run")[0].directory / "trials.jsonl")[0]
    write_search(tmp_path, halving.replace("trials = 7", "trials = 12"))
    run, _ = searched(path, tmp_path / "run", resume="auto")
    after = read_lines(run.directory / "trials.jsonl")[0]
    assert after[: len(before)] == before
    assert sum(line["event"] == "asked" for line in after) == 12
    write_search(tmp_path, halving.replace("keep = 0.5", "keep = 0.6"))
    with pytest.raises(ConfigError, match=r"holds another search, which differs in \[stop\]"):
        searched(path, tmp_path / "run", resume="auto")


def test_settings_of_one_structure_are_lanes_on_the_device_loop(tmp_path):
    text = """
    [search]
    sampler = "grid"
    retrain = 0
    [search.space]
    "algorithm.tau" = { choice = [0.1, 0.3, 0.2] }
    "algorithm.hidden" = { choice = [[8], [16]] }
    """
    run, engine = searched(write_search(tmp_path, text, "jax:pendulum"), tmp_path / "run")
    assert [task.command[3] for task in engine.tasks] == ["sweep", "sweep"]
    assert [entry["values"]["algorithm.tau"] for entry in run.result["combinations"]] == [0.3, 0.3, 0.2, 0.2, 0.1, 0.1]
    assert run.result["combinations"][0]["per_seed"] == pytest.approx([31, 32, 33])
    assert run.result["retrained"] is None


def test_a_setting_that_fails_is_named_and_does_not_end_the_search(tmp_path):
    """One that is no configuration; one that ends a program of two with exit code 3, whose settings are run alone."""
    text = """
    [search]
    sampler = "grid"
    batch = 2
    retrain = 0
    [search.space]
    "algorithm.tau" = { choice = [0.1, 7.0, 0.3, 0.2] }
    """
    run, engine = searched(write_search(tmp_path, text), tmp_path / "run", Writer(codes={1: 3, 3: 3}))
    failed = {entry["combination"]: entry["failed"] for entry in run.result["combinations"] if entry["failed"]}
    assert failed.keys() == {1, 3}
    assert "algorithm.tau" in failed[1]
    assert failed[3] == "its environment failed"
    assert [entry["combination"] for entry in run.result["combinations"]][:2] == [2, 0]
    assert [task.command[3] for task in engine.tasks] == ["train", "sweep", "train", "train"]
    assert run.result["finished"] == [0, 2]
    before, after = (tmp_path / "run" / "trials.jsonl").read_bytes(), run.result
    again, engine = searched(tmp_path / "search.toml", tmp_path / "run", resume="auto")
    assert (again.result, engine.tasks) == (after, [])
    assert (tmp_path / "run" / "trials.jsonl").read_bytes() == before


def test_a_dry_run_says_what_would_be_started_first(tmp_path):
    search = load_search(write_search(tmp_path, HALVING))
    lines = dry_run(search, tmp_path / "run", ("--plugin", "mine")).splitlines()
    assert len(lines) == 4
    assert all(line.endswith("--quiet --plugin mine --until 200") for line in lines)
    assert "--array=0-3" in dry_run(load_search(tmp_path / "search.toml", engine="slurm"), None)
    assert not (tmp_path / "run").exists()


def test_settings_that_come_twice_are_one_run(tmp_path):
    text = """
    [search]
    trials = 6
    batch = 6
    retrain = 0
    [search.space]
    "algorithm.tau" = { choice = [0.1, 0.3] }
    """
    run, engine = searched(write_search(tmp_path, text), tmp_path / "run")
    assert len(run.result["combinations"]) == 6
    assert len(engine.tasks) == len({task.name for task in engine.tasks}) == 2


def test_combinations_of_a_sweep_are_run_by_an_engine(tmp_path):
    text = '[engine]\nkind = "local"\n[grid]\nalgorithm.tau = [0.1, 0.2]\nalgorithm.hidden = [[8], [16]]\n'
    run, engine = searched(write_search(tmp_path, text), tmp_path / "run")
    assert [task.command[3] for task in engine.tasks] == ["sweep"] * 2
    assert run.result["combinations"][0]["values"]["algorithm.tau"] == 0.2


def test_a_stop_ends_it_and_says_how_it_goes_on(tmp_path):
    search, directory = load_search(write_search(tmp_path, HALVING)), tmp_path / "run"
    directory.mkdir()
    with closing(TrialsRecord(directory / "trials.jsonl")) as record:
        driver = Driver(search, directory, record, Writer(), lambda: True, lambda line: None)
        with pytest.raises(Interrupted):
            driver.run()
    assert [line["event"] for line in read_lines(directory / "trials.jsonl")[0]] == ["asked"] * 4 + ["started"] * 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[search]\nsampler = "best"', "search.sampler"),
        ("[search]\ntrails = 3", "search.trails: unknown key"),
        ('[search]\n[grid]\nalgorithm.tau = [0.1]\n[search.space]\n"algorithm.gamma" = {low=0.1, high=0.2}', "beside"),
        ("[search]\n[search.space]\nseeds = {low=1, high=2, integer=true}", "seeds is searched, and set for all"),
        ("[stop]\nrungs = [0.3, 0.1]\n[grid]\nalgorithm.tau = [0.1]", "rungs must rise"),
    ],
)
def test_a_file_that_is_wrong_is_refused(text, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        load_search(write_search(tmp_path, text))
