"""Runs whose files were damaged, lost, moved, forged or taken: said, mended or refused, and never read in silence."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from power import Killed
from tiny_run import config_of, contents, read_rows

import ddpg_jax as dj
from ddpg_jax.cli.main import main
from ddpg_jax.errors import ConfigError, StorageError
from ddpg_jax.runs import filesystem
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.training.checkpointer import Checkpointer
from ddpg_jax.training.resume import _resume_point
from ddpg_jax.training.resume_point import ResumePoint


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The run that nothing happened to."""
    return dj.train(config_of(), tmp_path_factory.mktemp("clean") / "run").directory


@pytest.fixture
def copied(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "copied")


@pytest.fixture
def at_step(monkeypatch):
    """`(step, do)`: does something once, in the iteration of that step."""
    should_save, left = Checkpointer.should_save, []

    def asked(self, now):
        while left and now >= left[0][0]:
            left.pop(0)[1]()
        return should_save(self, now)

    monkeypatch.setattr(Checkpointer, "should_save", asked)
    return lambda step, do: left.append((step, do))


@pytest.fixture
def failing(monkeypatch):
    """`(name, operation)`: such calls about files of that name fail with EIO from now on; returns what ends that."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def fail(name, operation="write"):
        def broken(called, path):
            if called == operation and path.name.startswith(name):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(filesystem, "fault_point", broken)
        return lambda: monkeypatch.setattr(filesystem, "fault_point", lambda *call: None)

    return fail


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def listing(folder):
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.lock", "format.json")]
    return {path.relative_to(folder): path.read_bytes() for path in kept}


def facts_at(folder, step):
    return CheckpointStore(folder / "checkpoints").at(step).facts


# Rows of the replay.


def test_where_all_checkpoints_are_broken_nothing_is_begun_unasked(copied, capsys):
    """One bit in the oldest file of rows, which all of them share."""
    flip(min((copied / "checkpoints" / "rows").iterdir()), -1)
    before = listing(copied)
    assert main(["verify", str(copied)]) == 5
    assert main(["resume", str(copied), "--quiet"]) == 5
    assert "holds 6 checkpoints, but none that a run can go on from" in capsys.readouterr().err
    assert listing(copied) == before
    assert main(["resume", str(copied), "--quiet", "--level", "weights"]) == 0
    said = capsys.readouterr()
    assert json.loads((copied / "result.json").read_text())["level"] == "weights", said
    assert (copied / "aside-1-metrics.jsonl").read_bytes() == before[(copied / "metrics.jsonl").relative_to(copied)]
    assert len(list((copied / "aside-1-checkpoints").glob("*-step-*"))) == 6
    assert next(row["step"] for row in read_rows(copied / "metrics.jsonl") if row["event"] == "evaluation") == 25
    with pytest.raises(ConfigError, match="level weights begins in the directory of the run"):
        dj.resume_run(copied, step=30, into=copied / "x", level="weights")


def test_the_networks_serve_where_the_rows_are_lost(copied):
    expected = dj.load_policy(copied)(np.zeros((1, 3), np.float32))
    (copied / "checkpoints" / "final.safetensors").unlink()
    for path in (copied / "checkpoints" / "rows").iterdir():
        path.unlink()
    np.testing.assert_array_equal(dj.load_policy(copied)(np.zeros((1, 3), np.float32)), expected)


# The record.


def test_where_the_record_was_changed_an_older_checkpoint_is_used(clean, copied, caplog, capsys):
    at = facts_at(copied, 40)["metrics_bytes"]
    flip(copied / "metrics.jsonl", at)
    changed = (copied / "metrics.jsonl").read_bytes()
    assert main(["verify", str(copied)]) == 5
    assert "BROKEN: it is not what it was" in capsys.readouterr().out
    dj.resume_run(copied)
    assert "00000006-step-60 is broken" in caplog.text
    assert "resumes after 40 of 60 steps, level exact" in caplog.text
    assert contents(copied) == contents(clean)
    assert (copied / "aside-1-metrics.jsonl").read_bytes() == changed
    assert main(["verify", str(copied)]) == 0


@pytest.mark.parametrize("kind", ["first byte", "zeros", "another run's", "shorter", "gone"])
def test_where_the_record_is_another_nothing_is_begun_unasked(copied, kind):
    path = copied / "metrics.jsonl"
    whole = path.read_bytes()
    shutil.rmtree(copied / "checkpoints" / "00000001-step-10")  # nothing had been recorded by then
    others = {"zeros": bytes(len(whole)), "another run's": whole[::-1], "shorter": b""}
    if kind == "gone":
        path.unlink()
    elif kind == "first byte":
        flip(path, 0)
    else:
        path.write_bytes(others[kind])
    before = listing(copied)
    with pytest.raises(StorageError, match=r"none that a run can go on from: .*metrics\.jsonl"):
        dj.resume_run(copied, total_steps=80)
    assert listing(copied) == before
    assert main(["verify", str(copied)]) == 5


@pytest.mark.parametrize("left", [None, b"", b'{"step": 20, "upd'], ids=["gone", "empty", "torn"])
def test_a_run_goes_on_without_its_timing(clean, copied, caplog, left):
    shutil.rmtree(copied / "checkpoints" / "00000006-step-60")
    (copied / "result.json").unlink()
    (copied / "timing.jsonl").unlink() if left is None else (copied / "timing.jsonl").write_bytes(left)
    dj.resume_run(copied)
    assert "what lacks is lost" in caplog.text
    assert contents(copied) == contents(clean)
    assert [row["step"] for row in read_rows(copied / "timing.jsonl")] == [60]


# Complete when all of it is on the disk.


def test_a_run_whose_record_cannot_be_written_is_not_complete(clean, tmp_path, failing, capsys):
    config, path = config_of(checkpoint={"every": 0}), tmp_path / "run"
    end = failing("metrics.jsonl")
    with pytest.raises(StorageError, match=r"metrics\.jsonl cannot be written: .* bytes are still to be written"):
        dj.train(config, path)
    end()
    assert not (path / "result.json").exists()
    dj.train(config, path, resume="auto")
    assert (path / "metrics.jsonl").read_bytes() == (clean / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["arrays.safetensors", "final.safetensors", "result.json"])
def test_started_again_a_run_writes_what_lacks(name, clean, copied, tmp_path, at_step, failing, caplog):
    config, path, ended = config_of(), tmp_path / "run", []
    at_step(55, lambda: ended.append(failing(name)))
    with pytest.raises(StorageError, match="Input/output error"):
        dj.train(config, path)
    ended[0]()
    assert not (path / "result.json").exists()
    run = dj.train(config, path, resume="auto")
    assert ("its results are written anew" in caplog.text) == (name != "arrays.safetensors")
    whole, found = (json.loads((folder / "result.json").read_text()) for folder in (clean, run.directory))
    for key in ("final", "best", "complete", "env_steps_per_seed", "updates_per_seed"):
        assert found[key] == whole[key]
    assert contents(path) == contents(clean)
    final = "checkpoints/final.safetensors"
    assert (path / final).read_bytes() == (clean / final).read_bytes()
    assert main(["verify", str(path)]) == 0


def test_weights_that_are_broken_are_named_and_written_anew(clean, copied, capsys):
    final = copied / "checkpoints" / "final.safetensors"
    flip(final, -5)
    for refused in (dj.load_policy, lambda path: dj.evaluate(path, 1)):
        with pytest.raises(StorageError, match=r"final\.safetensors cannot be read: .* its hash is another"):
            refused(copied)
    with pytest.raises(StorageError, match="its hash is another"):
        dj.train(config_of(), copied.parent / "new", init_from=copied)
    assert main(["verify", str(copied)]) == 5
    assert "final.safetensors  BROKEN" in capsys.readouterr().out
    dj.resume_run(copied)
    assert final.read_bytes() == (clean / "checkpoints" / "final.safetensors").read_bytes()


# The weights of the best evaluation.


def best_of(folder):
    return (folder / "checkpoints" / "best.safetensors").read_bytes()


def test_the_best_weights_are_those_of_the_run_that_was_never_cut_off(clean, tmp_path, at_step):
    """Cut off after an evaluation that the last checkpoint does not know, and forked from before it."""

    def cut():
        raise Killed

    path = tmp_path / "run"
    for step in (27, 53):
        at_step(step, cut)
        with pytest.raises(Killed):
            dj.train(config_of(), path, resume="auto")
    dj.resume_run(path)
    assert best_of(path) == best_of(clean)
    dj.resume_run(clean, step=30, into=tmp_path / "fork")
    assert best_of(tmp_path / "fork") == best_of(clean)
    result = json.loads((path / "result.json").read_text())
    assert facts_at(path, 60)["best_step"] == result["best"]["step"]
    returns = dj.evaluate(path, 3)  # at the end, which was the best here
    np.testing.assert_allclose(returns, result["final"]["returns"], rtol=1e-5)
    assert main(["verify", str(path)]) == 0


# Directories that change while a run goes on.


def test_checkpoints_and_records_that_are_removed_meanwhile_are_written_anew(clean, tmp_path, at_step, caplog):
    path = tmp_path / "run"
    at_step(25, lambda: shutil.rmtree(path / "checkpoints" / "rows"))
    at_step(35, lambda: shutil.rmtree(path / "checkpoints"))
    at_step(45, (path / "metrics.jsonl").unlink)
    dj.train(config_of(), path)
    assert contents(path) == contents(clean)
    assert all(not isinstance(each, str) for _, each in CheckpointStore(path / "checkpoints").examine())
    assert "metrics.jsonl was gone and is written anew" in caplog.text


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_directory_that_is_moved_or_removed_meanwhile_is_noticed(how, clean, tmp_path, at_step, monkeypatch, caplog):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    path, moved = tmp_path / "run", tmp_path / "moved"
    at_step(35, lambda: shutil.rmtree(path) if how == "removed" else path.rename(moved))
    with pytest.raises(StorageError, match="was moved or removed while it was in use; put it back"):
        dj.train(config_of(), path)
    assert not path.exists()
    if how == "moved":
        moved.rename(path)
        dj.resume_run(path)
        assert contents(path) == contents(clean)


def test_an_environment_that_changes_the_working_directory_scatters_no_files(clean, tmp_path, at_step, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    at_step(15, lambda: os.chdir(tmp_path / "elsewhere"))
    run = dj.train(config_of(), "run")
    assert run.directory == tmp_path / "run"
    assert contents(tmp_path / "run") == contents(clean)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_run_whose_lock_another_process_took_ends_and_leaves_its_files_alone(clean, tmp_path, at_step):
    path, seen = tmp_path / "run", {}

    def take():
        (path / "run.lock").unlink()
        with RunDirectory(path).lock():
            seen.update(listing(path))

    at_step(35, take)
    with pytest.raises(StorageError, match=r"run\.lock was replaced while this process held it"):
        dj.train(config_of(), path)
    now = listing(path)
    assert {name: content for name, content in now.items() if name.parts[0] == "checkpoints"} == {
        name: content for name, content in seen.items() if name.parts[0] == "checkpoints"
    }
    dj.resume_run(path)
    assert contents(path) == contents(clean)


def test_a_copy_by_hard_links_goes_on_without_a_change_to_the_original(copied, tmp_path):
    before = listing(copied)
    shutil.copytree(copied, tmp_path / "twin", copy_function=os.link)
    dj.resume_run(tmp_path / "twin", total_steps=70)
    assert listing(copied) == before


# Forged checkpoints.


ROW = [["event", "update"], ["seed", 4], ["step", 60]]
FORGED = {
    "level": ["\x1b[2J", 3, "x" * 100],
    "complete": ["yes", None],
    "updates": [-1, "many", 2**60],
    "config": [[], {"seeds": "x"}, {"env": 3}],
    "changes": ["text", [3]],
    "spec": [{}, [], {"obs_shape": [3]}],
    "seconds": [3, {"act": "long"}, {"act": -1.0}, [["act"]]],
    "metrics_bytes": [-5, "all", 2**60],
    "metrics_sha256": ["no hash", 5],
    "timing_bytes": [None, -5],
    "versions": [1, {"jax": 3}],
    "device": [None, {"kind": 1}],
    "machine": [[], {"system": "x"}],
    "best_step": ["../..", -1],
    "untaken": [
        3,
        [3],
        ["row"],
        [[["event"]]],
        {"event": "update"},
        [[["event", "x"]]],
        [[*ROW, ["seed", "../.."]]],
    ],
}
CASES = [(name, value) for name, values in FORGED.items() for value in values]


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "another"])
def test_forged_facts_are_refused_in_one_printable_line(missing, clean):
    store = CheckpointStore(clean / "checkpoints")
    kept = store.load(store.newest()[0])
    required = [name for name in FORGED if name not in ("metrics_sha256", "best_step", "untaken")]
    cases = [(name, None) for name in required] if missing else CASES
    for name, value in cases:
        facts = {key: each for key, each in kept.facts.items() if key != name} | ({} if missing else {name: value})
        with pytest.raises(StorageError, match=r"description cannot be read") as error:
            _resume_point(kept._replace(facts=facts), config_of(), print)
        assert str(error.value).isprintable(), (name, value)


def test_a_forged_seed_writes_no_file_elsewhere(copied, tmp_path):
    store = CheckpointStore(copied / "checkpoints")
    kept = store.load(store.newest()[0])
    row = [["event", "update"], ["seed", "../../../elsewhere"], ["step", 60], ["loss", 1.0]]
    store.save(kept._replace(facts={**kept.facts, "untaken": [row]}))
    (copied / "result.json").unlink()
    with pytest.raises(StorageError, match="description cannot be read"):
        dj.resume_run(copied, logging={"tensorboard": True})
    assert {path.name for path in tmp_path.iterdir()} == {"copied"}


@pytest.mark.parametrize(
    "change",
    [
        {"evaluations/step": None},
        {"evaluations/step": np.zeros(3, np.float32)},
        {"evaluations/episodes": np.array([2**40] * 3)},
        {"evaluations/returns": np.zeros((7, 2))},
        {"evaluations/returns": np.zeros(())},
        {"evaluations/lengths": np.zeros((2, 9), bool)},
        {"diverged": np.zeros((2, 2), bool)},
        {"diverged": np.zeros(2)},
    ],
    ids=str,
)
def test_forged_evaluations_are_refused(change, clean):
    store = CheckpointStore(clean / "checkpoints")
    kept = store.load(store.newest()[0])
    arrays = {name: x for name, x in (kept.arrays | change).items() if x is not None}
    point = ResumePoint(kept._replace(arrays=arrays))
    with pytest.raises(StorageError, match="the checkpoint does not"):
        _ = point.evaluated, point.diverged(2)
