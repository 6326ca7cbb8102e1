"""A small search run as a command, its programs processes of their own; and what it leaves."""

import json
import os
import subprocess
import sys

PROGRAM = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
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
ASHA = '[stop]\nkind = "asha"\nrungs = [0.25]\nkeep = 0.5\n'
ORDERED_ASHA = f"processes = 1\n{ASHA}"
"""One process at a time, so that runs end in the same order each time."""


def start(path, directory, *words, before=()):
    """Starts a search, by a program that is named before it where it needs one."""
    program = [*before, sys.executable, "-m", "ddpg_jax"]
    command = [*program, "sweep", str(path), "--run-dir", str(directory), "--resume", "auto"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*command, *words], env=PROGRAM, **pipes)


def finish(path, directory, *words, before=()):
    said = start(path, directory, *words, before=before).communicate(timeout=500)[0]
    assert (directory / "result.json").exists(), said
    return said


def left(directory):
    records = {file.parent.name: file.read_bytes() for file in directory.glob("runs/*/metrics.jsonl")}
    result = json.loads((directory / "result.json").read_text())
    return (directory / "trials.jsonl").read_bytes(), records, result
