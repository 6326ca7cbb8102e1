"""Runs of several processes: how seeds are shared, and two real processes on loopback (slow)."""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

import ddpg_jax as dj
from ddpg_jax.cli.main import main
from ddpg_jax.config.load import dump_toml
from ddpg_jax.errors import ConfigError, StorageError
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.training import distributed

PROCESSES = 2
PROGRAM = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
"""Compiled as for users, by one process and by several: the flags of the tests round otherwise."""


@pytest.mark.parametrize(("index", "seeds"), [(0, (0, 1, 2)), (1, (3, 4, 5))])
def test_seeds_are_divided_in_order(index, seeds, monkeypatch):
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed.jax, "process_index", lambda: index)
    assert distributed.own_seeds(dj.load_config(seeds=6)).seed_list == seeds


def test_seeds_that_cannot_be_divided_are_refused(monkeypatch):
    monkeypatch.setattr(distributed.jax, "process_count", lambda: 2)
    with pytest.raises(ConfigError, match="5 seeds cannot be divided evenly among 2 processes"):
        distributed.own_seeds(dj.load_config(seeds=5))


def test_another_job_in_the_directory_is_refused_and_left_alone(tmp_path):
    (tmp_path / "process-1").mkdir()
    with pytest.raises(StorageError, match="holds a run: name another run_dir="):
        distributed.train_distributed(dj.load_config(seeds=1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["process-1"]


def test_of_an_earlier_job_only_runs_are_removed_and_no_link_is_followed(tmp_path):
    whole, elsewhere = tmp_path / "job", tmp_path / "elsewhere"
    for folder in (whole / "process-0", whole / "process-7", elsewhere):
        folder.mkdir(parents=True)
        (folder / "config.toml").touch()
    (whole / "process-8").symlink_to(elsewhere)
    (whole / "process-notes").mkdir()
    distributed._make_room(RunDirectory(whole), overwrite=True)
    assert sorted(path.name for path in whole.iterdir()) == ["process-0", "process-notes"]
    assert (elsewhere / "config.toml").is_file()


def test_seeds_that_diverged_are_told_from_those_that_are_left():
    assert distributed.divide_seeds((5, 6, 7), np.array([False, True, False])) == ([5, 7], [6])


def test_a_directory_must_be_named(capsys):
    assert main(["train", "--distributed"]) == 2
    assert "--distributed needs --run-dir" in capsys.readouterr().err


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_weights_of_another_run_are_not_taken_silently(tmp_path, capsys):
    assert main(["train", "--distributed", "--run-dir", str(tmp_path / "a"), "--init-from", str(tmp_path / "b")]) == 2
    assert "--init-from has no effect with --distributed" in capsys.readouterr().err


def _start(config, directory, *more):
    """Starts the command in two processes that find each other on loopback."""
    path = directory.parent / f"{directory.name}.toml"
    path.write_text(dump_toml(config))
    job = ["--distributed", "--coordinator", f"127.0.0.1:{_free_port()}", "--num-processes", str(PROCESSES)]
    command = [
        sys.executable,
        "-m",
        "ddpg_jax",
        "train",
        str(path),
        "--run-dir",
        str(directory),
        *job,
        *more,
    ]
    return [
        subprocess.Popen(
            [*command, "--process-id", str(i)], env=PROGRAM, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for i in range(PROCESSES)
    ]


def _train_in_processes(config, directory, *more):
    """What the command leaves when both processes have come to their end."""
    processes = _start(config, directory, *more)
    outputs = [process.communicate(timeout=500)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, outputs
    for i in range(PROCESSES):
        assert (f"process {i} on " in outputs[0], f"process {i} on " in outputs[1]) == (True, False)
    return json.loads((directory / "result.json").read_text())


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    config = dj.load_config(seeds=8, total_steps=700, env={"id": "jax:pendulum"})  # 200 updates
    result = _train_in_processes(config, tmp_path / "shared")
    words = ["train", str(tmp_path / "shared.toml"), "--run-dir", str(tmp_path / "alone"), "--quiet"]
    subprocess.run([sys.executable, "-m", "ddpg_jax", *words], env=PROGRAM, check=True, stdout=subprocess.PIPE)
    alone = json.loads((tmp_path / "alone" / "result.json").read_text())
    assert alone["updates_per_seed"] == 200
    whole = load_file(tmp_path / "alone" / "checkpoints" / "final.safetensors")
    parts = [
        load_file(tmp_path / "shared" / f"process-{i}" / "checkpoints" / "final.safetensors") for i in range(PROCESSES)
    ]
    for name, values in whole.items():
        np.testing.assert_allclose(np.concatenate([part[name] for part in parts]), values, atol=1e-4)
    assert result["seeds"] == list(range(8))
    assert result["processes"] == PROCESSES
    assert [(share["process"], share["seeds"]) for share in result["shares"]] == [(0, [0, 1, 2, 3]), (1, [4, 5, 6, 7])]
    assert {share["host"] for share in result["shares"]} == {platform.node()}
    assert result["complete"]
    np.testing.assert_allclose(result["final"]["per_seed"], alone["final"]["per_seed"], rtol=1e-3)
    assert dj.load_config(tmp_path / "shared" / "config.toml") == config


@pytest.mark.slow
def test_both_processes_learn(tmp_path):
    config = dj.load_config(seeds=8, total_steps=8000, env={"id": "jax:pendulum"})
    result = _train_in_processes(config, tmp_path / "shared")
    scores = np.array(result["final"]["per_seed"])
    assert np.median(scores[:4]) >= -250
    assert np.median(scores[4:]) >= -250
    assert (tmp_path / "shared" / "learning_curve.png").exists()


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_at_one_step_and_the_job_goes_on_to_the_bit(tmp_path):
    """The second process is told to stop while both learn; the same command with --resume auto ends the job."""
    config = dj.load_config(
        seeds=4,
        total_steps=20000,
        env={"id": "jax:pendulum"},
        algorithm={"hidden": (16,), "batch_size": 16},
        evaluation={"every": 2000},
        checkpoint={"every": 1000},
    )
    clean = _train_in_processes(config, tmp_path / "clean")
    processes = _start(config, tmp_path / "ended")
    records = [tmp_path / "ended" / f"process-{i}" / "metrics.jsonl" for i in range(PROCESSES)]
    deadline = time.monotonic() + 300
    while not all(record.exists() and '"evaluation"' in record.read_text() for record in records):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [75] * PROCESSES
    assert all("to go on, start each of them again with --resume auto" in each for each in said)
    last = [json.loads(record.read_text().splitlines()[-1])["step"] for record in records]
    assert last[0] == last[1] < 20000
    assert not (tmp_path / "ended" / "result.json").exists()
    result = _train_in_processes(config, tmp_path / "ended", "--resume", "auto")
    assert result["final"] == clean["final"]
    assert result["best"] == clean["best"]
    for i in range(PROCESSES):
        for name in ("metrics.jsonl", "checkpoints/final.safetensors"):
            a, b = (tmp_path / run / f"process-{i}" / name for run in ("clean", "ended"))
            assert a.read_bytes() == b.read_bytes(), name
