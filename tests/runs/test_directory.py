"""Run directories: who may use one, and that foreign files and old runs survive."""

import errno
import json
import os
import shutil
import subprocess
import sys
from datetime import datetime

import pytest
from tiny_run import finished_run, tiny_config

import ddpg_jax as dj
from ddpg_jax.errors import EnvironmentFault, StorageError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.directory import FORMAT, RunDirectory
from ddpg_jax.runs.documents import Format


def contents(path):
    """Every file below a directory, with its bytes."""
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return {name: content for name, content in found.items() if name not in ("run.lock", "format.json")}


@pytest.fixture
def used(tmp_path, tmp_path_factory):
    """A copy of a finished run with a foreign file and a foreign folder in it."""
    shutil.copytree(finished_run(tmp_path_factory).directory, tmp_path / "used")
    (tmp_path / "used" / "notes.md").write_text("mine")
    (tmp_path / "used" / "plots").mkdir()
    (tmp_path / "used" / "plots" / "final.png").write_bytes(b"mine too")
    return tmp_path / "used"


def test_a_new_directory_is_made_with_its_parents(tmp_path):
    run = RunDirectory.create(tmp_path / "a" / "b", "name")
    assert run.path.is_dir()
    assert contents(run.path) == {}


def test_an_empty_directory_is_taken(tmp_path):
    assert RunDirectory.create(tmp_path, "name").path == tmp_path


def test_without_a_path_it_is_named_under_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunDirectory.create(None, "Pendulum-v1_ddpg")
    assert run.path.parent.name == "runs"
    assert run.path.name.startswith("Pendulum-v1_ddpg_")
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / run.path]


def test_a_used_directory_is_refused_and_left_alone(used):
    before = contents(used)
    with pytest.raises(StorageError, match="overwrite="):
        RunDirectory.create(used, "name")
    assert contents(used) == before


def test_a_directory_of_foreign_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(StorageError):
        RunDirectory.create(tmp_path, "name")


def test_overwriting_removes_the_run_and_nothing_else(used):
    RunDirectory.create(used, "name", overwrite=True)
    assert contents(used) == {"notes.md": b"mine", "plots/final.png": b"mine too"}


def test_a_run_that_cannot_begin_does_not_overwrite(used):
    before = contents(used)
    with pytest.raises(EnvironmentFault):
        dj.train(tiny_config(env={"id": "NoSuch-v0"}), used, overwrite=True)
    with pytest.raises(StorageError):
        dj.train(tiny_config(), used)
    assert contents(used) == before


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StorageError, match="file"):
            RunDirectory.create(path, "name", overwrite=True)


def test_opening_what_is_no_run_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(StorageError, match=r"config\.toml"):
            RunDirectory.open(path)


def test_a_finished_run_can_be_opened(tmp_path_factory):
    run = finished_run(tmp_path_factory)
    opened = RunDirectory.open(run.directory)
    assert dj.load_config(opened.config) == run.config
    assert json.loads(opened.result.read_text()) == json.loads(json.dumps(run.result))
    for path in (opened.metrics, opened.timing, opened.weights, opened.learning_curve):
        assert path.stat().st_size > 0


def test_text_replaces_a_whole_file_and_leaves_no_part(tmp_path):
    run = RunDirectory.create(tmp_path, "name")
    run.write_text(run.config, "a much longer text")
    run.write_text(run.config, "τ")
    assert run.config.read_text(encoding="utf-8") == "τ"
    assert contents(tmp_path).keys() == {"config.toml"}


def test_a_text_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    run = RunDirectory.create(tmp_path, "name")
    run.write_text(run.config, "before")

    def full(operation, path):
        if operation in ("write", "fsync"):
            raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "fault_point", full)
        with pytest.raises(StorageError, match=r"config\.toml cannot be written: .* full"):
            run.write_text(run.config, "after")
    assert run.config.read_text() == "before"


