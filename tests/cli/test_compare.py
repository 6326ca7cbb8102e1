"""The command `compare`: what it prints, what it writes, what it refuses, and how long it takes."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from recorded_runs import learning, write_run

from ddpg_jax.cli.main import main

STEPS = np.arange(1, 21) * 500
TASKS = ("Pendulum-v1", "MountainCarContinuous-v0")
ALGORITHMS = ({"name": "ddpg"}, {"name": "td3"}, {"name": "d4pg", "v_min": -1500.0, "v_max": 0.0})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Six runs of five seeds, three algorithms on two tasks, by their names."""
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for task in TASKS:
        for algorithm in ALGORITHMS:
            i, name = len(made), f"{task}_{algorithm['name']}"
            returns, seconds = learning(len(STEPS), 5, -150.0 - 30 * i, i), [3.0 * n for n in range(1, 21)]
            settings = {"env": {"id": task}, "algorithm": algorithm}
            made[name] = write_run(folder / name, STEPS, returns, seconds=seconds, **settings)
    return made


def compare(capsys, *words):
    """Exit code, lines of the output, and the error."""
    code = main(["compare", *map(str, words)])
    found = capsys.readouterr()
    return code, found.out.splitlines(), found.err


def program(*words, report=()):
    done = subprocess.run(
        [sys.executable, *report, "-m", "ddpg_jax", "compare", *map(str, words)],
        env=os.environ | {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_program_prints_a_short_table_and_the_files_that_it_wrote(runs, tmp_path):
    out = tmp_path / "out"
    done = program(*runs.values(), "--out", out, report=("-X", "importtime"))
    told = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in told if not line.startswith(str(out)))
    assert "\x1b" not in done.stdout
    assert [task for task in TASKS if f"{task}, step 10000" in done.stdout] == list(TASKS)
    assert (
        len([line for line in told if re.search(r"│ (ddpg|td3|d4pg) +│ +5 │ +-\d+\.\d \[-\d+\.\d, -\d+\.\d\] │", line)])
        == 6
    )
    named = [line for line in told if line.startswith(str(out))]
    paths = {
        stem + end for line in named for stem, _, ends in [line.partition("{")] for end in ends.rstrip("}").split(",")
    }
    assert paths == {str(path) for path in out.rglob("*") if path.is_file()}
    assert len(paths) == 6 * 3 + 5 * 3 + 2
    loaded = {match.split(".")[0] for match in re.findall(r"^import time:.*\|\s*([\w.]+)$", done.stderr, re.MULTILINE)}
    assert "matplotlib" in loaded
    assert not loaded & {"jax", "jaxlib", "flax", "optax", "gymnasium", "scipy", "tensorboard", "pandas"}


@pytest.fixture
def undrawn(monkeypatch):
    """No figures, which take most of the time."""
    monkeypatch.setattr("ddpg_jax.runs.compare.figures._FIGURES", {})


@pytest.mark.usefixtures("undrawn")
def test_peers_and_groups_stand_beside_runs(runs, tmp_path, capsys):
    peer = tmp_path / "sbx.csv"
    peer.write_text(
        "step,seed,return\n" + "".join(f"{step},{seed},{-seed}\n" for step in (500, 2000) for seed in (1, 2, 3))
    )
    ours = runs["Pendulum-v1_ddpg"]
    grouped = f"all three={','.join(str(runs[f'Pendulum-v1_{each}']) for each in ('td3', 'd4pg'))}"
    words = (ours, "--group", grouped, "--peer", f"sbx={peer}", "--target", "-100", "--out", tmp_path / "out")
    code, told, error = compare(capsys, *words)
    assert (code, error) == (0, "")
    assert [line for line in told if re.search(r"│ ddpg +│ +5 │", line)]
    assert [line for line in told if re.search(r"│ all three +│ +10 │", line)]
    assert [line for line in told if re.search(r"│ sbx +│ +3 │ +-2\.0 \[-3\.0, -1\.0\] │ +-2\.0 at 500 │", line)]
    text = " ".join(told)
    assert "note: Pendulum-v1: compared up to step 2000, where sbx ends" in text
    assert "different seeds" in text
    efficiency = (tmp_path / "out" / "tables" / "efficiency.csv").read_text()
    assert "Pendulum-v1,-100.0,sbx,500,500,500,3 of 3," in efficiency


@pytest.mark.usefixtures("undrawn")
def test_seeds_that_diverged_are_told(runs, tmp_path, capsys):
    lost = write_run(
        tmp_path / "lost", STEPS, learning(len(STEPS), 3, -100.0), diverged={2: 5000}, algorithm={"name": "td3"}
    )
    words = (runs["Pendulum-v1_ddpg"], lost, "--out", tmp_path / "out")
    for choice, said in ((), "the worst return of all"), (("--diverged", "exclude"), "left out"):
        _, told, _ = compare(capsys, *words, *choice)
        text = " ".join(line.strip() for line in told)
        assert "1 of 3 seeds of" in text
        assert said in text
    assert "[fewer than 3 seeds]" in text


@pytest.mark.usefixtures("undrawn")
def test_scores_over_all_tasks_are_told_with_a_scale(runs, tmp_path, capsys):
    scales = [word for task in TASKS for word in ("--normalize", f"{task}=-1400,-150")]
    _, told, _ = compare(capsys, *runs.values(), *scales, "--out", tmp_path)
    assert any("aggregate.{csv,md,tex}" in line for line in told)
    assert (tmp_path / "tables" / "aggregate.csv").read_text().count("\n") == 4


REFUSED = {
    "nothing to compare": (),
    "write NAME=RUN,RUN": ("--group", "x"),
    "write NAME=FILE": ("--peer", "x"),
    "there is no": ("{run}", "--peer", "x=none.csv"),
    "is not a run directory": ("none",),
    "is a group already": ("{run}", "--group", "ddpg={run}"),
    "is a group of runs": ("{run}", "--peer", "ddpg={peer}"),
    "say what it learned": ("{run}", "{other}", "--peer", "x={peer}"),
    "there are several tasks": ("{run}", "{other}", "--target", "5"),
    "write RETURN or TASK=RETURN": ("{run}", "--target", "x"),
    "--target T: no run is of this task": ("{run}", "--target", "T=5"),
    "write TASK=LOW,HIGH": ("{run}", "--normalize", "T=5"),
    "two different returns": ("{run}", "--normalize", "T=5,5"),
    "returns of all tasks need a scale": ("{run}", "{other}", "--normalize", "Pendulum-v1=0,1"),
    "is the directory of a run": ("{run}", "--out", "{run}"),
    "compare takes no fields": ("{run}", "--algorithm.tau", "0.5"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_compared_is_refused_in_one_line_and_writes_nothing(runs, tmp_path, capsys, why):
    peer = tmp_path / "peer.csv"
    peer.write_text("step,return\n500,1\n")
    names = {"run": runs["Pendulum-v1_ddpg"], "other": runs["MountainCarContinuous-v0_td3"], "peer": peer}
    words = [word.format(**names) for word in REFUSED[why]]
    code, told, error = compare(capsys, *(() if "--out" in words else ("--out", tmp_path / "out")), *words)
    assert code in (2, 5)
    assert told == []
    assert why in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_told(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, _, error = compare(capsys, runs["Pendulum-v1_ddpg"], "--out", tmp_path / "file")
    assert code == 5
    assert "--out" in error
