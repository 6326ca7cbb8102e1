"""The command `evaluate`, in a process of its own."""

import re

import pytest
from program import assert_plain, program


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
