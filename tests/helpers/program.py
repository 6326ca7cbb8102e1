"""The program in processes of its own, as its users start it."""

import os
import re
import subprocess
import sys

import jax

PROGRAM = (sys.executable, "-m", "ddpg_jax")
SECONDS = 240  # far more than any command takes: a guard against hanging
TINY = (
    *("--seeds", "2", "--total-steps", "60", "--env.max-episode-steps", "15"),
    *("--algorithm.hidden", "[8]", "--algorithm.batch-size", "4", "--algorithm.warmup-steps", "20"),
    *("--replay.capacity", "1000", "--evaluation.episodes", "1"),
)
RUN_FILES = {
    *("config.toml", "metrics.jsonl", "timing.jsonl", "result.json", "learning_curve.png", "tensorboard"),
    *("checkpoints", "run.lock", "format.json"),
}


def environment(**more):
    """This process's, with a terminal of 80 columns, and compiled programs shared with the other tests."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return os.environ | cache | {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"} | more


def program(*words, cwd=None, **more):
    """Runs the program to its end, its output in pipes."""
    return subprocess.run(
        [*PROGRAM, *map(str, words)],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
    )


def imported(stderr):
    """Top-level modules in a report of `-X importtime`."""
    return {match.split(".")[0] for match in re.findall(r"^import time:.*\|\s*([\w.]+)$", stderr, re.MULTILINE)}


def assert_plain(text, columns=80):
    """No escape codes, no line over the terminal's width."""
    assert "\x1b" not in text
    assert "\r" not in text
    assert [line for line in text.splitlines() if len(line) > columns] == []
