"""A real search: programs of their own train, the driver is killed, and what is left is that of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from whole_search import FILE, HALVING, ORDERED_ASHA, PROGRAM, finish, left, start

KILLS = int(os.environ.get("DDPG_JAX_KILLS", "2")) // 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "more", "runs_left"),
    [
        ("Pendulum-v1", HALVING, 4),
        ("Pendulum-v1", ORDERED_ASHA, 4),
        ("jax:pendulum", "", 2),
        ("jax:pendulum", HALVING, 3),
    ],
    ids=["halving", "asha", "lanes", "repacked"],
)
def test_a_driver_that_is_killed_leaves_what_one_leaves_that_is_not(env, more, runs_left, tmp_path):
    """Its programs end with it; what they had saved is gone on with."""
    path = tmp_path / "search.toml"
    path.write_text(FILE.format(env=env) + more)
    finish(path, tmp_path / "warm")  # what it compiles is kept
    began = time.monotonic()
    said = finish(path, tmp_path / "whole")
    life = time.monotonic() - began
    assert "trained again with 2 fresh seeds it reaches" in said
    expected = left(tmp_path / "whole")
    assert len(expected[1]) == runs_left
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
