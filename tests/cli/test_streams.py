"""Standard streams that are closed, full or unable to encode, and foreign text on them."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from program import PROGRAM, RUN_FILES, SECONDS, TINY, environment

from ddpg_jax.cli import main as cli
from ddpg_jax.cli.main import main


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


def test_foreign_text_is_shown_escaped(tmp_path, capsys):
    (tmp_path / "my.toml").write_text('"\\u001b[2J" = "[bold]"\n')
    assert main(["train", str(tmp_path / "my.toml"), "--\x1b[1m", "\u202e"]) == 2
    said = capsys.readouterr().err
    assert said.replace("\n", "").isprintable()
    assert r"\x1b[2J = '[bold]'" in said


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
