"""A real search: programs of their own train, the driver is killed, and what is left is that of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
KILLS = int(os.environ.get("DDPG_JAX_KILLS", "2")) // 2
FILE = """
[config]
env.id = "{env}"
env.max_episode_steps = 50
seeds = 2
total_steps = 800
evaluation.every = 200
evaluation.episodes = 2
logging.every = 200
logging.tensorboard = false
checkpoint.every = 100
checkpoint.min_seconds = 0
algorithm.hidden = [8]
algorithm.batch_size = 8
algorithm.warmup_steps = 100
replay.capacity = 800

[search]
sampler = "sobol"
trials = 3
batch = 3
retrain = 2

[search.space]
"algorithm.tau" = {{ low = 0.001, high = 0.1, log = true }}

[engine]
kind = "local"
"""
HALVING = "[stop]\nrungs = [0.25]\nkeep = 0.5\n"


def start(path, directory):
    words = [sys.executable, "-m", "ddpg_jax", "sweep", str(path), "--run-dir", str(directory), "--resume", "auto"]
    return subprocess.Popen(words, env=PROGRAM, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(path, directory):
    said = start(path, directory).communicate(timeout=500)[0]
    assert (directory / "result.json").exists(), said
    return said


def left(directory):
    records = {file.parent.name: file.read_bytes() for file in directory.glob("runs/*/metrics.jsonl")}
    result = json.loads((directory / "result.json").read_text())
    return (directory / "trials.jsonl").read_bytes(), records, result


@pytest.mark.slow
@pytest.mark.parametrize(("env", "more"), [("Pendulum-v1", HALVING), ("jax:pendulum", "")])
def test_a_driver_that_is_killed_leaves_what_one_leaves_that_is_not(env, more, tmp_path):
    """Its programs end with it; what they had saved is gone on with."""
    path = tmp_path / "search.toml"
    path.write_text(FILE.format(env=env) + more)
    finish(path, tmp_path / "warm")  # what it compiles is kept
    began = time.monotonic()
    said = finish(path, tmp_path / "whole")
    life = time.monotonic() - began
    assert "trained again with 2 fresh seeds it reaches" in said
    expected = left(tmp_path / "whole")
    assert len(expected[1]) == (4 if more else 2)
    chance, kills, runs = random.Random(env), 0, 0  # noqa: S311
    while kills < KILLS:
        directory, runs = tmp_path / f"run-{runs}", runs + 1
        while kills < KILLS:
            driver = start(path, directory)
            try:
                driver.communicate(timeout=chance.uniform(0.2 * life, 0.9 * life))
                break  # it came to its end first
            except subprocess.TimeoutExpired:
                driver.send_signal(signal.SIGKILL)
                driver.communicate()
                kills += 1
        finish(path, directory)
        assert left(directory) == expected
    print(f"{env}: {kills} kills, {runs} searches, all equal")


@pytest.mark.slow
def test_a_signal_ends_a_search_with_75_and_it_goes_on(tmp_path):
    path, directory = tmp_path / "search.toml", tmp_path / "run"
    path.write_text(FILE.format(env="Pendulum-v1"))
    driver, began = start(path, directory), time.monotonic()
    while not list(directory.glob("runs/*/metrics.jsonl")):
        assert time.monotonic() < began + 300
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    said = driver.communicate(timeout=120)[0]
    assert driver.returncode == 75, said
    assert f"to go on: ddpg-jax resume {directory}" in " ".join(said.split())
    resumed = [sys.executable, "-m", "ddpg_jax", "resume", str(directory), "--quiet"]
    subprocess.run(resumed, env=PROGRAM, check=True, timeout=500, stdout=subprocess.DEVNULL)
    assert json.loads((directory / "result.json").read_text())["finished"] == [0, 1, 2]
