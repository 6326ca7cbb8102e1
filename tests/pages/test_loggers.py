"""What docs/loggers.md says can be typed."""

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_run import tiny_config

import ddpg_jax as dj
from ddpg_jax.cli.arguments import find_options, parse_overrides, split_overrides
from ddpg_jax.cli.main import _COMMANDS
from ddpg_jax.cli.parser import make_parser
from ddpg_jax.config.sections import SINKS

PAGE = (Path(__file__).parents[2] / "docs" / "loggers.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_shown_are_commands():
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    parser = make_parser(_COMMANDS)
    lines = [line.partition("#")[0].split()[1:] for line in block.splitlines() if line.startswith("ddpg-jax")]
    assert len(lines) == 2
    for line in lines:
        words, fields = split_overrides(line, find_options(parser))
        parser.parse_args(words)
        assert not parse_overrides(fields)[1]


def test_the_sinks_shown_are_sinks():
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert dj.load_config(**tomllib.loads(block)).logging.sinks == SINKS
    assert all(f"\n| `{name}` |" in PAGE for name in SINKS)


def test_the_sink_of_ones_own_is_one(run, tmp_path, monkeypatch):
    (tmp_path / "my_sink.py").write_text(PYTHON[0])
    mine = tmp_path / "runs" / "mine"
    mine.mkdir(parents=True)
    for name in ("config.toml", "metrics.jsonl"):
        (mine / name).write_bytes((run.directory / name).read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        exec(PYTHON[1], {})  # noqa: S102  it is our own page
    sent = (mine / "followers" / "rows.csv").read_text().splitlines()
    assert len(sent) == len((mine / "metrics.jsonl").read_text().splitlines())


def test_the_python_of_a_notebook_runs(run, tmp_path, monkeypatch):
    if find_spec("ddpg_jax.runs.record") is None:
        pytest.skip("records cannot be loaded as arrays yet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dj, "load_config", lambda *_: tiny_config(), raising=False)
    monkeypatch.setattr(dj, "train", lambda config, directory: run, raising=False)
    names = {}
    exec(PYTHON[2], names)  # noqa: S102  it is our own page
    assert names["policy"]([0.0, 1.0, 0.0]).shape == (1,)
    assert (tmp_path / "curve.png").stat().st_size > 10_000
