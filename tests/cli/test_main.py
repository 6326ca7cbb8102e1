"""The program as its users start it: real processes, their output, their exit codes, and what they leave behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib import pyplot as plt
from program import PROGRAM, RUN_FILES, SECONDS, TINY, assert_plain, environment, imported, program
from safetensors.numpy import load_file
from tiny_run import read_rows

from ddpg_jax.cli.arguments import find_options, parse_config, parse_overrides, split_overrides
from ddpg_jax.cli.main import _COMMANDS, main
from ddpg_jax.cli.parser import make_parser
from ddpg_jax.config.load import load_config
from ddpg_jax.config.memory import MemoryConfig
from ddpg_jax.config.pixels import EncoderConfig, PixelsConfig
from ddpg_jax.config.presets import preset_names

# --- Before jax.


@pytest.mark.parametrize("words", [("--help",), ("train", "--help"), ("evaluate", "-h"), ("doctor", "--help")])
def test_help_is_plain_and_does_not_import_jax(words):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ddpg_jax", *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0
    assert "usage: ddpg-jax" in done.stdout
    assert_plain(done.stdout)
    assert "argparse" in imported(done.stderr)
    assert not imported(done.stderr) & {"jax", "jaxlib", "flax", "optax", "gymnasium", "matplotlib"}


def test_help_lists_every_field():
    text = program("train", "--help").stdout
    whole = load_config().model_dump()
    tables = {"env.pixels": PixelsConfig, "algorithm.memory": MemoryConfig, "algorithm.encoder": EncoderConfig}
    for table, model in tables.items():
        section, name = table.split(".")
        del whole[section][name]
        whole[table] = model().model_dump()
    for section, values in whole.items():
        for name in values if isinstance(values, dict) else [section]:
            option = f"{section}.{name}" if isinstance(values, dict) else name
            assert f"--{option.replace('_', '-')} " in text or f"--{option.replace('_', '-')}\n" in text


def test_version():
    done = program("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"ddpg-jax \d+\.\d+\.\d+\S*\n", done.stdout)


def test_all_mistakes_are_reported_with_the_nearest_names_before_jax(tmp_path):
    words = ("train", "--seeds", "5", "--algorithm.tau", "2", "--algorithm.gama", "0.9", "--env.id", "NoSuch-v0")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ddpg_jax", *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert not imported(done.stderr) & {"jax", "jaxlib", "flax", "optax", "matplotlib"}
    report = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))
    assert report.startswith("ddpg-jax: 3 mistakes in the configuration:\n")
    assert re.search(r"^  env\.id = 'NoSuch-v0' .*registered.*; did you mean \S+-v\d", report, re.MULTILINE)
    assert re.search(r"^  algorithm\.tau = 2 .*\b1\b", report, re.MULTILINE)
    assert re.search(r"^  algorithm\.gama = 0\.9 .*; did you mean gamma\?$", report, re.MULTILINE)
    assert "Traceback" not in report
    assert list(tmp_path.iterdir()) == []


def test_without_a_command_it_explains_itself():
    for words in ((), ("trian",), ("train", "one.toml", "two.toml"), ("evaluate",), ("doctor", "--seeds", "5")):
        done = program(*words)
        assert done.returncode == 2
        assert done.stderr
        assert "Traceback" not in done.stderr


def test_files_that_cannot_be_read_are_mistakes(tmp_path):
    (tmp_path / "broken.toml").write_text("[env\nid = 5")
    for name in ("missing.toml", "broken.toml", "."):
        done = program("train", name, "--seeds", "2", cwd=tmp_path)
        assert done.returncode == 2
        assert name in done.stderr
        assert "Traceback" not in done.stderr


# --- Presets, and a whole configuration.


def test_a_whole_configuration_is_printed_and_reads_back_equal(tmp_path, capsys):
    assert main(["config", "hopper", "td3_paper", "--algorithm.tau", "0.01"]) == 0
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    assert load_config(tmp_path / "mine.toml") == load_config("hopper", "td3_paper", algorithm={"tau": 0.01})


def test_presets_are_listed_a_line_each(capsys):
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for names in preset_names().values():
        assert all(sum(line.split()[:1] == [name] for line in lines) == 1 for name in names)
    assert all(len(line) <= 80 for line in lines)
    assert main(["presets", "--seeds", "1"]) == 2


def test_a_task_and_a_way_to_learn_are_joined_in_order(capsys):
    assert main(["config", "hopper", "cleanrl_ddpg"]) == 0
    assert "warmup_steps = 25000" in capsys.readouterr().out
    assert main(["train", "hoper", "td3_paper"]) == 2
    assert "no preset hoper; did you mean hopper?" in capsys.readouterr().err


# --- Python without docstrings, and modules of one's own.


def test_help_needs_no_docstrings():
    done = subprocess.run([sys.executable, "-OO", "-m", "ddpg_jax", "train", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert '[exploration] with kind = "ou"' in done.stdout
    assert "discount of one step" in done.stdout


def test_modules_of_the_working_directory_are_found_by_the_script(tmp_path):
    """Which Python starts with the directory of the script on its path, not with the one that the user is in."""
    script = tmp_path / "bin" / "ddpg-jax"
    script.parent.mkdir()
    script.write_text("from ddpg_jax.cli.main import program\nprogram()\n")
    (tmp_path / "mine.py").write_text('raise RuntimeError("found mine")\n')
    words = ("train", "--env.id", "mine:Mine-v0", "--run-dir", str(tmp_path / "run"))
    done = subprocess.run(
        [sys.executable, str(script), *words], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 3
    assert "found mine" in done.stderr


# --- Training.


def test_training_leaves_a_run(trained):
    _, path = trained
    assert {file.name for file in path.iterdir()} == RUN_FILES
    assert load_config(path / "config.toml") == parse_config([], TINY)
    assert {file.name for file in (path / "tensorboard").iterdir()} == {"seed-0", "seed-1"}
    assert all(list(folder.glob("events.out.tfevents.*")) for folder in (path / "tensorboard").iterdir())
    assert (path / "learning_curve.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert min(plt.imread(path / "learning_curve.png").shape[:2]) > 300
    assert all(array.shape[0] == 2 for array in load_file(path / "checkpoints" / "final.safetensors").values())
    assert {row["event"] for row in read_rows(path / "metrics.jsonl")} == {"episode", "update", "evaluation"}
    assert read_rows(path / "timing.jsonl")[-1]["step"] == 60


def test_the_result_says_what_was_reached_and_how_fast(trained):
    result = json.loads((trained[1] / "result.json").read_text())
    assert (result["env"], result["algorithm"], result["seeds"]) == ("Pendulum-v1", "ddpg", [0, 1])
    assert (result["complete"], result["env_steps_per_seed"], result["updates_per_seed"]) == (True, 60, 39)
    for name in ("final", "best"):
        summary = result[name]
        assert summary["step"] == 60
        assert np.shape(summary["returns"]) == (2, 1)
        assert summary["per_seed"] == [row[0] for row in summary["returns"]]
        assert summary["mean"] == pytest.approx(np.mean(summary["per_seed"]))
        low, high = summary["interval"]
        assert low <= summary["interquartile_mean"] <= high
    assert result["final"]["lengths"] == [[15], [15]]
    phases = [result["seconds"][name] for name in ("act", "environment", "replay", "update")]
    assert result["seconds"]["compile"] > 0
    assert result["seconds"]["training"] == pytest.approx(sum(phases))
    assert result["env_steps_per_second"] == pytest.approx(2 * 60 / sum(phases))
    assert result["updates_per_second"] == pytest.approx(2 * 39 / sum(phases))
    assert {"python", "ddpg-jax", "jax", "jaxlib", "flax", "optax", "gymnasium", "numpy"} <= result["versions"].keys()
    assert result["versions"]["jax"] == jax.__version__
    assert result["device"]["platform"] == jax.devices()[0].platform
    assert result["machine"]["cores"] >= 1


def test_training_prints_plain_lines(trained):
    done, path = trained
    assert_plain(done.stdout)
    assert "Warning" not in done.stderr
    score = json.loads((path / "result.json").read_text())["final"]["interquartile_mean"]
    assert "step 60/60" in done.stdout
    assert f"{score:.1f}" in done.stdout
    assert "run/learning_curve.png" in done.stdout


def test_a_used_directory_is_refused(trained):
    path = trained[1]
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    done = program("train", *TINY, "--run-dir", path)
    assert done.returncode == 5
    assert "--overwrite" in done.stderr
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_overwriting_replaces_the_run_and_leaves_foreign_files(trained, tmp_path):
    """Quietly, and on a terminal of 40 columns, at that."""
    path = shutil.copytree(trained[1], tmp_path / "run")
    (path / "notes.md").write_text("mine")
    words = ("--seeds", "[7]", "--logging.tensorboard", "false", "--run-dir", "run", "--overwrite", "--quiet")
    done = program("train", *TINY, *words, cwd=tmp_path, COLUMNS="40")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in path.iterdir()} == (RUN_FILES - {"tensorboard"}) | {"notes.md"}
    assert (path / "notes.md").read_text() == "mine"
    assert json.loads((path / "result.json").read_text())["seeds"] == [7]
    assert {row["seed"] for row in read_rows(path / "metrics.jsonl")} == {7}
    assert [row["step"] for row in read_rows(path / "timing.jsonl")] == [60]
    assert "step 60/60" not in done.stdout
    table = [line for line in done.stdout.splitlines() if "run/" not in line]  # paths are not broken
    assert len(table) > 5
    assert_plain("\n".join(table), 40)


# --- What may come next, and the doctor.


def test_the_last_lines_are_commands_to_copy(trained):
    lines = trained[0].stdout.split("next:\n")[1].splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["ddpg-jax", name, "run"] for name in ("evaluate", "resume", "export", "compare")
    ]
    parser = make_parser(_COMMANDS)
    for line in lines:
        words, fields = split_overrides(line.split()[1:], find_options(parser))
        parser.parse_args(words)
        assert not parse_overrides(fields)[1]
        assert len(line) <= 80


def test_the_doctor_finds_the_installation_well():
    done = program("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"jax {jax.__version__}" in done.stdout
    assert re.search(r"programs  \d+ kept in ", done.stdout), done.stdout
    assert "self-test passed" in done.stdout
    assert_plain(done.stdout)


# --- What goes wrong on the way.


def test_a_path_that_no_system_takes_is_an_error_of_storage(capsys):
    assert main(["evaluate", "a" * 300]) == 5
    assert "File name too long" in capsys.readouterr().err


def test_an_interrupt_ends_a_run_in_good_order(tmp_path):
    path = tmp_path / "run"
    words = ("--total-steps", "1e8", "--logging.every", "20", "--evaluation.every", "0", "--run-dir", str(path))
    process = subprocess.Popen(
        [*PROGRAM, "train", *TINY, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        deadline = time.monotonic() + SECONDS
        while not (path / "timing.jsonl").exists() or not (path / "timing.jsonl").read_text():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=SECONDS)[1]
    finally:
        process.kill()
    assert process.returncode == 75
    assert "interrupted after" in said
    assert f"ddpg-jax resume {path}" in said
    assert "Traceback" not in said
    assert {file.name for file in path.iterdir()} == RUN_FILES - {"result.json", "learning_curve.png"}
    (kept,) = (file for file in (path / "checkpoints").iterdir() if "-step-" in file.name)
    reached = int(kept.name.rpartition("-")[2])
    assert 20 <= reached < 1e8
    last = read_rows(path / "timing.jsonl")[-1]["step"]  # of a report; rows of episodes tell when these ended
    assert 0 <= reached - last < 20


BROKEN = """
import gymnasium
import numpy as np


