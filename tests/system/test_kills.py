"""Real kills: runs of the command line, killed at random instants and resumed, end as the one that was not."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from ddpg_jax.runs.checkpoints.checkpoint import digest
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory

KILLS = int(os.environ.get("DDPG_JAX_KILLS", "2"))
SECONDS = 300
DEFAULTS = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
"""Devices, threads and the compiler's work are those of the program, not those of the tests."""

SMALL = (
    *("--seeds", "2", "--total-steps", "3000", "--checkpoint-every", "100", "--checkpoint.min-seconds", "0"),
    *("--evaluation.every", "500", "--evaluation.episodes", "2", "--logging.every", "250"),
    *("--algorithm.warmup-steps", "200", "--algorithm.hidden", "[16,16]", "--algorithm.batch-size", "16"),
)
MEMORY = (
    *(*SMALL, "--algorithm.updates-per-step", "0.25", "--algorithm.memory.length", "8"),
    *("--algorithm.memory.hidden", "8", "--algorithm.memory.burn-in", "4"),
)
PIXELS = (
    *(*SMALL, "--total-steps", "1500", "--evaluation.every", "750", "--algorithm.name", "drqv2"),
    *("--env.pixels.size", "16", "--env.pixels.gray", "true", "--env.pixels.repeat", "2", "--env.max-episode-steps"),
    *("60", "--algorithm.encoder.kind", "small", "--algorithm.encoder.channels", "2", "--algorithm.encoder.features"),
    *("8", "--replay.capacity", "700"),
)
TASKS = {
    "host loop, Pendulum": (*SMALL, "--replay.capacity", "2000"),
    "host loop, MuJoCo, priorities": (
        *(*SMALL, "--env.id", "HalfCheetah-v5", "--env.max-episode-steps", "150", "--replay.kind", "prioritized"),
        *("--replay.capacity", "2000", "--algorithm.name", "td3", "--exploration.kind", "ou"),
    ),
    "device loop": (*SMALL, "--env.id", "jax:pendulum", "--total-steps", "6000", "--replay.capacity", "5000"),
    "host loop, memory": (*MEMORY, "--replay.capacity", "2000"),
    "device loop, memory, kept states": (
        *(*MEMORY, "--env.id", "jax:pendulum", "--total-steps", "6000", "--replay.capacity", "5000"),
        *("--algorithm.memory.keep-every", "4", "--algorithm.memory.cell", "lru", "--replay.kind", "prioritized"),
    ),
    "host loop, pixels, proprioception": (*PIXELS, "--env.pixels.proprioception", "true"),
    "device loop, pixels, priorities": (*PIXELS, "--env.id", "jax:pendulum", "--replay.kind", "prioritized"),
}


SHARES = {"memory": 2, "pixels": 4}
"""Of tasks that compile for long: one of so many kills."""


class Left(NamedTuple):
    """What a run left, as hashes."""

    parameters: str
    contents: str
    metrics: str


