"""Run directories: who may use one, and that foreign files and old runs survive."""

import json
import shutil

import pytest
from tiny_run import finished_run, tiny_config

import ddpg_jax as dj
from ddpg_jax.errors import EnvironmentFault, StorageError
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
    with pytest.raises(StorageError, match="--overwrite"):
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


def test_what_cannot_be_written_is_a_storage_error(tmp_path):
    run = RunDirectory.create(tmp_path, "name")
    run.config.mkdir()
    with pytest.raises(StorageError, match=r"config\.toml"):
        run.write_text(run.config, "text")
    with pytest.raises(StorageError, match="gone"):
        run.write_text(tmp_path / "gone" / "x", "text")
