"""What docs/own_environments.md says runs as it stands, with fewer steps."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from ddpg_jax.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "own_environments.md").read_text()
BLOCKS = re.findall(r"```(python|sh)\n(.*?)```", PAGE, re.DOTALL)
SMALL = {"hidden": [8], "batch_size": 8, "warmup_steps": 40}
WORDS = ["--algorithm.hidden", "[8]", "--algorithm.batch-size", "8", "--total-steps", "200", "--seeds", "2"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_envs", "my_device_envs"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_page_runs(folder):
    names, files, commands = {}, [], 0
    for kind, text in BLOCKS:
        if kind == "sh":
            for line in text.splitlines():
                words = shlex.split(line)[1:]
                assert main([*words, *(WORDS if words[0] == "train" else ["--episodes", "2"])]) == 0
                commands += 1
        elif found := re.match(r"# (\w+\.py)\n", text):
            (folder / found[1]).write_text(text)
            files.append(found[1])
        else:
            short = text.replace("total_steps=3000", f"total_steps=200, algorithm={SMALL}").replace(
                "episodes=20", "episodes=2"
            )
            exec(compile(short, "own_environments.md", "exec"), names)  # noqa: S102
    assert files == ["my_envs.py", "my_device_envs.py"]
    assert commands == 4
    assert names["returns"].shape == (3, 2)
    assert np.isfinite(names["run"].result["final"]["interquartile_mean"])
    assert len([*folder.glob("runs/*/learning_curve.png")]) == 4
