"""What the README says can be typed: its commands are those of CI, and its examples are right configurations."""

import json
import re
import shlex
from pathlib import Path

import pytest

from ddpg_jax.cli.arguments import parse_config, split_overrides
from ddpg_jax.config.wording import command_line
from ddpg_jax.errors import ConfigError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = [line.partition("#")[0] for line in README.splitlines() if line.startswith("ddpg-jax train ")]


def test_the_two_commands_stand_alone_on_their_lines_as_ci_reads_them():
    for pattern in re.findall(r"grep -m1 -E '(.*)' README\.md", (ROOT / ".ci" / "run").read_text()):
        (line,) = re.findall(f"{pattern}.*", README, re.MULTILINE)
        assert line.endswith(("python3 -m ddpg_jax train", "python3 -m pytest"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_right(example, monkeypatch):
    monkeypatch.chdir(ROOT)
    words, overrides = split_overrides(shlex.split(example)[2:], ())
    config = parse_config(words, overrides)
    assert config.total_steps >= 1


def test_the_mistakes_shown_are_those_reported():
    (command, shown) = re.search(r"\$ ddpg-jax train (.*)\nddpg-jax: ((?:.*\n)+?)```", README).groups()
    with pytest.raises(ConfigError) as caught, command_line():
        parse_config([], shlex.split(command))
    assert str(caught.value) == shown.rstrip()


def test_its_pictures_and_files_exist():
    for path in re.findall(r"\]\(([\w/.]+)\)|`((?:docs|benchmarks|configs)/[\w/.]+)`", README):
        assert (ROOT / "".join(path)).exists()


def test_the_commands_of_the_results_can_be_typed_anywhere():
    """They name no absolute path."""
    results = [json.loads(path.read_text()) for path in (ROOT / "benchmarks" / "results").glob("*.json")]
    commands = [result["command"] for result in results if "command" in result]
    assert len(commands) > 10
    assert not [word for command in commands for word in shlex.split(command) if word.startswith("/")]
