"""What docs/memory.md says runs as it stands, with fewer steps."""

import re
import shlex
from pathlib import Path

import pytest

from ddpg_jax.cli.main import main
from ddpg_jax.config.memory import MemoryConfig

PAGE = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", PAGE, re.DOTALL)
WORDS = ["--total-steps", "2200", "--seeds", "1", "--evaluation.episodes", "2", "--quiet"]


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands, names = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()], {}
    for line in commands:
        words = shlex.split(line)[1:]
        assert main([*words, *(WORDS if words[0] == "train" else ["--episodes", "2"])]) == 0
    for kind, text in BLOCKS:
        if kind == "python":
            exec(text.replace("total_steps=3000", "total_steps=2200"), names)  # noqa: S102
    assert len(commands) >= 3
    assert names["action"].shape == (1,)


def test_the_table_names_fields_that_there_are():
    """All but those that say how wide the layers are, which are told of together."""
    named = re.findall(r"^\| (`[^|]*`) \|", PAGE, re.MULTILINE)
    fields = {name for cell in named for name in re.findall(r"`(\w+)`", cell)}
    assert MemoryConfig.model_fields.keys() - fields == {"obs_embedding"}
