"""Runs of several processes: how seeds are shared, and two real processes on loopback (slow)."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

import ddpg_jax as dj
from ddpg_jax import distributed
from ddpg_jax.cli import main
from ddpg_jax.errors import ConfigError
from ddpg_jax.reading import dump_toml

PROCESSES = 2


@pytest.mark.parametrize(("index", "seeds"), [(0, (0, 1, 2)), (1, (3, 4, 5))])
def test_seeds_are_divided_in_order(index, seeds, monkeypatch):
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed.jax, "process_index", lambda: index)
    assert distributed.own_seeds(dj.load_config(seeds=6)).seed_list == seeds


def test_seeds_that_cannot_be_divided_are_refused(monkeypatch):
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="5 seeds cannot be divided evenly among 2 processes"):
        distributed.own_seeds(dj.load_config(seeds=5))


def test_seeds_that_diverged_are_told_from_those_that_are_left():
    assert distributed.divided((5, 6, 7), np.array([False, True, False])) == ([5, 7], [6])


def test_a_directory_must_be_named(capsys):
    assert main(["train", "--distributed"]) == 2
    assert "--distributed needs --run-dir" in capsys.readouterr().err


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _train_in_processes(config, directory):
    """Runs the command in two processes that find each other on loopback."""
    path = directory.parent / f"{directory.name}.toml"
    path.write_text(dump_toml(config))
    job = ["--distributed", "--coordinator", f"127.0.0.1:{_free_port()}", "--num-processes", str(PROCESSES)]
    command = [sys.executable, "-m", "ddpg_jax", "train", str(path), "--run-dir", str(directory), "--quiet", *job]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    processes = [
        subprocess.Popen([*command, "--process-id", str(i)], env=environment, stdout=subprocess.PIPE, text=True)
        for i in range(PROCESSES)
    ]
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, outputs
    return json.loads((directory / "result.json").read_text())


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    config = dj.load_config(seeds=8, total_steps=700, env={"id": "jax:pendulum"})  # 200 updates
    result = _train_in_processes(config, tmp_path / "shared")
    alone = dj.train(config, tmp_path / "alone")
    assert alone.result["updates_per_seed"] == 200
    whole = load_file(alone.directory / "checkpoints" / "final.safetensors")
    parts = [
        load_file(tmp_path / "shared" / f"process-{i}" / "checkpoints" / "final.safetensors") for i in range(PROCESSES)
    ]
    for name, values in whole.items():
        np.testing.assert_allclose(np.concatenate([part[name] for part in parts]), values, atol=1e-4)
    assert result["seeds"] == list(range(8))
    assert result["processes"] == PROCESSES
    assert result["complete"]
    np.testing.assert_allclose(result["final"]["per_seed"], alone.result["final"]["per_seed"], rtol=1e-3)
    assert dj.load_config(tmp_path / "shared" / "config.toml") == config


@pytest.mark.slow
def test_both_processes_learn(tmp_path):
    config = dj.load_config(seeds=8, total_steps=8000, env={"id": "jax:pendulum"})
    result = _train_in_processes(config, tmp_path / "shared")
    scores = np.array(result["final"]["per_seed"])
    assert np.median(scores[:4]) >= -250
    assert np.median(scores[4:]) >= -250
    assert (tmp_path / "shared" / "learning_curve.png").exists()