def test_what_cannot_be_written_is_a_storage_error(tmp_path):
    run = RunDirectory.create(tmp_path, "name")
    run.config.mkdir()
    with pytest.raises(StorageError, match=r"config\.toml"):
        run.write_text(run.config, "text")
    with pytest.raises(StorageError, match="gone"):
        run.write_text(tmp_path / "gone" / "x", "text")


# --- What is ours.


def test_a_directory_that_never_was_a_run_is_not_overwritten(tmp_path):
    """Though what is in it is called as what a run writes."""
    for name in ("config.toml", "checkpoints/thesis.tex", "tensorboard/logs", "checkpoints/rows/x", "run.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(StorageError, match="was never the directory of a run"):
        RunDirectory.create(tmp_path, "name", overwrite=True)
    assert contents(tmp_path) == before


def test_overwriting_leaves_what_others_have_put_between_ours(used):
    foreign = ("checkpoints/notes.md", "tensorboard/mine/x", "checkpoints/rows/x.txt", "not-finite-seed-x.safetensors")
    for name in foreign:
        (used / name).parent.mkdir(exist_ok=True)
        (used / name).write_text("mine")
    (used / "aside-1-metrics.jsonl").write_text("ours")
    RunDirectory.create(used, "name", overwrite=True)
    assert contents(used).keys() == {"notes.md", "plots/final.png", *foreign}


def test_a_run_without_a_mark_is_known_by_what_its_lock_says(used):
    """Version 0.1.0 up to commit c8ec0f3 left no mark, but always this."""
    (used / "format.json").unlink()
    (used / "run.lock").write_text('{"host": "x", "process": 1, "started": "2026-01-01 00:00:00"}')
    RunDirectory.create(used, "name", overwrite=True)
    assert contents(used).keys() == {"notes.md", "plots/final.png"}


def test_a_directory_that_a_newer_version_wrote_is_refused_in_one_line_that_names_it(used):
    (used / "format.json").write_text('{"format": 3, "version": "9.1\\u001b[2J", "more": []}')
    for refused in (RunDirectory.open, lambda path: RunDirectory.create(path, "name", overwrite=True)):
        with pytest.raises(
            StorageError, match=r"was written by ddpg-jax 9\.1\\x1b\[2J in format 3; .* up to 2"
        ) as error:
            refused(used)
        assert len(str(error.value).splitlines()) == 1
    assert (used / "config.toml").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": "2", "version": ""}', '{"format": 0, "version": ""}', "9" * 5000]
)
def test_a_mark_that_is_none_is_refused(used, text):
    (used / "format.json").write_text(text)
    with pytest.raises(StorageError, match=r"format\.json cannot be read"):
        RunDirectory.open(used)


def test_a_directory_is_marked_when_it_is_taken(tmp_path):
    (tmp_path / "config.toml").write_text("")
    assert RunDirectory.open(tmp_path).check_format() is None
    with RunDirectory.open(tmp_path).lock():
        pass
    assert RunDirectory.open(tmp_path).check_format() == Format(format=FORMAT, version=dj.__version__)


LINKS = ["run.lock", "format.json", "metrics.jsonl", "timing.jsonl", "config.toml.part", "tensorboard", "checkpoints"]
LINKS += ["checkpoints/rows", "checkpoints/00000001-step-60", "tensorboard/seed-4", "learning_curve.png", "result.json"]