class Broken(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 12:
            raise RuntimeError("the arm fell off")
        return np.zeros(3, np.float32), 0.0, False, False, {}


gymnasium.register("Broken-v0", Broken)
"""


def test_an_environment_that_raises_is_named(tmp_path):
    (tmp_path / "broken_arm.py").write_text(BROKEN)
    words = ("--env.id", "broken_arm:Broken-v0", "--seeds", "[31]", "--run-dir", "run")
    done = program("train", *TINY, *words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    for part in ("RuntimeError: the arm fell off", "environment 0", "seed", "step 11", "action ["):
        assert part in done.stderr
    line = 1 + BROKEN.splitlines().index('            raise RuntimeError("the arm fell off")')
    frames = re.findall(r'^  File "(.*)", line (\d+), in (\w+)$', done.stderr, re.MULTILINE)
    assert frames == [(str(tmp_path / "broken_arm.py"), str(line), "step")]
    assert re.search(r"the whole traceback is in \S*run/fault.txt", done.stderr)
    whole = (tmp_path / "run" / "fault.txt").read_text()
    assert whole.startswith("Traceback (most recent call last):\n")
    assert "vector.py" in whole
    assert "RuntimeError: the arm fell off" in whole


def heard_early(path, numbers):
    """Starts a run, sends signals as soon as they are handled, and returns the exit code and what was said."""
    words = ("--total-steps", "1e8", "--env.workers", "2", "--run-dir", str(path))
    process = subprocess.Popen(
        [*PROGRAM, "train", *TINY, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    status = Path(f"/proc/{process.pid}/status")
    try:
        deadline = time.monotonic() + SECONDS
        while not int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16) >> (signal.SIGTERM - 1) & 1:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for number in numbers:
            os.killpg(process.pid, number)  # as a terminal does, or a cluster
            time.sleep(0.1)
        said = process.communicate(timeout=SECONDS)[1]
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see which signals are handled")
@pytest.mark.parametrize(
    ("numbers", "code"),
    [((signal.SIGTERM,), 75), ((signal.SIGUSR1, signal.SIGTERM), 75), ((signal.SIGINT, signal.SIGINT), 130)],
    ids=["SIGTERM", "SIGUSR1", "two Ctrl-C"],
)
def test_a_signal_while_the_program_is_loaded_ends_it_in_good_order(tmp_path, numbers, code):
    returned, said = heard_early(tmp_path / "run", numbers)
    assert returned == code, said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
@pytest.mark.parametrize("command", ["train", "doctor"])
def test_a_platform_without_a_device_is_told_in_a_line(tmp_path, command, platform):
    done = program(command, *(TINY if command == "train" else ()), cwd=tmp_path, JAX_PLATFORMS=platform)
    assert done.returncode == 2
    said = done.stderr if command == "train" else " ".join(done.stdout.split())
    assert f"jax finds no device with JAX_PLATFORMS='{platform}': " in said
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (command == "train")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [(130, (), ""), (75, (), ""), (75, ("--distributed",), "the end\n"), (0, (), "the end\n")],
)
def test_a_program_that_was_aborted_or_stopped_skips_the_end_of_its_interpreter(code, words, said):
    """Where a compiler that still works would end it by a signal; jobs of several processes take leave there."""
    text = f"import atexit, ddpg_jax.cli.main as cli; atexit.register(print, 'the end'); cli.main = lambda: {code}"
    done = subprocess.run([sys.executable, "-c", f"{text}; cli.program()", *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, said)


def test_a_module_that_is_not_there_is_an_environment_fault(tmp_path):
    done = program("train", *TINY, "--env.id", "no_such_module:Pendulum-v1", "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 3
    assert "no_such_module" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_says_so(tmp_path):
    """An infinite reward never enters; a reward of 1e30 does, and its square is no float32."""
    (tmp_path / "huge.py").write_text(BROKEN.replace("self.steps == 12", "False").replace("0.0, False", "1e30, False"))
    words = ("--env.id", "huge:Broken-v0", "--run-dir", "run")
    done = program("train", *TINY, *words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 4
    assert "all seeds have diverged: 10 updates in a row were not finite" in done.stderr
    assert (tmp_path / "run" / "not-finite-seed-0.safetensors").exists()
    assert "Traceback" not in done.stderr
