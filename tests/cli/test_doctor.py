"""Looking at an installation's determinism, at what a run has kept, and at the display of a terminal."""

import io
import re
import shutil
import tomllib
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.wrappers import TimeLimit
from rich.console import Console
from tiny_run import EPISODE, finished_run, tiny_config

import ddpg_jax as dj
from ddpg_jax.cli.doctor import EXTRAS, examine_determinism, first_difference
from ddpg_jax.cli.main import main
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint
from ddpg_jax.runs.checkpoints.rows import Rows

EQUAL = "two runs of 60 steps: equal to the bit, sha256 "


class Careless(PendulumEnv):
    """Pays a random sum more, and none of the generators that it was given knows how much."""

    def step(self, u):
        obs, reward, *rest = super().step(u)
        return obs, float(reward) + np.random.default_rng().normal(), *rest


@pytest.fixture
def careless():
    gymnasium.register("Careless-v0", lambda: TimeLimit(Careless(), EPISODE))
    yield "Careless-v0"
    gymnasium.registry.pop("Careless-v0")


@pytest.mark.slow
def test_two_equal_runs_are_equal_on_both_loops(capsys):
    assert examine_determinism((tiny_config(), tiny_config(env={"id": "jax:pendulum"}))) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in said] == ["Pendulum-v1", "jax:pendulum"]
    assert all(EQUAL in line for line in said)


def test_of_runs_that_differ_the_first_array_is_named(careless, capsys):
    assert examine_determinism((tiny_config(), tiny_config(env={"id": careless}))) == 1
    fine, odd = capsys.readouterr().out.splitlines()
    assert EQUAL in fine
    assert re.fullmatch(r"Careless-v0, two runs of 60 steps: DIFFERENT, first in \w+(/\w+)*", odd)


def test_the_first_difference_is_an_array_or_a_row():
    def kept(row, **arrays):
        rows = np.array([[1.0], [2.0], [row]], np.float32)
        arrays = {name: np.array(value, np.float32) for name, value in arrays.items()}
        return Checkpoint(8, arrays, Rows(0, 3, lambda a, b: {"rows": rows[a:b]}), {})

    whole = kept(3.0, a=1.0, b=0.0)
    assert first_difference(whole, kept(3.0, a=1.0, b=0.0)) is None
    assert first_difference(whole, kept(9.0, a=1.0, b=0.0)) == "row 2 of the replay"
    assert first_difference(whole, kept(9.0, a=1.0, b=-0.0)) == "b"
    assert first_difference(whole, kept(3.0, a=1.0)) == "b"
    assert first_difference(whole, kept(3.0, a=2.0, b=1.0)) == "a"


def test_of_what_a_run_has_kept_every_checkpoint_is_named(tmp_path, tmp_path_factory, capsys):
    path = shutil.copytree(finished_run(tmp_path_factory).directory, tmp_path / "run")
    assert main(["verify", str(path)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"00000001-step-60  whole, step 60, .* kB, level exact", said)
    assert len(re.findall(r"sha256 [0-9a-f]{64}", said)) == 2
    arrays = path / "checkpoints" / "00000001-step-60" / "arrays.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-1])
    assert main(["verify", str(path)]) == 5
    said = capsys.readouterr().out
    assert "00000001-step-60  BROKEN: " in said
    assert "there is no whole checkpoint: resume would refuse" in said
    assert main(["verify", str(path), "--seeds", "3"]) == 2
    assert "verify takes no fields, but got --seeds 3" in capsys.readouterr().err


def test_on_a_terminal_there_is_a_bar(tmp_path):
    shown = io.StringIO()
    dj.train(tiny_config(), tmp_path / "run", console=Console(file=shown, force_terminal=True, width=80))
    last = [line for line in re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue())) if line][-1]
    assert "60/60" in last
    assert "steps/s" in last
    assert max(map(len, last.splitlines())) <= 80


def test_every_extra_is_looked_for():
    """But those of accelerators, whose devices are named instead."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert {*EXTRAS, "cuda", "tpu"} == project["optional-dependencies"].keys()