@pytest.mark.parametrize("name", LINKS)
def test_nothing_is_written_or_removed_through_a_link(used, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("theirs")
    path = used / name
    if path.exists():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(outside if path.suffix == "" and "lock" not in name else outside / "kept")
    (used / "config.toml").touch()

    def take():
        with RunDirectory.open(used).lock():
            pass

    for refused in (lambda: RunDirectory.create(used, "x", overwrite=True), take):
        with pytest.raises(StorageError, match=r"is a link: nothing|cannot be read"):
            refused()
    assert (outside / "kept").read_text() == "theirs"
    assert path.is_symlink()


def test_the_directory_itself_may_be_reached_through_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    run = RunDirectory.create(tmp_path / "link", "name")
    run.write_text(run.config, "text")
    assert (tmp_path / "disk" / "config.toml").read_text() == "text"


def test_a_path_stays_what_it_is_where_the_working_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunDirectory.create("run", "name")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run.write_text(run.config, "text")
    assert (tmp_path / "run" / "config.toml").read_text() == "text"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_is_set_aside_takes_no_name_that_is_used(tmp_path):
    run = RunDirectory.create(tmp_path, "name")
    run.metrics.write_text("first")
    assert run.set_aside(run.metrics, run.timing) == "aside-1-metrics.jsonl"
    run.metrics.write_text("second")
    run.checkpoints.mkdir()
    assert run.set_aside(run.metrics, run.checkpoints) == "aside-2-metrics.jsonl, aside-2-checkpoints"
    assert [(tmp_path / f"aside-{i}-metrics.jsonl").read_text() for i in (1, 2)] == ["first", "second"]
    assert run.metrics.read_text() == "second"
    assert not run.checkpoints.exists()


def _without(*path):
    def change(values):
        for name in path[:-1]:
            values = values[name]
        values.pop(path[-1])

    return change


FORGED = {
    "no final": _without("final"),
    "no returns": _without("final", "returns"),
    "no seconds": _without("seconds", "compile"),
    "no number": lambda values: values["best"].update(median="high"),
    "a list": lambda values: values.update(seconds=[1.0]),
    "a deep list": lambda values: values["final"].update(returns=[[[1.0]]]),
    "no seeds": lambda values: values.update(seeds=None),
    "a text for a truth": lambda values: values.update(complete="yes"),
    "steps below none": lambda values: values.update(env_steps_per_seed=-1),
    "marks that a terminal obeys": lambda values: values["final"].update(step="\x1b[2J\u202e"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_result_is_refused_in_one_printable_line(used, kind):
    values = json.loads((used / "result.json").read_text())
    assert RunDirectory.open(used).read_result() == values
    FORGED[kind](values)
    (used / "result.json").write_text(json.dumps(values))
    with pytest.raises(StorageError, match=r"result\.json cannot be read") as error:
        RunDirectory.open(used).read_result()
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"\xff", b"null"]
)
def test_a_result_that_is_no_json_is_refused_in_one_printable_line(used, content):
    (used / "result.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"result\.json cannot be read") as error:
        RunDirectory.open(used).read_result()
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["result.json", "format.json", "run.lock"])
def test_pipes_and_endless_files_are_not_read(used, name):
    def use():
        run = RunDirectory.open(used)
        run.read_result()
        with run.lock():
            pass

    (used / name).unlink(missing_ok=True)
    os.mkfifo(used / name)
    with pytest.raises(StorageError, match="regular file"):
        use()
    (used / name).unlink()
    (used / name).symlink_to("/dev/zero")
    with pytest.raises(StorageError, match=name):
        use()


# --- One owner.


def test_an_owner_whose_lock_was_removed_takes_it_again_if_nobody_else_has(tmp_path):
    run = RunDirectory.create(tmp_path / "run", "name")
    (tmp_path / "run" / "run.lock").unlink()
    run.check_owner()
    with pytest.raises(StorageError, match=f"process {os.getpid()}"), RunDirectory(tmp_path / "run").lock():
        pass


def test_an_owner_whose_lock_another_has_taken_writes_nothing_more(tmp_path):
    """Also after the other has gone, as it may have gone on with the run."""
    run = RunDirectory.create(tmp_path / "run", "name")
    (tmp_path / "run" / "run.lock").unlink()
    with RunDirectory(tmp_path / "run").lock():
        for write in (lambda: run.write_text(run.config, "x"), run.drop_results, lambda: run.set_aside(run.metrics)):
            with pytest.raises(StorageError, match=r"run\.lock was replaced .* process \d+"):
                write()
    with pytest.raises(StorageError, match=r"run\.lock was replaced"):
        run.check_owner()
    assert contents(run.path) == {}


@pytest.mark.parametrize("how", ["moved", "removed", "another"])
def test_a_directory_that_is_moved_or_removed_is_noticed(tmp_path, how):
    run = RunDirectory.create(tmp_path / "run", "name")
    run.path.rename(tmp_path / "moved")
    if how == "removed":
        shutil.rmtree(tmp_path / "moved")
    if how == "another":
        run.path.mkdir()
    with pytest.raises(StorageError, match="was moved or removed while it was in use; put it back"):
        run.write_text(run.config, "text")
    if how == "moved":
        assert not run.path.exists()
        (tmp_path / "moved").rename(run.path)
        run.write_text(run.config, "text")


def test_a_copy_by_hard_links_has_a_lock_of_its_own(tmp_path):
    with RunDirectory.create(tmp_path / "run", "name").lock():
        pass
    before = (tmp_path / "run" / "run.lock").read_bytes()
    (tmp_path / "copy").mkdir()
    for path in (tmp_path / "run").iterdir():
        (tmp_path / "copy" / path.name).hardlink_to(path)
    with RunDirectory(tmp_path / "copy").lock(), RunDirectory(tmp_path / "run").lock():
        assert (tmp_path / "copy" / "run.lock").stat().st_nlink == 1
    assert len(before) == len((tmp_path / "run" / "run.lock").read_bytes())


def test_where_files_cannot_be_locked_runs_can_be_read(tmp_path, tmp_path_factory):
    """As on Windows, where there is no `fcntl`."""
    program = """
import sys
sys.modules["fcntl"] = None
import numpy as np, ddpg_jax as dj
from ddpg_jax.cli.main import main
assert main(["verify", sys.argv[1]]) == 0
assert dj.load_policy(sys.argv[1])(np.zeros((1, 3), np.float32)).shape == (1, 1)
raise SystemExit(main(["resume", sys.argv[1], "--total-steps", "70"]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, finished_run(tmp_path_factory).directory], capture_output=True, text=True
    )
    assert ended.returncode == StorageError.exit_code, ended.stderr
    assert "trained on Linux and macOS; on this system they can be read (evaluate, verify, load_policy)" in ended.stderr


def test_a_directory_has_one_owner(tmp_path):
    run = RunDirectory.create(tmp_path / "run", "name")
    again = RunDirectory(tmp_path / "run")
    with (
        pytest.raises(StorageError, match=rf"used by another process: host .*, process {os.getpid()}, since 20"),
        again.lock(),
    ):
        pass
    for overwrite in (False, True):
        with pytest.raises(StorageError, match="used by another process"):
            RunDirectory.create(tmp_path / "run", "name", overwrite=overwrite)
    with run.lock():
        (tmp_path / "run" / "config.toml").write_text("")
    with again.lock():
        pass
    with run.lock():
        pass


def test_a_lock_that_was_given_up_with_its_object_is_free(tmp_path):
    run = RunDirectory.create(tmp_path / "run", "name")
    del run
    with RunDirectory(tmp_path / "run").lock():
        pass


def test_what_a_dead_owner_has_left_blocks_nobody(tmp_path):
    (tmp_path / "run.lock").write_text('{"host": "x", "process": 1, "started": "yesterday"}')
    with RunDirectory.create(tmp_path, "name").lock():
        assert str(os.getpid()) in (tmp_path / "run.lock").read_text()


def test_an_owner_whose_lock_says_nothing(tmp_path):
    run = RunDirectory.create(tmp_path, "name")
    (tmp_path / "run.lock").write_text("[]")
    with pytest.raises(StorageError, match="which one is not known"), RunDirectory(tmp_path).lock():
        pass
    with run.lock():
        pass


def test_a_lock_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "run.lock").mkdir()
    with pytest.raises(StorageError, match="cannot be used"), RunDirectory(tmp_path).lock():
        pass
    (tmp_path / "run.lock").rmdir()
    monkeypatch.setattr("os.write", lambda file, content: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(StorageError, match="full"):
        RunDirectory.create(tmp_path, "name")
    monkeypatch.undo()
    with RunDirectory.create(tmp_path, "name").lock():
        pass


RACE = """
import sys, time
from pathlib import Path
from ddpg_jax.errors import StorageError
from ddpg_jax.runs.directory import RunDirectory
print("ready", flush=True)
for line in sys.stdin:
    folder, overwrite = line.split()
    try:
        run = RunDirectory.create(folder, "race", overwrite=overwrite == "True")
        with run.lock():
            run.write_text(run.config, "mine")
            time.sleep(0.05)
        print("won", flush=True)
    except StorageError:
        print("lost", flush=True)
"""


def test_of_two_that_want_a_directory_exactly_one_gets_it(tmp_path):
    """20 races of real processes, for a fresh directory and for one that is to be overwritten."""
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
        for n in range(20):
            folder, overwrite = tmp_path / str(n), n % 2 == 1
            if overwrite:
                folder.mkdir()
                (folder / "config.toml").write_text("old")
                (folder / "format.json").write_text('{"format": 2, "version": "0.1.0"}')
            for racer in racers if n % 4 < 2 else reversed(racers):
                racer.stdin.write(f"{folder} {overwrite}\n")
                racer.stdin.flush()
            ended = [racer.stdout.readline().strip() for racer in racers]
            assert sorted(ended) == ["lost", "won"], n
            assert (folder / "config.toml").read_text() == "mine"
    finally:
        for racer in racers:
            racer.communicate()


def test_a_run_that_another_has_left_just_before_the_lock_is_kept(tmp_path, monkeypatch):
    take = RunDirectory._take_lock

    def late(run):
        (run.path / "config.toml").write_text("theirs")  # another process began here, and has ended already
        take(run)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "_take_lock", late)
        with pytest.raises(StorageError, match="is not empty"):
            RunDirectory.create(tmp_path / "run", "name")
    assert (tmp_path / "run" / "config.toml").read_text() == "theirs"
    run = RunDirectory.open(tmp_path / "run")
    with run.lock(), run.lock():  # it was given back
        pass


def test_the_directory_of_a_job_is_not_that_of_a_run(tmp_path):
    for name in ("config.toml", "process-0/config.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(StorageError, match="the runs of several processes: name one of them"):
        RunDirectory.open(tmp_path)
    assert RunDirectory.open(tmp_path / "process-0").path == tmp_path / "process-0"


def test_names_that_are_taken_are_counted_on(tmp_path, monkeypatch):
    class Noon(datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 2, 12)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ddpg_jax.runs.directory.datetime", Noon)
    names = [RunDirectory.create(None, "ddpg").path.name for _ in range(3)]
    assert names == ["ddpg_2026-01-02T12-00-00", "ddpg_2026-01-02T12-00-00_2", "ddpg_2026-01-02T12-00-00_3"]
    for i in range(4, 1000):
        (tmp_path / "runs" / f"{names[0]}_{i}").mkdir()
    with pytest.raises(StorageError, match="and 999 more are taken"):
        RunDirectory.create(None, "ddpg")


def test_the_start_of_a_file_is_copied(tmp_path):
    run = RunDirectory.create(tmp_path / "run", "name")
    (tmp_path / "metrics.jsonl").write_bytes(b"0123456789")
    run.copy_start(tmp_path / "metrics.jsonl", 4)
    assert run.metrics.read_bytes() == b"0123"
    with pytest.raises(StorageError, match="it holds 10 bytes, but held 11"):
        run.copy_start(tmp_path / "metrics.jsonl", 11)


def test_results_that_cannot_be_removed(tmp_path, monkeypatch):
    run = RunDirectory.create(tmp_path / "run", "name")
    run.drop_results()  # there are none

    def full(operation, path):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(filesystem, "fault_point", full)
    with pytest.raises(StorageError, match="read-only"):
        run.drop_results()
