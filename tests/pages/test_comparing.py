"""What docs/comparing.md says can be typed is typed, on short runs; its figures are those that are drawn."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from recorded_runs import learning, write_run

from ddpg_jax.cli.main import main
from ddpg_jax.runs.compare.figures import _FIGURES

PAGE = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text()


def block(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return text


@pytest.fixture
def folder(run, tmp_path, monkeypatch):
    """The folder in which everything of the page is there: a real run, and shorter ones."""
    monkeypatch.chdir(tmp_path)
    steps = np.array([500, 1000])
    for name, algorithm in (("ddpg", {}), ("td3_slow", {"name": "td3", "tau": 0.001})):
        write_run(tmp_path / "runs" / name, steps, learning(2, 4, -200.0), seconds=[5.0, 9.0], algorithm=algorithm)
    write_run(tmp_path / "runs" / "td3", steps, learning(2, 4, -150.0), seconds=[5.0, 9.0], algorithm={"name": "td3"})
    (tmp_path / "sbx.csv").write_text(block("csv"))
    return tmp_path


def test_the_commands_run(folder, capsys, monkeypatch):
    monkeypatch.setattr("ddpg_jax.runs.compare.figures.FORMATS", ("svg",))
    commands = [shlex.split(line, comments=True) for line in block("sh").splitlines()]
    assert len(commands) == 3
    for program, *words in commands:
        assert program == "ddpg-jax"
        assert main(words) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"runs", "comparison", "by_hand", "with_peers"}
    assert "td3, both" in told
    assert "no interval for sbx (2)" in " ".join(told.split())
    drawn = {path.stem for path in (folder / "with_peers" / "figures").iterdir()}
    assert drawn == set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == _FIGURES.keys()


def test_the_python_runs(run):
    names = {}
    exec(block("python").replace("runs/td3", str(run.directory)), names)  # noqa: S102  it is our own page
    assert names["record"].returns.shape == (3, 2, 3)
    assert len(names["loss"].step) > 1
