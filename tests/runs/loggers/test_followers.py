"""Training hears nothing of its sinks: whatever they do, it takes its time and leaves its bits; one line at the end."""

import re
import shutil
import subprocess
import sys
import time

import plain_sink
import pytest
from tiny_run import finished_run, read_rows, tiny_config

import ddpg_jax as dj
from ddpg_jax.cli.main import main
from ddpg_jax.config import sections
from ddpg_jax.errors import ConfigError
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.loggers import followers
from ddpg_jax.runs.loggers.followers import Followers
from ddpg_jax.runs.loggers.logger import Start
from ddpg_jax.runs.sinks import process

SINKS = tuple(f"plain_sink:{name}" for name in ("PlainSink", "FailingSink", "FullSink", "CrashingSink"))


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The sinks of these tests can be named."""
    monkeypatch.setattr(sections, "SINKS", sections.SINKS)
    plain_sink.allow(*SINKS, "plain_sink:SilentSink", "plain_sink:SlowSink")


@pytest.fixture
def directory(tmp_path, run):
    """A finished run, of which nothing was sent."""
    copy = RunDirectory(tmp_path / "run")
    copy.path.mkdir()
    for name in ("config.toml", "metrics.jsonl", "result.json", "format.json"):
        (copy.path / name).write_bytes((run.directory / name).read_bytes())
    return copy


def test_whatever_a_sink_does_the_run_is_the_same_and_one_line_is_said(tmp_path, tmp_path_factory, caplog):
    whole = finished_run(tmp_path_factory)
    config = tiny_config(logging={"every": 20, "sinks": SINKS})
    run = dj.train(config, tmp_path / "run", quiet=True)
    for name in ("metrics.jsonl", "checkpoints/final.safetensors"):
        assert (run.directory / name).read_bytes() == (whole.directory / name).read_bytes()
    warned = [record.message for record in caplog.records if "lacks rows" in record.message]
    assert len(warned) == 3
    said = (
        f"FailingSink lacks rows: ConnectionError: no route to the server; to send them: ddpg-jax sync {run.directory}"
    )
    assert said in caplog.text
    assert "FullSink lacks rows: OSError: [Errno 28] No space left on device" in caplog.text
    assert "CrashingSink lacks rows: its process ended with code 7" in caplog.text
    assert (run.directory / "followers" / "plain.jsonl").read_bytes() == (run.directory / "metrics.jsonl").read_bytes()


def test_a_run_that_cannot_start_its_sinks_goes_on(directory, monkeypatch):
    monkeypatch.setattr(process.sys, "executable", "/nowhere/python")
    logger = Followers(directory, SINKS[:1], warn=(said := []).append)
    logger.on_start(Start(directory.path, "", 60, (4, 9)))
    logger.close()
    assert len(said) == 1
    assert "/nowhere/python" in said[0]


def test_a_follower_ends_when_its_trainer_is_killed(directory):
    child = process.Child(directory, "plain_sink:SilentSink")
    assert child._process.poll() is None
    child._process.stdin.close()  # as the system does where a process ends
    assert child._process.wait(60) == 1
    child._process.stdout.close()


@pytest.mark.parametrize("stopped", [False, True])
def test_what_does_not_answer_is_waited_for_no_longer_than_that(stopped, directory, monkeypatch):
    monkeypatch.setattr(followers, "SECONDS_OF_A_STOP" if stopped else "SECONDS", 1.0)
    monkeypatch.setattr(followers, "SECONDS" if stopped else "SECONDS_OF_A_STOP", 600.0)
    logger = Followers(directory, ["plain_sink:SilentSink"], lambda: stopped, (said := []).append)
    logger.on_start(Start(directory.path, "", 60, (4, 9)))
    began = time.monotonic()
    logger.close()
    assert time.monotonic() - began < 1 + followers._GRACE + 2
    assert len(said) == 1
    assert re.search(r"SilentSink lacks rows: (no answer for \d+ s when it was to \w|it did not end)", said[0])


def test_names_of_sinks():
    assert dj.load_config(logging={"sinks": "wandb"}).logging.sinks == ("wandb",)
    assert dj.load_config(logging={"sinks": "wandb,mlflow"}).logging.sinks == ("wandb", "mlflow")
    assert dj.load_config(logging={"sinks": ["mlflow", "trackio"]}).logging.sinks == ("mlflow", "trackio")
    with pytest.raises(ConfigError, match=r"there is no sink 'wandbb'; there are wandb, mlflow, trackio.*mean wandb"):
        dj.load_config(logging={"sinks": ["wandbb"]})
    with pytest.raises(ConfigError, match="stands twice"):
        dj.load_config(logging={"sinks": ["wandb", "wandb"]})


def test_a_missing_package_is_told_before_jax_is_imported(tmp_path):
    code = (
        "import importlib.util, sys; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'trackio' else find(name, *more)\n"
        "from ddpg_jax.cli.main import main\n"
        f"code = main(['train', '--logging.sinks', 'trackio', '--run-dir', {str(tmp_path / 'run')!r}])\n"
        "sys.exit(code if 'jax' not in sys.modules else 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == ConfigError.exit_code, done.stderr
    assert 'trackio needs trackio, not installed here: pip install "ddpg-jax[trackio]"' in done.stderr
    assert not (tmp_path / "run").exists()


def test_sync_sends_what_lacks_once(directory, capsys):
    rows, path = len(read_rows(directory.metrics)), str(directory.path)
    for said in (f"{rows} rows sent", "nothing new"):
        assert main(["sync", path, "--to", SINKS[0]]) == 0
        assert said in capsys.readouterr().out
    assert (directory.followers / "plain.jsonl").read_bytes() == directory.metrics.read_bytes()
    assert main(["sync", path, "--to", SINKS[1]]) == 5
    error = capsys.readouterr().err
    assert (
        f"lacks rows of {path}: ConnectionError: no route to the server; mend that and give --to {SINKS[1]} again"
        in error
    )
    assert main(["sync", path, "--to", "tensorflow"]) == 2
    assert main(["sync", path, "--to", SINKS[0], "--seeds", "1"]) == 2


def test_a_run_that_is_replaced_takes_its_followers_along(directory):
    directory.followers.mkdir()
    (directory.followers / "wandb").mkdir()
    (directory.followers / "wandb" / "latest-run").symlink_to("offline-run-1")
    again = RunDirectory.create(directory.path, "run", overwrite=True)
    assert not again.followers.exists()


def test_a_run_that_was_killed_at_its_end_sends_what_lacks_when_it_is_started_again(run, tmp_path):
    whole = tmp_path / "run"
    shutil.copytree(run.directory, whole)
    dj.resume_run(whole, quiet=True, logging={"sinks": SINKS[:1]})
    assert (whole / "followers" / "plain.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
