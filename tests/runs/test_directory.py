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
from ddpg_jax.runs.directory import RunDirectory


def contents(path):
    """Every file below a directory, with its bytes."""
    found = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return {name: content for name, content in found.items() if name != "run.lock"}


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


# --- One owner.


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
