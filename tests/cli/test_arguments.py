"""How fields are written on the command line, and what is said of those that are not right."""

import re

import pytest
from program import program

from ddpg_jax.cli.arguments import fields_help, parse_config
from ddpg_jax.cli.main import main
from ddpg_jax.config.load import load_config
from ddpg_jax.errors import ConfigError


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


def test_help_says_what_a_field_may_be():
    text = " ".join(fields_help().split())
    assert "discount of one step (at least 0, at most 1; default 0.99)" in text
    assert "of Adam (above 0, at most 1; default 0.0005)" in text
    assert "of the hidden layers (relu, elu, tanh or silu; default relu)" in text
    assert "the algorithm (ddpg, td3, d4pg, fasttd3, drqv2, td7 or mrq; default ddpg)" in text


def test_a_section_is_not_a_field(capsys):
    assert main(["train", "--env", "Pendulum-v1", "--env.id", "Foo-v0"]) == 2
    said = capsys.readouterr().err
    assert "env = 'Pendulum-v1' (command line): is a section; write --env.id" in said
    assert "--env.id: env is a section, and --env sets it to a value" in said


def test_a_count_is_a_number(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "run", "--episodes", "many"])
    assert "many is not a whole number of at least 1" in capsys.readouterr().err
