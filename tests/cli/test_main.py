"""The program as its users start it: real processes, their output, their exit codes, and what they leave behind."""

import io
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
from safetensors.numpy import load_file
from tiny_run import read_rows

from ddpg_jax.cli import main as cli
from ddpg_jax.cli.arguments import fields_help, find_options, parse_config, parse_overrides, split_overrides
from ddpg_jax.cli.main import _COMMANDS, main
from ddpg_jax.cli.parser import make_parser
from ddpg_jax.config.algorithms import MemoryConfig
from ddpg_jax.config.load import load_config
from ddpg_jax.config.pixels import EncoderConfig, PixelsConfig
from ddpg_jax.config.presets import preset_names
from ddpg_jax.errors import ConfigError

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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny run by `train`, started in its parent directory."""
    folder = tmp_path_factory.mktemp("cli")
    done = program("train", *TINY, "--run-dir", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done, folder / "run"


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


@pytest.mark.parametrize(
    "words",
    [
        ("my.toml", "--seeds", "0"),
        ("--seeds", "0", "my.toml"),
        ("--seeds=0", "my.toml"),
        ("--quiet", "my.toml", "--seeds", "0", "--overwrite"),
        ("--seeds", "0", "--run-dir", "somewhere", "my.toml"),
        ("--run_dir", "somewhere", "--seeds", "0", "my.toml"),
    ],
)
def test_a_file_is_not_taken_for_a_value_nor_a_value_for_a_file(tmp_path, words):
    (tmp_path / "my.toml").write_text("[algorithm]\ntau = 2\n")
    done = program("train", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "2 mistakes" in done.stderr
    assert re.search(r"algorithm\.tau = 2 \(my\.toml\)", done.stderr)
    assert re.search(r"seeds = 0 \(command line\)", done.stderr)


@pytest.mark.parametrize("word", ["--tau", "--algorithm.tau", "--seeds"])
def test_an_option_without_a_value_is_a_mistake(word):
    for words in ((word,), (word, "--total-steps", "0")):
        done = program("train", *words)
        assert done.returncode == 2
        assert word.lstrip("-") in done.stderr


# --- How values are written.


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--total-steps", "7"], {"total_steps": 7}),
        (["--total_steps", "7"], {"total_steps": 7}),
        (["--total-steps=7"], {"total_steps": 7}),
        (["--total-steps", "1e6"], {"total_steps": 1_000_000}),
        (["--algorithm.actor-learning-rate=1e-4"], {"algorithm": {"actor_learning_rate": 1e-4}}),
        (["--algorithm.actor_learning-rate", "1e-4"], {"algorithm": {"actor_learning_rate": 1e-4}}),
        (["--algorithm.hidden", "32,16"], {"algorithm": {"hidden": (32, 16)}}),
        (["--algorithm.hidden=[32, 16]"], {"algorithm": {"hidden": (32, 16)}}),
        (["--algorithm.hidden", "[32]"], {"algorithm": {"hidden": (32,)}}),
        (["--seeds", "3,1,2"], {"seeds": (3, 1, 2)}),
        (["--seeds", "[3]"], {"seeds": (3,)}),
        (["--seeds", "2", "--seeds", "3"], {"seeds": 3}),
        (["--exploration.kind", "ou", "--exploration.theta", "0.2"], {"exploration": {"kind": "ou", "theta": 0.2}}),
        (["--exploration.kind=none"], {"exploration": {"kind": "none"}}),
        (["--env.id", "Hopper-v5"], {"env": {"id": "Hopper-v5"}}),
        (["--env.id", "my.envs:Mine-v0"], {"env": {"id": "my.envs:Mine-v0"}}),
        (["--env.kwargs.g", "9.81"], {"env": {"kwargs": {"g": 9.81}}}),
        (["--env.kwargs.render-fps=3"], {"env": {"kwargs": {"render_fps": 3}}}),
        (
            ["--env.kwargs.z", "0.8,2.0", "--env.kwargs.t={a = [1]}"],
            {"env": {"kwargs": {"z": (0.8, 2.0), "t": {"a": [1]}}}},
        ),
        (["--env.kwargs.n", "None", "--env.kwargs.b=False"], {"env": {"kwargs": {"n": None, "b": False}}}),
        (["--logging.tensorboard", "false"], {"logging": {"tensorboard": False}}),
    ],
)
def test_values_on_the_command_line(words, changes):
    assert parse_config([], words) == load_config(**changes)


def test_the_command_line_wins_over_the_file(tmp_path):
    (tmp_path / "my.toml").write_text("seeds = 2\ntotal_steps = 9\n[algorithm]\ntau = 0.1\nn_step = 3\n")
    config = parse_config([str(tmp_path / "my.toml")], ["--algorithm.tau", "0.2", "--seeds=4"])
    assert config == load_config(seeds=4, total_steps=9, algorithm={"tau": 0.2, "n_step": 3})


def test_a_negative_value_is_a_value():
    with pytest.raises(ConfigError, match=r"exploration\.sigma = -1 \(arguments\)"):
        parse_config([], ["--exploration.sigma", "-1"])


def test_a_file_may_not_name_a_module(tmp_path):
    (tmp_path / "my.toml").write_text('[env]\nid = "antigravity:Pendulum-v1"\n')
    done = program("train", "my.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "command line only" in done.stderr


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


# --- Output that fails, foreign text, and Python without docstrings.


@pytest.mark.parametrize("stream", ["2>/dev/full", "2>&-", "2>&- >&-", "2>/dev/full >/dev/full", "<&- 2>&-"])
@pytest.mark.parametrize(("words", "code"), [("train --seeds 0", 2), ("evaluate /none", 5), ("nonsense", 2)])
def test_the_exit_code_is_that_of_the_table_though_nobody_hears_why(stream, words, code):
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {stream}', "sh", *PROGRAM, *words.split()],
        env=environment(),
        capture_output=True,
        timeout=SECONDS,
    )
    assert done.returncode == code
    assert done.stdout == b""


@pytest.mark.parametrize("words", [("train", "--help"), ("presets",), ("train", "--σ", "漢"), ("train", b"\xff.toml")])
def test_what_cannot_be_encoded_is_written_escaped(words):
    done = subprocess.run(
        [*PROGRAM, *words], env=environment(LC_ALL="C", PYTHONIOENCODING="ascii"), capture_output=True, timeout=SECONDS
    )
    assert done.returncode == (0 if words in (("train", "--help"), ("presets",)) else 2)
    assert b"Traceback" not in done.stderr
    assert (done.stdout + done.stderr).isascii()


def test_help_needs_no_docstrings():
    done = subprocess.run([sys.executable, "-OO", "-m", "ddpg_jax", "train", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert '[exploration] with kind = "ou"' in done.stdout
    assert "discount of one step" in done.stdout


def test_help_says_what_a_field_may_be():
    text = " ".join(fields_help().split())
    assert "discount of one step (at least 0, at most 1; default 0.99)" in text
    assert "of Adam (above 0, at most 1; default 0.0005)" in text
    assert "of the hidden layers (relu, elu, tanh or silu; default relu)" in text
    assert "the algorithm (ddpg, td3, d4pg, fasttd3 or drqv2; default ddpg)" in text


def test_foreign_text_is_shown_escaped(tmp_path, capsys):
    (tmp_path / "my.toml").write_text('"\\u001b[2J" = "[bold]"\n')
    assert main(["train", str(tmp_path / "my.toml"), "--\x1b[1m", "\u202e"]) == 2
    said = capsys.readouterr().err
    assert said.replace("\n", "").isprintable()
    assert r"\x1b[2J = '[bold]'" in said


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


# --- Evaluation and the doctor.


@pytest.mark.parametrize("columns", ["80", "40"])
def test_evaluating_a_run(trained, columns):
    path = trained[1]
    done = program("evaluate", path.name, "--episodes", "2", cwd=path.parent, COLUMNS=columns)
    assert done.returncode == 0, done.stderr
    assert_plain(done.stdout, int(columns))
    assert "2 episodes" in " ".join(done.stdout.split())
    if columns == "80":
        rows = re.findall(r"│\s+(\d+) │((?:\s+-?[\d.]+ │){5})", done.stdout)
        assert [seed for seed, _ in rows] == ["0", "1"]
        for _, row in rows:
            mean, _, lowest, highest, length = (float(x) for x in row.split("│")[:-1])
            assert lowest <= mean <= highest < 0
            assert length == 15


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


def test_evaluating_what_is_no_run(tmp_path):
    done = program("evaluate", tmp_path / "none")
    assert done.returncode == 5
    assert "none" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("--episodes", "0"), ("--episodes", "inf"), ("--env.num-envs", "0"), ("--what",)])
def test_evaluating_with_a_mistake(trained, words):
    done = program("evaluate", trained[1], *words)
    assert done.returncode == 2
    assert words[0] in done.stderr or words[0].strip("-").replace("-", "_") in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_finds_the_installation_well():
    done = program("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"jax {jax.__version__}" in done.stdout
    assert re.search(r"programs  \d+ kept in ", done.stdout), done.stdout
    assert "self-test passed" in done.stdout
    assert_plain(done.stdout)


# --- What goes wrong on the way.


@pytest.mark.parametrize("output", ["broken pipe", "closed", "full"])
def test_an_output_that_cannot_be_written_does_not_end_training(tmp_path, output):
    words = [*PROGRAM, "train", *TINY, "--logging.every", "10", "--run-dir", str(tmp_path / "run")]
    if output == "closed":
        words = ["sh", "-c", 'exec "$@" >&-', "sh", *words]
    target = {"broken pipe": subprocess.PIPE, "closed": None, "full": Path("/dev/full")}[output]
    stdout = target.open("w") if isinstance(target, Path) else target
    process = subprocess.Popen(words, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment())
    for pipe in (process.stdout, stdout):
        if hasattr(pipe, "close"):
            pipe.close()
    with process:
        said = process.stderr.read()
        process.wait(SECONDS)
    assert "Traceback" not in said
    assert {file.name for file in (tmp_path / "run").iterdir()} == RUN_FILES
    assert json.loads((tmp_path / "run" / "result.json").read_text())["complete"]


@pytest.mark.parametrize("output", ["broken pipe", "full"])
def test_help_that_cannot_be_written_is_no_fault(output):
    with Path("/dev/full").open("w") as full:
        stdout = full if output == "full" else subprocess.PIPE
        words = [*PROGRAM, "train", "--help"]
        process = subprocess.Popen(words, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment())
        if process.stdout is not None:
            process.stdout.close()
        with process:
            said = process.stderr.read()
            assert process.wait(SECONDS) == 0
    assert said == ""


def test_a_path_may_look_like_markup(tmp_path, capsys):
    path = tmp_path / "m[/x]" / "[red]"
    assert main(["train", *TINY, "--quiet", "--run-dir", str(path)]) == 0
    assert f"{path}/learning_curve.png" in capsys.readouterr().out.replace("\n", "")


def test_a_path_that_no_system_takes_is_an_error_of_storage(capsys):
    assert main(["evaluate", "a" * 300]) == 5
    assert "File name too long" in capsys.readouterr().err


def test_a_section_is_not_a_field(capsys):
    assert main(["train", "--env", "Pendulum-v1", "--env.id", "Foo-v0"]) == 2
    said = capsys.readouterr().err
    assert "env = 'Pendulum-v1' (command line): is a section; write --env.id" in said
    assert "--env.id: env is a section, and --env sets it to a value" in said


def test_a_count_is_a_number(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "run", "--episodes", "many"])
    assert "many is not a whole number of at least 1" in capsys.readouterr().err


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


class Broken(io.StringIO):
    """Nobody reads it any more."""

    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("output", [Broken(), closed(), None], ids=["broken", "closed", "none"])
@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
def test_an_abort_ends_the_process_whatever_became_of_its_output(output, again, monkeypatch):
    def aborted():
        if again:
            raise KeyboardInterrupt
        return 130

    ended, before = [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("ddpg_jax.cli.main.main", aborted)
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr(sys, "stdout", output)
    try:
        with pytest.raises(SystemExit):
            cli.program()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [130]


def test_an_abort_is_told_where_somebody_listens(monkeypatch, capsys, tmp_path):
    def aborted(*of):
        raise KeyboardInterrupt

    monkeypatch.setattr("ddpg_jax.cli.verify.verify", aborted)
    assert main(["verify", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", Broken())
    assert main(["verify", str(tmp_path)]) == 130