def left(path: Path) -> Left:
    """Of the final parameters, of all that the last checkpoint holds (the replay included), and of the record."""
    store = CheckpointStore(RunDirectory(path).checkpoints)
    found, set_aside = store.newest()
    assert found is not None
    assert set_aside == []
    files = (path / "checkpoints" / "final.safetensors", path / "metrics.jsonl")
    parameters, metrics = (hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return Left(parameters, digest(store.load(found)), metrics)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """For fresh processes: they share what is compiled, so that most of their life is work and not compiling."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return DEFAULTS | cache


def begin(words, path, environment):
    """Starts a run, or goes on with the one that is in the directory."""
    command = [sys.executable, "-m", "ddpg_jax", "train", *words, "--run-dir", str(path), "--resume", "auto", "--quiet"]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(words, path, environment):
    """Runs to the end; returns what it said."""
    said = begin(words, path, environment).communicate(timeout=SECONDS)[1]
    assert (path / "result.json").exists(), said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_runs_that_are_killed_end_with_the_same_hashes(task, environment, tmp_path):
    words = TASKS[task]
    finish(words, tmp_path / "warm", environment)
    began = time.monotonic()
    finish(words, tmp_path / "clean", environment)
    life = time.monotonic() - began
    clean = left(tmp_path / "clean")
    assert left(tmp_path / "warm") == clean
    chance, kills, runs, lives = random.Random(task), 0, 0, []  # noqa: S311
    wanted = max(1, KILLS // next((share for name, share in SHARES.items() if name in task), 1))
    while kills < wanted:
        path = tmp_path / f"run-{runs}"
        killed = 0
        while True:
            process = begin(words, path, environment)
            try:
                code = process.wait(chance.uniform(0.1 * life, 1.1 * life) if kills < wanted else SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills, killed = kills + 1, killed + 1
                process.stderr.close()
                continue
            said = process.communicate()[1]
            assert code == 0, said
            break
        assert left(path) == clean, f"run {runs}, killed {killed} times"
        runs += 1
        lives.append(killed)
    print(f"{task}: {kills} kills, {runs} runs, killed {lives} times, all equal; {clean.contents}")
    assert sum(lives) == wanted


SWEEP = """
[config]
seeds = 2
total_steps = 4000
env.id = "jax:pendulum"
algorithm.hidden = [16, 16]
algorithm.batch_size = 16
algorithm.warmup_steps = 200
replay.capacity = 3000
evaluation.every = 1000
evaluation.episodes = 2
logging.every = 500
checkpoint.every = 200
checkpoint.min_seconds = 0

[grid]
algorithm.tau = [0.005, 0.05]
algorithm.n_step = [1, 3]
"""


@pytest.mark.slow
@pytest.mark.parametrize("identifier", ["jax:pendulum", "Pendulum-v1"])
def test_a_sweep_that_is_killed_ends_with_the_same_record_and_ranking(identifier, environment, tmp_path):
    """Two structures, a turn each; two kills, or a quarter of those asked for."""
    (tmp_path / "sweep.toml").write_text(SWEEP.replace("jax:pendulum", identifier))

    def start(path):
        command = [sys.executable, "-m", "ddpg_jax", "sweep", str(tmp_path / "sweep.toml"), "--run-dir", str(path)]
        return subprocess.Popen(
            [*command, "--resume", "auto", "--quiet"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def complete(path):
        said = start(path).communicate(timeout=SECONDS)[1]
        assert (path / "result.json").exists(), said
        combinations = json.loads((path / "result.json").read_text())["combinations"]
        return (path / "metrics.jsonl").read_bytes(), (path / "best.toml").read_bytes(), combinations

    complete(tmp_path / "warm")
    began = time.monotonic()
    clean = complete(tmp_path / "clean")
    life = time.monotonic() - began
    chance, kills, runs, saved = random.Random("sweep"), 0, 0, 0  # noqa: S311
    while kills < max(2, KILLS // 4):
        path, runs = tmp_path / f"run-{runs}", runs + 1
        while kills < max(2, KILLS // 4):
            process = start(path)
            try:
                process.wait(chance.uniform(0.3 * life, 1.1 * life))
                said = process.communicate()[1]
                assert process.returncode == 0, said
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                kills, saved = kills + 1, saved + (path / "checkpoints").is_dir()
        assert complete(path) == clean, f"run {runs - 1}"
    print(f"sweep: {kills} kills, {saved} with checkpoints, {runs} runs, all equal")
    assert saved


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "number"),
    [
        ("host loop, Pendulum", signal.SIGTERM),
        ("host loop, Pendulum", signal.SIGINT),
        ("device loop", signal.SIGUSR1),
    ],
)
def test_a_signal_ends_a_run_with_exit_75_and_it_goes_on(task, number, environment, tmp_path):
    """At random times; all three signals take the same way (tests/training/test_resume.py sends each)."""
    words = TASKS[task]
    finish(words, tmp_path / "clean", environment)
    chance, notices, path = random.Random(number), [], tmp_path / "run"  # noqa: S311
    while len(notices) < max(2, KILLS // 4):
        process = begin(words, path, environment)
        timing = path / "timing.jsonl"
        size = timing.stat().st_size if timing.exists() else 0
        deadline = time.monotonic() + SECONDS
        while process.poll() is None and not (timing.exists() and timing.stat().st_size > size):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(number)
        began = time.monotonic()
        said = process.communicate(timeout=SECONDS)[1]
        if process.returncode == 0:  # it came to its end first
            break
        notices.append(time.monotonic() - began)
        assert process.returncode == 75, said
        assert f"resume {path}" in said
        assert not (path / "result.json").exists()
    finish(words, path, environment)
    assert left(path) == left(tmp_path / "clean")
    print(f"{task}, {number.name}: exit 75 {len(notices)} times, the longest {max(notices, default=0):.2f} s after it")
    assert notices


@pytest.mark.slow
@pytest.mark.parametrize(
    ("identifier", "seconds"),  # it compiles, and then evaluates for long
    [("Pendulum-v1", 1.2), ("Pendulum-v1", 8.0), ("jax:pendulum", 3.5)],
)
def test_a_second_ctrl_c_aborts_at_once(identifier, seconds, tmp_path):
    words = ("--total-steps", "1e7", "--evaluation.every", "1", "--evaluation.episodes", "2000", "--seeds", "1")
    process = begin(("--env.id", identifier, *words), tmp_path / "run", DEFAULTS)
    while identifier == "Pendulum-v1" and not (tmp_path / "run" / "config.toml").exists():  # which is there early
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(seconds)
    began = time.monotonic()
    while process.poll() is None:  # one that comes before the first was seen is the same to a process
        assert time.monotonic() < began + 20
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    said = process.communicate()[1]
    ended = "to go on" in said or "start it again" in said
    stopped = process.returncode == 75 and ended  # the first was enough: it ended before the second
    assert stopped or process.returncode == 130, said
    if process.returncode == 130 and identifier == "Pendulum-v1":
        assert json.loads((tmp_path / "run" / "run.lock").read_text())["process"] == process.pid
