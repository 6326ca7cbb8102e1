"""What docs/loggers.md says can be typed."""

import re
import shlex
import sys
import tomllib
from pathlib import Path

from tiny_run import read_rows, tiny_config

import ddpg_jax as dj
from ddpg_jax.cli.arguments import find_options, parse_overrides, split_overrides
from ddpg_jax.cli.main import _COMMANDS
from ddpg_jax.cli.parser import make_parser
from ddpg_jax.config.sections import SINKS

PAGE = (Path(__file__).parents[2] / "docs" / "loggers.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PARTS, TRAIN, SINK, FOLLOW, NOTEBOOK = PYTHON


def test_the_commands_shown_are_commands():
    block = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    parser = make_parser(_COMMANDS)
    lines = [shlex.split(line.partition("#")[0])[1:] for line in block.splitlines() if line.startswith("ddpg-jax")]
    assert len(lines) == 3
    for line in lines:
        words, fields = split_overrides(line, find_options(parser))
        parser.parse_args(words)
        assert not parse_overrides(fields)[1]


def test_the_sinks_shown_are_sinks():
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert dj.load_config(**tomllib.loads(block)).logging.sinks == SINKS
    assert all(f"\n| `{name}` |" in PAGE for name in SINKS)


def test_the_callback_and_the_logger_of_ones_own_are_heard(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_parts.py").write_text(PARTS.replace("-160", "0"))  # episodes of 15 steps return more
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = tiny_config()
    monkeypatch.setattr(dj, "load_config", lambda **_: config, raising=False)
    names = {}
    exec(TRAIN, names)  # noqa: S102  it is our own page
    assert capsys.readouterr().out.splitlines()[-1] == "that was all"
    (row, *_) = [row for row in read_rows(names["run"].directory / "metrics.jsonl") if row["event"] == "callback"]
    assert 0 < row["largest_weight"] < 10
    sys.modules.pop("my_parts")


def test_the_sink_of_ones_own_is_one(run, tmp_path, monkeypatch):
    (tmp_path / "my_sink.py").write_text(SINK)
    mine = tmp_path / "runs" / "mine"
    mine.mkdir(parents=True)
    for name in ("config.toml", "metrics.jsonl"):
        (mine / name).write_bytes((run.directory / name).read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        exec(FOLLOW, {})  # noqa: S102  it is our own page
    sent = (mine / "followers" / "rows.csv").read_text().splitlines()
    assert len(sent) == len((mine / "metrics.jsonl").read_text().splitlines())


def test_the_python_of_a_notebook_runs(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dj, "load_config", lambda *_: run.config, raising=False)
    monkeypatch.setattr(dj, "train", lambda config, directory: run, raising=False)
    names = {}
    exec(NOTEBOOK, names)  # noqa: S102  it is our own page
    assert names["policy"]([0.0, 1.0, 0.0]).shape == (1,)
    assert (tmp_path / "curve.png").stat().st_size > 10_000
