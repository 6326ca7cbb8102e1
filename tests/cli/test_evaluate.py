"""The command `evaluate`, in a process of its own."""

import json
import re

import numpy as np
import pytest
from program import assert_plain, program
from tiny_run import tiny_config

import ddpg_jax as dj


@pytest.mark.parametrize("columns", ["80", "40"])
def test_evaluating_a_run(trained, columns):
    path = trained[1]
    done = program("evaluate", path.name, "--episodes", "2", cwd=path.parent, COLUMNS=columns)
    assert done.returncode == 0, done.stderr
    assert_plain(done.stdout, int(columns))
    assert "2 episodes" in " ".join(done.stdout.split())
    if columns == "80":
        rows = re.findall(r"│\s+(\d+) │((?:\s+-?[\d.]+ │){5})", done.stdout)
        assert [seed for seed, _ in rows] == ["0", "1"]
        for _, row in rows:
            mean, _, lowest, highest, length = (float(x) for x in row.split("│")[:-1])
            assert lowest <= mean <= highest < 0
            assert length == 15


def test_evaluating_what_is_no_run(tmp_path):
    done = program("evaluate", tmp_path / "none")
    assert done.returncode == 5
    assert "none" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("--episodes", "0"), ("--episodes", "inf"), ("--env.num-envs", "0"), ("--what",)])
def test_evaluating_with_a_mistake(trained, words):
    done = program("evaluate", trained[1], *words)
    assert done.returncode == 2
    assert words[0] in done.stderr or words[0].strip("-").replace("-", "_") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("env", ["Pendulum-v1", pytest.param("jax:pendulum", marks=pytest.mark.slow)])
def test_windows_beside_whole_episodes(env, tmp_path):
    """The episodes are those of an evaluation without it; windows that begin from zeros differ from what was lived."""
    memory = {"hidden": 4, "length": 4, "burn_in": 1, "obs_embedding": 2, "action_embedding": 2, "reward_embedding": 2}
    run = dj.train(tiny_config(env={"id": env}, algorithm={"memory": memory}), tmp_path / "run")
    words = "evaluate", run.directory, "--episodes", "2"
    with_gap, without = (json.loads(program(*words, "--json", *more).stdout) for more in (["--window-gap"], []))
    rows = with_gap.pop("window_gap")
    assert with_gap == without
    assert [row["steps_since_zeros"] for row in rows] == [0, 1, 2, 4]
    assert all(0 < x < 1 for row in rows for x in row["per_seed"])
    assert all(row["mean"] == pytest.approx(np.mean(row["per_seed"])) for row in rows)
    if env == "Pendulum-v1":
        done = program(*words, "--window-gap")
        assert_plain(done.stdout, 80)
        (shown,) = re.findall(r"after 1 step since zeros\s*│\s*([\d.]+)", done.stdout)
        assert float(shown) == pytest.approx(rows[1]["mean"], abs=6e-5)


def test_windows_of_a_run_without_memory(trained):
    done = program("evaluate", trained[1], "--window-gap")
    assert done.returncode == 2
    assert "[algorithm.memory]" in done.stderr
    assert "Traceback" not in done.stderr
