"""Messages speak as the user does: of options at the command line, of arguments in Python."""

import shlex

import pytest

from ddpg_jax.cli.main import main
from ddpg_jax.config.load import load_config
from ddpg_jax.config.wording import command_line, option, resume_command
from ddpg_jax.errors import ConfigError


def test_options_are_written_where_the_user_stands():
    assert option("algorithm.tau") == 'algorithm={"tau": ...}'
    assert (option("total_steps"), option("env.id", "a:b-v0")) == ("total_steps=", "env={\"id\": 'a:b-v0'}")
    with command_line():
        assert option("algorithm.tau") == "--algorithm.tau"
        assert (option("total_steps"), option("env.id", "a b:c")) == ("--total-steps", "--env.id 'a b:c'")
    assert option("init_from") == "init_from="


def test_errors_of_python_do_not_speak_of_the_command_line(capsys):
    with pytest.raises(ConfigError) as caught:
        load_config(algorithm={"gama": 1, "tau": 3}, env=5)
    said = str(caught.value)
    assert said.count("(arguments)") == 3
    assert "--" not in said
    assert "command line" not in said
    assert main(["train", "--algorithm.gama", "1"]) == 2
    assert "algorithm.gama = 1 (command line)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run_dir", "changes", "words"),
    [
        ("runs/a", {}, ["runs/a"]),
        ("my runs/it's", {"env": {"id": "jax:pendulum"}}, ["my runs/it's"]),
        ("a;b", {"env": {"id": "my_envs:Mine-v0"}}, ["a;b", "--allow-imports"]),
        ("a", {"env": {"id": "jax:my_envs:mine"}}, ["a", "--allow-imports"]),
        ("a", {"algorithm": {"name": "mine:agent"}}, ["a", "--allow-imports"]),
        ("a", {"logging": {"callbacks": ["mine", "mine:report"]}}, ["a", "--allow-imports"]),
    ],
)
def test_the_command_that_goes_on_can_be_pasted(run_dir, changes, words):
    config = load_config(**changes)
    with command_line():
        assert shlex.split(resume_command(run_dir, config)) == ["ddpg-jax", "resume", *words]
    allowed = ", allow_imports=True" if "--allow-imports" in words else ""
    assert resume_command(run_dir, config) == f"ddpg_jax.resume_run({run_dir!r}{allowed})"
