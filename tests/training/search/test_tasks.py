"""Several tasks in one objective: each setting is trained on all of them, and their normalised returns are averaged."""

import io
import tomllib

import pytest
from rich.console import Console
from search_runs import TASK, Writer, searched, write_search

from ddpg_jax.cli.sweep_status import read_progress, status_table
from ddpg_jax.cli.tables import ranking_table
from ddpg_jax.config.load import load_config
from ddpg_jax.errors import ConfigError
from ddpg_jax.training.search.file import load_search
from ddpg_jax.training.search.record import read_lines
from ddpg_jax.training.search.run import dry_run

SEARCH = """
[search]
sampler = "grid"
trials = 4
batch = 4
retrain = 2
[search.space]
"algorithm.tau" = { choice = [0.1, 0.2, 0.3, 0.4] }
"""
TASKS = (
    TASK
    + """[[search.tasks]]
name = "longer"
config = { env.id = "Pendulum-v1", env.kwargs.g = 5.0, total_steps = 2000 }
low = -100
high = 100
"""
)
HALVING = "[stop]\nrungs = [0.2]\nkeep = 0.5\n"
ASHA = '[stop]\nkind = "asha"\nrungs = [0.2]\nkeep = 0.5\n'


def render(table):
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def normalized(tau, seed, end=1.0, longer=2.0):
    """What a seed of `write_record` comes to on both tasks."""
    return ((100 * tau + end + seed) / 50 + (100 * tau + longer + seed + 100) / 200) / 2


@pytest.mark.parametrize("stop", ["", HALVING, ASHA])
def test_the_score_is_the_mean_of_normalised_returns_over_the_tasks(stop, tmp_path):
    run, engine = searched(write_search(tmp_path, SEARCH + TASKS + stop), tmp_path / "run")
    top = run.result["combinations"][0]
    assert top["values"] == {"algorithm.tau": 0.4}
    assert top["per_seed"] == pytest.approx([normalized(0.4, seed) for seed in range(3)])
    assert top["interquartile_mean"] == pytest.approx(normalized(0.4, 1))
    assert top["interval"][0] <= top["interquartile_mean"] <= top["interval"][1]
    assert top["tasks"]["Pendulum-v1"]["per_seed"] == pytest.approx([41, 42, 43])
    assert top["tasks"]["longer"]["per_seed"] == pytest.approx([42, 43, 44])
    assert run.result["tasks"] == {"Pendulum-v1": {"low": 0, "high": 50}, "longer": {"low": -100, "high": 100}}
    again = run.result["retrained"]
    assert again["per_seed"] == pytest.approx([normalized(0.4, 0), normalized(0.4, 1)])
    steps = {"Pendulum-v1": 1000, "longer": 2000}
    assert {name: each["step"] for name, each in top["tasks"].items()} == steps
    stopped = [entry for entry in run.result["combinations"] if entry["stopped"]]
    assert sorted(entry["combination"] for entry in stopped) == ([0, 1] if stop else [])
    assert run.result["env_steps"] == 3 * (2 * 3000 + 2 * (600 if stop else 3000))
    ids = [load_config(run.directory / name).env for name in ("best.toml", "best-2.toml")]
    assert [each.kwargs for each in ids] == [{}, {"g": 5.0}]
    before = (run.directory / "trials.jsonl").read_bytes()
    again, engine = searched(tmp_path / "search.toml", run.directory, resume="auto")
    assert (again.result, engine.tasks) == (run.result, [])
    assert (run.directory / "trials.jsonl").read_bytes() == before


def test_tables_show_each_task(tmp_path):
    run, _ = searched(write_search(tmp_path, SEARCH + TASKS + HALVING), tmp_path / "run")
    said = render(ranking_table(run.result))
    assert "Pendulum-v1" in said
    assert "longer" in said
    assert "mean of normalised returns, over 3 seeds" in said
    assert f"{normalized(0.4, 1):.3f}" in said
    assert "42.0" in said
    assert "43.0" in said
    progress = read_progress(run.directory)
    assert [each.state for each in progress] == ["stopped", "stopped", "ended", "ended"]
    assert progress[3].tasks == pytest.approx({"Pendulum-v1": 42, "longer": 43})
    assert progress[3].score == pytest.approx(normalized(0.4, 1))
    assert [each.step for each in progress] == [600, 600, 3000, 3000]
    assert "longer" in render(status_table(run.directory))


def test_a_setting_that_fails_on_one_task_has_no_score(tmp_path):
    path = write_search(tmp_path, SEARCH + TASKS + HALVING)
    run, _ = searched(path, tmp_path / "run", Writer(codes={5: 4}))
    failed = [entry for entry in run.result["combinations"] if entry["failed"]]
    assert len(failed) == 1
    assert failed[0]["failed"] == "longer: all seeds diverged"
    assert failed[0]["interquartile_mean"] is None
    lines = read_lines(run.directory / "trials.jsonl")[0]
    assert {line["task"] for line in lines if line["event"] == "scored"} == {"Pendulum-v1", "longer"}


def test_lanes_and_rungs_are_those_of_each_task(tmp_path):
    text = (SEARCH + TASKS).replace("Pendulum-v1", "jax:pendulum").replace(", env.kwargs.g = 5.0", "")
    run, engine = searched(write_search(tmp_path, text, "jax:pendulum"), tmp_path / "run")
    assert [task.command[3] for task in engine.tasks] == ["sweep", "sweep", "train", "train"]
    first = tomllib.loads((engine.tasks[1].directory.parent / f"{engine.tasks[1].name}.toml").read_text())
    assert first["config"]["total_steps"] == 2000
    assert run.result["combinations"][0]["tasks"]["jax:pendulum"]["interquartile_mean"] == pytest.approx(42)
    lines = dry_run(load_search(write_search(tmp_path, SEARCH + TASKS + HALVING)), None).splitlines()
    assert sorted(line.split("--until ")[1] for line in lines) == ["200"] * 4 + ["400"] * 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TASKS.replace("high = 50", "high = 0"), "low must be below high"),
        (TASKS.replace("low = 0", ""), "low"),
        (TASKS.replace('name = "longer"', ""), "another task is called Pendulum-v1: give this one a name"),
        (TASKS.replace("total_steps = 2000", "algorithm.tau = 0.1"), "tau is set by a task, and is searched"),
        (TASKS.replace("total_steps = 2000", "seeds = 2"), "seeds is set by a task, and is the same for all tasks"),
    ],
)
def test_tasks_that_are_wrong_are_refused(text, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        load_search(write_search(tmp_path, SEARCH + text))


def test_an_option_does_not_set_what_a_task_sets(tmp_path):
    path = write_search(tmp_path, SEARCH + TASKS)
    with pytest.raises(ConfigError, match=r"env.id is set by a task, and is an option"):
        load_search(path, {"env": {"id": "jax:pendulum"}})
