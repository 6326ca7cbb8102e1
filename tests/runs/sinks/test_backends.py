"""One suite for every sink: what it holds is what the record says, each number once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sink_readers import BACKENDS, alive, children, environment, expected, follow, need, read

import ddpg_jax.runs.sinks.factory as factory
from ddpg_jax.errors import ConfigError

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "tests" / "helpers" / "plain_sink.py"
KILLS = int(os.environ.get("DDPG_JAX_KILLS", "2"))
INSTALLED = [name for name in BACKENDS if factory.find_problem(name) is None]


@pytest.mark.parametrize("name", BACKENDS)
def test_what_a_sink_holds_is_the_record(name, tmp_path):
    """A record that grows, is cut back and written again, and a follower that dies on the way."""
    need(name)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text('total_steps = 7\n[env]\nid = "Pendulum-v1"\n[algorithm]\nname = "ddpg"\n')
    rows = [
        {"event": event, "seed": seed, "step": step, "updates": step, name: step / 7 + seed, "returns": [1.0]}
        for step in range(10, 200, 10)
        for seed in (4, 9)
        for event, name in (("update", "critic_loss"), ("evaluation", "mean_return"))
    ]
    (run / "whole.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for lengths, code in (("-60", 9), (f"24,{len(rows)},{len(rows)}", 0)):
        done = follow(run, name, lengths, tmp_path)
        assert done.returncode == code, done.stderr
    assert done.stdout.split()[-2:] == [str(len(rows)), "0"]  # at last there is nothing new
    assert read(name, run, tmp_path) == expected(run)


@pytest.mark.slow
def test_runs_that_are_killed_send_each_step_once(tmp_path):
    """Twenty kills of a process that trains, half of them of its followers too."""
    words = [
        *("--seeds", "2", "--total-steps", "3000", "--checkpoint-every", "100", "--checkpoint.min-seconds", "0"),
        *(
            "--evaluation.every",
            "500",
            "--evaluation.episodes",
            "2",
            "--logging.every",
            "50",
            "--replay.capacity",
            "2000",
        ),
        *("--algorithm.warmup-steps", "200", "--algorithm.hidden", "[16,16]", "--algorithm.batch-size", "16"),
        *("--logging.sinks", json.dumps(INSTALLED), "--logging.tensorboard", "false", "--quiet", "--resume", "auto"),
    ]
    chance, kills, runs, killed_followers = random.Random(7), 0, 0, 0  # noqa: S311
    life = None
    while kills < KILLS:
        run = tmp_path / f"run-{runs}"
        while True:
            command = [sys.executable, "-W", "ignore", str(PROGRAM), "train", *words, "--run-dir", str(run)]
            began = time.monotonic()
            process = subprocess.Popen(
                command, env=environment(tmp_path), stderr=subprocess.PIPE, text=True, start_new_session=True
            )
            try:
                process.wait(chance.uniform(0.2 * life, life) if life is not None and kills < KILLS else 600)
            except subprocess.TimeoutExpired:
                followers = children(process.pid)
                if chance.random() < 0.5:
                    for child in followers:
                        killed_followers += alive(child)
                        os.kill(child, signal.SIGKILL)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                process.stderr.close()
                continue
            said = process.communicate()[1]
            assert process.returncode == 0, said
            life = life or time.monotonic() - began
            break
        for name in INSTALLED:
            if "lacks rows" in said:  # a machine that is busy with other things: what is left is sent now
                again = [sys.executable, "-W", "ignore", str(PROGRAM), "sync", str(run), "--to", name]
                subprocess.run(again, env=environment(tmp_path), check=True, timeout=300)
            assert read(name, run, tmp_path) == expected(run), f"run {runs}, {name}"
        runs += 1
    print(f"{INSTALLED}: {kills} kills, {killed_followers} followers killed too, {runs} runs, each step once")


def test_sinks_that_cannot_be_made_are_told_before_anything_starts(monkeypatch):
    monkeypatch.setattr(factory.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"wandb: needs wandb, not installed here: pip install \"ddpg-jax\[wandb\]\""):
        factory.make_sink("wandb")
    with pytest.raises(ConfigError, match="there are wandb, mlflow, trackio"):
        factory.make_sink("tensorflow")
    with pytest.raises(ConfigError, match="has no Nothing"):
        factory.make_sink("plain_sink:Nothing")
    monkeypatch.undo()
    monkeypatch.setattr(factory.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///tmp/mlruns")
    with pytest.raises(ConfigError, match="is a folder, which MLflow refuses"):
        factory.check_sinks(["mlflow"])
