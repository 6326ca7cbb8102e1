"""A stranger's package, installed beside this one: its parts are trained from the command line, killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STRANGER = Path(__file__).parents[1] / "stranger"
PARTS = [
    *("--algorithm.name", "stranger_quantiles", "--algorithm.kwargs.atoms", "7"),
    *("--logging.loggers", '["stranger_counts"]', "--logging.callbacks", '["stranger_norm"]'),
]
SMALL = [
    *("--seeds", "2", "--total-steps", "3000", "--algorithm.hidden", "[8]", "--algorithm.batch-size", "16"),
    *("--evaluation.every", "1000", "--evaluation.episodes", "2", "--logging.every", "100"),
    *("--checkpoint.every", "100", "--checkpoint.min-seconds", "0", "--no-cache"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment of variables in which the package is found, with its entry points."""
    place = tmp_path_factory.mktemp("installed")
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(place), str(STRANGER)]
    subprocess.run([sys.executable, "-m", "pip", "install", *words], check=True)
    path = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}


def program(env, *words, cwd=None):
    done = subprocess.run([sys.executable, "-m", "ddpg_jax", *words], env=env, cwd=cwd, capture_output=True, text=True)
    return done


def killed(env, directory, *words):
    """Trains until a checkpoint is there, and is killed."""
    command = [sys.executable, "-m", "ddpg_jax", "train", *words, "--run-dir", str(directory)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not [*directory.glob("checkpoints/*/manifest.json")] and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "networks"),
    [
        ("stranger_point", ["--algorithm.make-networks", "stranger_linear"]),
        ("jax:stranger_device_point", []),
    ],
)
def test_installed_parts_are_trained_killed_resumed_and_evaluated(env_id, networks, installed, tmp_path):
    words = ["--env.id", env_id, *PARTS, *networks, *SMALL]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = program(installed, "train", *words, "--run-dir", str(whole))
    assert done.returncode == 0, done.stderr
    killed(installed, cut, *words)
    done = program(installed, "resume", str(cut))  # names of installed packages need no permission
    assert done.returncode == 0, done.stderr
    for name in ("metrics.jsonl", "checkpoints/final.safetensors"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    assert '"actor_norm"' in (whole / "metrics.jsonl").read_text()
    assert int((whole / "counts.txt").read_text()) > 50
    done = program(installed, "evaluate", str(cut), "--episodes", "2")
    assert done.returncode == 0, done.stderr
    assert "stranger_quantiles" in done.stdout
    done = program(dict(os.environ), "evaluate", str(cut), "--episodes", "2")
    assert done.returncode == 2
    assert "stranger_quantiles" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_plugin_registers_parts_for_every_command(tmp_path):
    (tmp_path / "plugin_of_mine.py").write_text(
        "import gymnasium, stranger, ddpg_jax\n"
        'gymnasium.register("MyPoint-v0", stranger.Point)\n'
        'ddpg_jax.register("agent", "mine", stranger.quantiles)\n'
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(STRANGER), os.environ.get("PYTHONPATH", "")])}
    plugin = ["--plugin", "plugin_of_mine"]
    words = ["train", *plugin, "--env.id", "MyPoint-v0", "--algorithm.name", "mine", *SMALL, "--total-steps", "600"]
    done = program(env, *words, "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert program(env, "evaluate", "run", "--episodes", "1", *plugin, cwd=tmp_path).returncode == 0
    done = program(env, "evaluate", "run", "--episodes", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert "no agent of this name is known" in done.stderr
