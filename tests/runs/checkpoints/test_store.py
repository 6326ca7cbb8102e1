"""The store of checkpoints: whatever happens while it writes, or to its files afterwards, nothing false is read."""

import copy
import errno
import json
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from power import Disk, Killed

from ddpg_jax.errors import StorageError
from ddpg_jax.runs import arrays, filesystem
from ddpg_jax.runs.checkpoints import integrity as verified
from ddpg_jax.runs.checkpoints import rows as segments
from ddpg_jax.runs.checkpoints import store as module
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint, CheckpointInfo, digest
from ddpg_jax.runs.checkpoints.rows import Rows
from ddpg_jax.runs.checkpoints.store import CheckpointStore

CAPACITY = 20


def rows_between(first, stop):
    """Row k holds k and k + 0.5, whatever ring it lies in."""
    numbers = np.arange(first, stop)
    return {"rows": np.stack([numbers, 7 * numbers], 1).astype(np.uint8), "more": (numbers + 0.5).astype(np.float32)}


def checkpoint(step, score=None):
    """What a run has after `step` steps: arrays of several dtypes, and the rows that a ring of 20 still holds."""
    arrays = {
        "learner/weights": np.arange(6, dtype=np.float32).reshape(2, 3) + step,
        "counter": np.array(step, np.int64),
        "first": np.array([True, False]),
        "none": np.zeros((0, 3)),
    }
    facts = {"level": "exact", "seconds": {"act": 0.1 * step}, "shape": [1, 2], "text": "τ"}
    return Checkpoint(step, arrays, Rows(max(0, step - CAPACITY), step, rows_between), facts, score)


def equal(a, b):
    assert (a.step, a.facts, a.score) == (b.step, b.facts, b.score)
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name], strict=True)
    assert a.rows[:2] == b.rows[:2]
    for name, x in a.rows.read(*a.rows[:2]).items():
        np.testing.assert_array_equal(x, b.rows.read(*b.rows[:2])[name], strict=True)
    assert digest(a) == digest(b)
    return True


def saved(folder, *steps):
    """A store with checkpoints after these steps."""
    store = CheckpointStore(folder)
    for step in steps:
        store.save(checkpoint(step))
    return store


def newest(folder):
    """What a fresh process finds: the checkpoint, and what it says; nothing where none is whole."""
    store = CheckpointStore(folder)
    there = [each for _, each in store.examine()]
    if there and all(isinstance(each, str) for each in there):
        with pytest.raises(StorageError, match="none that a run can go on from"):
            store.newest()
        return None, []
    found, lines = store.newest()
    return (None if found is None else store.load(found)), lines


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# Saved and loaded.


def test_what_is_saved_is_loaded(tmp_path):
    found = saved(tmp_path / "c", 8).newest()[0]
    loaded, lines = newest(tmp_path / "c")
    assert equal(loaded, checkpoint(8))
    assert lines == []
    assert (found.step, found.sequence, found.facts["level"]) == (8, 1, "exact")
    assert found.bytes == sum(path.stat().st_size for path in all_files(tmp_path) if path.suffix == ".safetensors")


def test_the_files_are_safetensors_that_others_can_read(tmp_path):
    from safetensors.numpy import load_file

    saved(tmp_path, 8)
    arrays = load_file(next(tmp_path.glob("*/arrays.safetensors")))
    for name, x in checkpoint(8).arrays.items():
        np.testing.assert_array_equal(arrays[name], x, strict=True)
    rows = load_file(next(tmp_path.glob("rows/*")))
    for name, x in rows_between(0, 8).items():
        np.testing.assert_array_equal(rows[name], x, strict=True)


def test_a_store_without_checkpoints(tmp_path):
    store = CheckpointStore(tmp_path / "none")
    assert store.newest() == (None, [])
    assert store.examine() == []
    with pytest.raises(StorageError, match="no checkpoint after 3 steps; there are none"):
        store.at(3)
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_without_rows(tmp_path):
    store = CheckpointStore(tmp_path)
    empty = Checkpoint(0, {}, Rows(0, 0, lambda a, b: {}), {})
    store.save(empty)
    assert equal(newest(tmp_path)[0], empty)
    store.save(checkpoint(3))
    assert equal(newest(tmp_path)[0], checkpoint(3))


def test_parts_of_rows_can_be_read(tmp_path):
    store = saved(tmp_path, 8, 15, 26)
    rows = store.load(store.newest()[0]).rows
    for a, b in ((6, 26), (6, 6), (7, 9), (14, 16), (15, 26), (25, 26)):
        read = rows.read(a, b)
        for name, x in rows_between(a, b).items():
            np.testing.assert_array_equal(read[name], x, strict=True)


def test_dtypes_that_are_not_known_are_refused(tmp_path):
    arrays = {"text": np.array(["a"])}
    with pytest.raises(StorageError, match="text is of dtype <U1, which is not kept; there are bool"):
        CheckpointStore(tmp_path).save(Checkpoint(0, arrays, Rows(0, 0, lambda a, b: {}), {}))
    assert newest(tmp_path) == (None, [])


def test_rows_that_change_their_form_in_between_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 5)

    def odd(a, b):
        return {"rows": np.zeros((b - a, 2 if a < 3 else 3), np.uint8)}

    with pytest.raises(StorageError, match=r"rows: uint8\[2, 3\] is not what"):
        CheckpointStore(tmp_path).save(Checkpoint(0, {}, Rows(0, 9, odd), {}))


# Only what is new is written.


def test_a_row_is_written_once(tmp_path):
    store = saved(tmp_path, 8, 15, 26)
    spans = sorted(tuple(map(int, path.stem.split("-")[1:])) for path in (tmp_path / "rows").iterdir())
    assert spans == [(0, 8), (8, 15), (15, 26)]
    store.save(
        checkpoint(40)
    )  # rows 20 to 40: the first file holds nothing that is still needed, but by the one before
    store.save(checkpoint(41))
    assert [path.name for path in sorted((tmp_path / "rows").iterdir())] == [
        f"0000000{n}-{a}-{b}.safetensors" for n, a, b in ((3, 15, 26), (4, 26, 40), (5, 40, 41))
    ]
    assert equal(newest(tmp_path)[0], checkpoint(41))


def test_a_store_that_was_loaded_goes_on_adding(tmp_path):
    saved(tmp_path, 8)
    store = CheckpointStore(tmp_path)
    store.load(store.newest()[0])
    store.save(checkpoint(11))
    assert [path.name for path in sorted((tmp_path / "rows").iterdir())] == [
        "00000001-0-8.safetensors",
        "00000002-8-11.safetensors",
    ]
    store.forget_rows()
    store.save(checkpoint(12))
    assert "00000003-0-12.safetensors" in {path.name for path in (tmp_path / "rows").iterdir()}
    assert equal(newest(tmp_path)[0], checkpoint(12))


def test_rows_of_a_run_that_went_back_are_not_taken_for_those_of_the_other(tmp_path):
    """The run is taken up at 8, after another had gone on to 15 with other rows."""
    store = saved(tmp_path, 8)
    other = checkpoint(15)
    store.save(
        other._replace(rows=other.rows._replace(read=lambda a, b: {n: x * 0 for n, x in rows_between(a, b).items()}))
    )
    store = CheckpointStore(tmp_path)
    store.load(store.at(8))
    store.save(checkpoint(15))
    assert equal(newest(tmp_path)[0], checkpoint(15))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Rows(0, 15, rows_between), Rows(0, 8, rows_between)),
        (Rows(5, 15, rows_between), Rows(0, 20, rows_between)),
        (Rows(0, 8, lambda a, b: {"rows": rows_between(a, b)["rows"]}), Rows(0, 15, rows_between)),
    ],
    ids=["fewer", "earlier ones", "of another form"],
)
def test_rows_that_do_not_continue_what_was_written_are_written_anew(before, after, tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(8)._replace(rows=before))
    store.save(checkpoint(9)._replace(rows=after))
    assert equal(newest(tmp_path)[0], checkpoint(9)._replace(rows=after))


def test_large_rows_are_divided_and_too_many_files_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 20)
    monkeypatch.setattr(segments, "MAX_SEGMENTS", 6)
    store = CheckpointStore(tmp_path)
    for step in (7, 8, 9, 10, 11, 12):
        store.save(checkpoint(step))
        assert equal(newest(tmp_path)[0], checkpoint(step))
        assert len(json.loads(next(tmp_path.glob(f"*-step-{step}/manifest.json")).read_text())["segments"]) <= 6
    whole = CheckpointStore(tmp_path / "whole")
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 2**20)
    whole.save(checkpoint(12))
    assert digest(newest(tmp_path)[0]) == digest(newest(tmp_path / "whole")[0])


def test_an_older_one_without_a_manifest_is_set_aside_too(tmp_path):
    """Else nothing could be pruned any more."""
    saved(tmp_path, 8, 9)
    manifest = tmp_path / "00000001-step-8" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"x")
    store = CheckpointStore(tmp_path)
    found, lines = store.newest()
    assert found.step == 9
    assert "00000001-step-8 is broken" in lines[0]
    assert "0 steps are lost" in lines[0]
    for step in (10, 11, 12):
        store.save(checkpoint(step))
    assert [name for name, _ in store.examine()] == ["00000004-step-11", "00000005-step-12"]


def test_what_is_pruned_while_it_is_examined_is_not_broken(tmp_path, monkeypatch):
    store = saved(tmp_path, 8, 9)
    read_manifest = module.read_manifest

    def pruned(folder):
        if folder.name == "00000001-step-8":
            shutil.rmtree(folder, ignore_errors=True)
        return read_manifest(folder)

    monkeypatch.setattr(module, "read_manifest", pruned)
    assert [name for name, _ in store.examine()] == ["00000002-step-9"]


def test_the_digest_tells_every_difference():
    one = checkpoint(8)
    others = [
        checkpoint(9),
        one._replace(arrays=one.arrays | {"counter": np.array(8, np.int32)}),
        one._replace(arrays=one.arrays | {"learner/weights": one.arrays["learner/weights"].reshape(3, 2)}),
        one._replace(rows=Rows(1, 8, rows_between)),
        one._replace(rows=Rows(0, 8, lambda a, b: {n: x[::-1] for n, x in rows_between(a, b).items()})),
    ]
    assert len({digest(each) for each in (one, *others)}) == 6
    assert digest(one) == digest(one._replace(facts={}, score=3.0, step=9))


def test_two_and_the_best_are_kept(tmp_path):
    store = CheckpointStore(tmp_path)
    for step, score in ((1, None), (2, -5.0), (3, -1.0), (4, -3.0), (5, None), (6, -2.0)):
        store.save(checkpoint(step, score))
    assert [found.step for _, found in store.examine()] == [3, 5, 6]
    more = CheckpointStore(tmp_path / "more", keep=4)
    for step in range(1, 8):
        more.save(checkpoint(step))
    assert [found.step for _, found in more.examine()] == [4, 5, 6, 7]
    assert CheckpointStore(tmp_path, keep=0).save(checkpoint(9)).sequence == 7
    assert [found.step for _, found in store.examine()] == [3, 6, 9]


# Killed, and out of room.


class Fault:
    """Raises at the k-th call of the system."""

    def __init__(self, monkeypatch, error, at=None):
        self.calls, self._at, self._error = [], at, error
        monkeypatch.setattr(filesystem, "fault_point", self)

    def __call__(self, operation, path):
        self.calls.append(operation)
        if self._at is not None and len(self.calls) > self._at:
            raise self._error


def calls_of_a_save(tmp_path, monkeypatch):
    """How many calls the save that prunes makes, and which."""
    with monkeypatch.context() as patch:
        saved(tmp_path / "count", 8, 15, 26)
        store = CheckpointStore(tmp_path / "count")
        store.load(store.newest()[0])
        fault = Fault(patch, None)
        store.save(checkpoint(33))
    assert {"mkdir", "open", "write", "fsync", "rename", "remove", "rmdir", "read", "list"} == set(fault.calls)
    return len(fault.calls)


def test_killed_at_any_call_the_old_or_the_new_one_is_there(tmp_path, monkeypatch):
    calls, ended = calls_of_a_save(tmp_path, monkeypatch), []
    for k in range(calls + 1):
        folder = tmp_path / str(k)
        saved(folder, 8, 15, 26)
        with monkeypatch.context() as patch:
            store = CheckpointStore(folder)
            store.load(store.newest()[0])
            Fault(patch, Killed(), k)
            try:
                store.save(checkpoint(33))
                assert k == calls
            except Killed:
                pass
        # What a `finally` tidies up, a kill does not; tidying was killed as well, as every later call raises.
        loaded, lines = newest(folder)
        assert lines == []
        assert equal(loaded, checkpoint(loaded.step))
        ended.append(loaded.step)
        again = CheckpointStore(folder)
        again.load(again.newest()[0])
        again.save(checkpoint(34))
        assert equal(newest(folder)[0], checkpoint(34))
        assert not list(folder.glob(".staging*"))
        assert [found.step for _, found in again.examine()] == [loaded.step, 34]
    assert ended[0] == 26
    assert ended[-1] == 33
    assert ended == sorted(ended)


@pytest.mark.parametrize("number", [errno.ENOSPC, pytest.param(errno.EIO, marks=pytest.mark.slow)])
def test_an_error_at_any_call_is_reported_and_harms_nothing(tmp_path, monkeypatch, number):
    calls, refused = calls_of_a_save(tmp_path, monkeypatch), 0
    for k in range(calls):
        folder = tmp_path / f"{number}-{k}"
        store = saved(folder, 8, 15, 26)
        with monkeypatch.context() as patch:
            Fault(patch, OSError(number, os.strerror(number)), k)
            try:
                store.save(checkpoint(33))
            except StorageError as error:
                refused += os.strerror(number) in str(error)
        loaded, _ = newest(folder)
        assert loaded.step in (26, 33)
        assert equal(loaded, checkpoint(loaded.step))
        store.save(checkpoint(34))
        assert equal(newest(folder)[0], checkpoint(34))
        assert not list(folder.glob(".staging*"))
    assert 0 < refused < calls  # those of pruning are not: the checkpoint is there


def test_a_single_error_is_tidied_up(tmp_path, monkeypatch):
    """The disk is full for one call only."""
    calls = calls_of_a_save(tmp_path, monkeypatch)
    for k in range(calls):
        folder = tmp_path / f"once-{k}"
        store = saved(folder, 8, 15, 26)
        with monkeypatch.context() as patch:
            count = [0]

            def once(operation, path, count=count, k=k):
                count[0] += 1
                if count[0] == k + 1:
                    raise OSError(errno.ENOSPC, "full")

            patch.setattr(filesystem, "fault_point", once)
            try:
                store.save(checkpoint(33))
            except StorageError:
                assert not list(folder.glob(".staging*"))
        loaded, _ = newest(folder)
        assert equal(loaded, checkpoint(loaded.step))
        store.save(checkpoint(34))
        assert equal(newest(folder)[0], checkpoint(34))
        needed = {path.name for path in folder.glob("*/manifest.json")}
        assert needed == {"manifest.json"}


def test_after_a_power_failure_the_old_or_the_new_one_is_there(tmp_path, monkeypatch):
    calls, ended = calls_of_a_save(tmp_path, monkeypatch), []
    for k in range(calls + 1):
        folder = tmp_path / f"power-{k}"
        saved(folder, 8, 15, 26)
        with monkeypatch.context() as patch:
            store = CheckpointStore(folder)
            store.load(store.newest()[0])
            disk = Disk(folder, patch, k)
            with suppress(Killed):
                store.save(checkpoint(33))
        disk.after_the_power_failed(folder)
        loaded, _ = newest(folder)
        assert equal(loaded, checkpoint(loaded.step))
        ended.append(loaded.step)
        CheckpointStore(folder).save(checkpoint(34))
        assert equal(newest(folder)[0], checkpoint(34))
    assert set(ended) == {26, 33}
    assert ended[-1] == 33  # once a save has returned


def test_after_a_power_failure_in_the_first_save_there_is_all_or_nothing(tmp_path, monkeypatch):
    ended, returned = [], False
    while not returned:
        folder = tmp_path / f"first-{len(ended)}"
        folder.mkdir()
        with monkeypatch.context() as patch:
            disk = Disk(folder, patch, at=len(ended))
            with suppress(Killed):
                CheckpointStore(folder / "checkpoints").save(checkpoint(8))
                returned = True
        disk.after_the_power_failed(folder)
        found, _ = CheckpointStore(folder / "checkpoints").newest()
        ended.append(found is not None)
    assert ended[-1]
    assert not ended[0]


def test_what_is_not_read_back_as_it_was_written_is_not_a_checkpoint(tmp_path, monkeypatch):
    store = saved(tmp_path, 8)
    write = filesystem.write_file

    def lying(path, parts):
        written = write(path, parts)
        if path.name == "arrays.safetensors":
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        return written

    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "write_file", lying)
        with pytest.raises(StorageError, match="its hash is another"):
            store.save(checkpoint(9))
    assert [path.name for path in tmp_path.glob("corrupt-*")] == ["corrupt-00000002-step-9"]
    assert equal(newest(tmp_path)[0], checkpoint(8))
    store.save(checkpoint(10))
    assert equal(newest(tmp_path)[0], checkpoint(10))


# Broken files.


def damaged(folder, path, content):
    """What a fresh process makes of a store in which one file holds other bytes: the store is as it was afterwards."""
    copied = folder.parent / "damaged"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(folder, copied)
    (copied / path.relative_to(folder)).write_bytes(content)
    broken = [name for name, each in CheckpointStore(copied).examine() if isinstance(each, str)]
    return *newest(copied), broken


def count_seen(folder, damages):
    """How many of (path, content) are seen; what is read beside them is what was saved."""
    seen = 0
    for path, content in damages:
        loaded, lines, broken = damaged(folder, path, content)
        seen += len(broken) > 0
        if loaded is not None:
            assert equal(loaded, checkpoint(loaded.step))
            assert f"{loaded.step}" not in {name.rpartition("-")[2] for name in broken}
        older = path.parent.name == "00000001-step-8" and path.name == "manifest.json"
        assert len(lines) == {None: 0, 8: 1, 15: int(older)}[loaded and loaded.step]
        assert all(
            f"checkpoint {name} is broken; it is set aside" in "".join(lines) for name in broken[-len(lines) :] if lines
        )
    return seen


def flips(folder, count, chance):
    """Single bits that are wrong, spread evenly over all bytes of all files."""
    paths = all_files(folder)
    sizes = np.cumsum([path.stat().st_size for path in paths])
    for _ in range(count):
        at = chance.randrange(int(sizes[-1]))
        n = int(np.searchsorted(sizes, at, "right"))
        content = bytearray(paths[n].read_bytes())
        content[at - int(sizes[n] - len(content))] ^= 1 << chance.randrange(8)
        yield paths[n], bytes(content)


def truncations(folder, count, chance):
    for _ in range(count):
        path = chance.choice(all_files(folder))
        content = path.read_bytes()
        yield path, content[: chance.randrange(len(content))]


@pytest.mark.parametrize(
    "share", [0.05, pytest.param(1.0, marks=pytest.mark.slow)], ids=["a twentieth", "2000 flips, 400 truncations"]
)
def test_no_wrong_bit_and_no_missing_byte_is_read_silently(tmp_path, share):
    folder, chance = tmp_path / "c", random.Random(3)  # noqa: S311
    saved(folder, 8, 15)
    for kind, count in ((flips, 2000), (truncations, 400)):
        seen = count_seen(folder, kind(folder, int(count * share), chance))
        print(f"{kind.__name__}: {seen} of {int(count * share)} seen")
        assert seen == int(count * share)


def test_a_broken_checkpoint_is_set_aside_and_said(tmp_path):
    saved(tmp_path, 8, 15)
    path = tmp_path / "00000002-step-15" / "arrays.safetensors"
    path.write_bytes(b"")
    assert [type(each) for _, each in CheckpointStore(tmp_path).examine()] == [CheckpointInfo, str]
    with pytest.raises(StorageError, match=r"arrays\.safetensors is broken: it holds 0 bytes instead of"):
        CheckpointStore(tmp_path).at(15)
    assert "00000002-step-15" in {path.name for path in tmp_path.iterdir()}
    loaded, (line,) = newest(tmp_path)
    assert loaded.step == 8
    assert "set aside as corrupt-00000002-step-15; 7 steps are lost" in line
    assert {path.name for path in tmp_path.iterdir()} == {"00000001-step-8", "corrupt-00000002-step-15", "rows"}
    assert newest(tmp_path)[1] == []


def test_a_broken_checkpoint_that_cannot_be_set_aside_is_said_as_well(tmp_path, monkeypatch):
    saved(tmp_path, 8, 15)
    (tmp_path / "00000002-step-15" / "manifest.json").unlink()

    def read_only(operation, path):
        if operation == "rename":
            raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(filesystem, "fault_point", read_only)
    found, (line,) = CheckpointStore(tmp_path).newest()
    assert found.step == 8
    assert "could not be set aside: [Errno 30] read-only" in line


def test_rows_that_break_after_they_were_verified_are_not_read(tmp_path):
    store = saved(tmp_path, 8)
    loaded = store.load(store.newest()[0])
    segment = next((tmp_path / "rows").iterdir())
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-1] + b"?")
    with pytest.raises(StorageError, match="its hash is another"):
        loaded.rows.read(0, 8)
    segment.write_bytes(whole + b"?")
    with pytest.raises(StorageError, match="instead of"):
        loaded.rows.read(0, 8)
    segment.unlink()
    with pytest.raises(StorageError, match="is broken"):
        loaded.rows.read(0, 8)


def test_where_none_is_whole_nothing_is_set_aside_and_what_can_be_done_is_said(tmp_path):
    """One bit in the oldest file of rows, which all checkpoints share; the networks are still to be had."""
    store = saved(tmp_path, 8, 9, 10)
    path = tmp_path / "rows" / "00000001-0-8.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    before = {path: path.read_bytes() for path in all_files(tmp_path)}
    fresh = CheckpointStore(tmp_path)
    with pytest.raises(StorageError, match=r"2 checkpoints, but none that a run can go on from.*--level weights"):
        fresh.newest()
    assert {path: path.read_bytes() for path in all_files(tmp_path)} == before
    folder, networks = fresh.newest_arrays()
    assert folder.name == "00000003-step-10"
    np.testing.assert_array_equal(networks.arrays["learner/weights"], checkpoint(10).arrays["learner/weights"])
    assert networks.rows.first == networks.rows.stop
    assert CheckpointStore(tmp_path / "none").newest_arrays() is None
    assert store.examine()


def test_rows_that_break_while_a_run_goes_on_are_written_anew(tmp_path):
    """A bit, a byte too few, or no file at all; all checkpoints that share them are whole again."""
    said = []
    store = CheckpointStore(tmp_path, keep=100, warn=said.append)
    store.save(checkpoint(8))
    store.save(checkpoint(9))
    path = tmp_path / "rows" / "00000001-0-8.safetensors"
    whole = path.read_bytes()
    for step, content in ((10, whole[:-1] + b"?"), (12, whole[:-1]), (13, None)):
        path.unlink() if content is None else path.write_bytes(content)
        for _ in range(3):  # in turn, each file of rows is read again
            store.save(checkpoint(step))
        assert path.read_bytes() == whole
        assert all(isinstance(each, CheckpointInfo) for _, each in store.examine())
    assert len(said) == 3
    assert all("00000001-0-8.safetensors was damaged or lost, and is written anew" in line for line in said)


def test_rows_that_cannot_be_written_anew_are_left_behind(tmp_path):
    """The ring does not hold all of them any more."""
    said = []
    store = CheckpointStore(tmp_path, warn=said.append)
    for step in (8, 15, 26):
        store.save(checkpoint(step))
    (tmp_path / "rows" / "00000002-8-15.safetensors").unlink()
    shutil.rmtree(tmp_path / "00000002-step-15")
    store.save(checkpoint(33))  # rows 13 to 33
    assert "all rows are written anew" in said[0]
    assert equal(newest(tmp_path)[0], checkpoint(33))


def test_checkpoints_that_are_removed_while_a_run_goes_on_are_written_anew(tmp_path):
    store = saved(tmp_path / "c", 8, 9)
    shutil.rmtree(tmp_path / "c")
    store.save(checkpoint(10))
    assert equal(newest(tmp_path / "c")[0], checkpoint(10))
    shutil.rmtree(tmp_path / "c" / "rows")
    store.save(checkpoint(11))
    assert equal(newest(tmp_path / "c")[0], checkpoint(11))
    assert all(isinstance(each, CheckpointInfo) for _, each in CheckpointStore(tmp_path / "c").examine())


def test_a_checkpoint_that_something_beside_it_makes_useless_is_passed_over(tmp_path):
    saved(tmp_path, 8, 9)

    def not_nine(found):
        if found.step == 9:
            raise StorageError("its record is another")

    found, (line,) = CheckpointStore(tmp_path).newest(not_nine)
    assert found.step == 8
    assert "1 steps are lost (its record is another)" in line


def test_nothing_is_written_where_the_guard_refuses(tmp_path):
    def refuse():
        raise StorageError("not yours any more")

    with pytest.raises(StorageError, match="not yours"):
        CheckpointStore(tmp_path / "c", guard=refuse).save(checkpoint(8))
    assert not (tmp_path / "c").exists()


def test_weights_that_were_best_stay_as_long_as_a_checkpoint_tells_of_them(tmp_path):
    store = CheckpointStore(tmp_path)
    (tmp_path / "best").mkdir()
    for step, best in ((1, None), (2, 2), (3, 2), (4, 4), (5, 4)):
        (tmp_path / "best" / f"step-{step}.safetensors").write_text("weights")
        saved_at = checkpoint(step)
        store.save(saved_at._replace(facts=saved_at.facts | ({} if best is None else {"best_step": best})))
    assert [path.name for path in sorted((tmp_path / "best").iterdir())] == ["step-4.safetensors"]


def test_a_manifest_of_a_newer_version_is_neither_read_nor_set_aside(tmp_path):
    saved(tmp_path, 8, 9)
    path = tmp_path / "00000002-step-9" / "manifest.json"

    def newer(values):
        values.update(format=7, invented="later", facts={"versions": {"ddpg-jax": "9.1\x1b[2J"}})

    rewritten(path, newer)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"was written by ddpg-jax 9\.1\\x1b\[2J in format 7") as error:
        CheckpointStore(tmp_path).newest()
    assert len(str(error.value).splitlines()) == 1
    assert path.read_bytes() == before
    path.write_bytes(before.replace(b'"later"', b'"latex"'))  # its hash is wrong, so it is broken
    assert CheckpointStore(tmp_path).newest()[0].step == 8


@pytest.mark.slow
def test_arrays_of_more_than_2_gib_are_saved_verified_and_loaded(tmp_path):
    """One call of the system reads at most 2,147,479,552 bytes."""
    big = np.zeros(2**31 + 2**20, np.uint8)
    big[[0, -1]] = 7, 9
    store = CheckpointStore(tmp_path)
    store.save(Checkpoint(0, {"x": big}, Rows(0, 0, lambda a, b: {}), {}))
    loaded = store.load(store.newest()[0]).arrays["x"]
    assert (loaded.size, loaded[0], loaded[-1]) == (big.size, 7, 9)


# Hostile files.


def rewritten(path, change):
    """Changes a manifest and gives it the hash that it then should have: who writes it knows the format."""
    values = json.loads(path.read_text())
    change(values)
    path.write_bytes(_as_written(values))


def _as_written(values):
    import hashlib

    def text(own):
        return json.dumps(values | {"own_sha256": own}, sort_keys=True, indent=1).encode() + b"\n"

    return text(hashlib.sha256(text("")).hexdigest())


def deep(depth):
    node = value = []
    for _ in range(depth):
        node.append([])
        node = node[0]
    return value


HOSTILE = {
    "path out of the folder": lambda m: m["segments"][0].update(name="../../canary"),
    "path to a whole file outside": lambda m: m["segments"][0].update(name="../../whole"),
    "absolute path": lambda m: m["segments"][0].update(name="/etc/passwd"),
    "folder in a name": lambda m: m["segments"][0].update(name="x/00000001-0-8.safetensors"),
    "absurd shape": lambda m: m["leaves"][0].update(shape=[2**50]),
    "shapes whose product overflows": lambda m: m["leaves"][0].update(shape=[2**40, 2**40]),
    "negative shape": lambda m: m["leaves"][0].update(shape=[-1]),
    "many axes": lambda m: m["leaves"][0].update(shape=[1] * 100),
    "absurd size": lambda m: m.update(bytes=2**52),
    "size that is no number": lambda m: m.update(bytes="12"),
    "object dtype": lambda m: m["leaves"][0].update(dtype="object"),
    "structured dtype": lambda m: m["leaves"][0].update(dtype="V8"),
    "two arrays of one name": lambda m: m["leaves"].append(m["leaves"][0]),
    "unknown key": lambda m: m.update(code="print()"),
    "missing key": lambda m: m.pop("facts"),
    "rows beyond the segments": lambda m: m.update(stop=10**6),
    "rows that begin before the segments": lambda m: m["segments"][0].update(first=3),
    "segments that overlap": lambda m: m["segments"].append(m["segments"][0]),
    "segment that ends before it begins": lambda m: m["segments"][0].update(first=8, stop=0),
    "too many segments": lambda m: m.update(segments=m["segments"] * 1000),
    "another format": lambda m: m.update(format=0),
    "another step": lambda m: m.update(step=9),
    "facts that are no table": lambda m: m.update(facts=[]),
    "deep facts": lambda m: m.update(facts={"x": deep(150)}),
    "true for a number": lambda m: m.update(step=True),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_manifests_are_refused(tmp_path, kind):
    canary = tmp_path / "canary"
    canary.write_text("alive")
    saved(tmp_path / "a" / "c", 8)
    path = tmp_path / "a" / "c" / "00000001-step-8" / "manifest.json"
    rewritten(path, lambda values: None)
    assert newest(tmp_path / "a" / "c")[0] is not None  # rewriting alone changes nothing
    shutil.copy(next((tmp_path / "a" / "c" / "rows").iterdir()), tmp_path / "a" / "whole")
    rewritten(path, HOSTILE[kind])
    store = CheckpointStore(tmp_path / "a" / "c")
    ((_, said),) = store.examine()
    if kind == "deep facts":  # which are harmless: they are data, and as long as they can be read they may be
        assert isinstance(said, (CheckpointInfo, str))
        return
    assert isinstance(said, str)
    assert "is broken" in said
    with pytest.raises(StorageError, match="none that a run can go on from"):
        store.newest()
    assert canary.read_text() == "alive"


def test_manifests_that_are_no_json_or_not_ours_are_refused(tmp_path):
    saved(tmp_path, 8)
    path = tmp_path / "00000001-step-8" / "manifest.json"
    whole = path.read_bytes()
    nested = b'{"facts":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    twice = whole.replace(b'"step": 8', b'"step": 7,\n "step": 8')
    spaced = whole.replace(b'"step": 8', b'"step":  8')
    floats = whole.replace(b'"step": 8', b'"step": 8.0')
    for content in (b"", b"{", b"[]", b"null", b"\xff\xfe", nested, twice, spaced, floats, whole + b"\n", whole[:-1]):
        path.write_bytes(content)
        ((_, said),) = CheckpointStore(tmp_path).examine()
        assert isinstance(said, str), content[:40]
    path.write_bytes(whole)
    assert isinstance(CheckpointStore(tmp_path).examine()[0][1], CheckpointInfo)


def test_an_endless_manifest_is_not_read(tmp_path, monkeypatch):
    saved(tmp_path, 8)
    monkeypatch.setattr(verified, "_MANIFEST_BYTES", 100)
    assert "are too many" in CheckpointStore(tmp_path).examine()[0][1]


@pytest.mark.parametrize("name", ["00000001-step-8/arrays.safetensors", "00000001-step-8/manifest.json", "rows"])
def test_links_and_folders_are_not_followed(tmp_path, name):
    saved(tmp_path / "c", 8)
    path = tmp_path / "c" / name
    path = next(path.iterdir()) if path.is_dir() else path
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert "is broken" in CheckpointStore(tmp_path / "c").examine()[0][1]
    path.unlink()
    path.mkdir()
    assert "is broken" in CheckpointStore(tmp_path / "c").examine()[0][1]
    path.rmdir()
    os.mkfifo(path)
    assert "is broken" in CheckpointStore(tmp_path / "c").examine()[0][1]


def test_a_file_whose_header_is_another_is_refused_though_its_hash_is_right(tmp_path):
    import hashlib

    saved(tmp_path, 8)
    path = tmp_path / "00000001-step-8" / "arrays.safetensors"
    content = path.read_bytes().replace(b'"data_offsets": [', b'"data_offsets": {', 1)
    path.write_bytes(content)
    new_hash = hashlib.sha256(content).hexdigest()
    rewritten(path.with_name("manifest.json"), lambda values: values.update(sha256=new_hash))
    store = CheckpointStore(tmp_path)
    with pytest.raises(StorageError, match="its header is not that of its arrays"):
        store.load(store.newest()[0])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed") / "c"
    saved(folder, 8)
    return folder, json.loads((folder / "00000001-step-8" / "manifest.json").read_text())


@settings(max_examples=200)
@given(data=st.data())
def test_whatever_a_manifest_says_the_error_is_ours(whole, data):
    folder, values = whole
    values = copy.deepcopy(values)
    places = [(values, key) for key in values if key != "own_sha256"]
    places += [(leaf, key) for leaf in values["leaves"] + values["row_leaves"] + values["segments"] for key in leaf]
    node, key = data.draw(st.sampled_from(places))
    node[key] = data.draw(json_values)
    path = folder / "00000001-step-8" / "manifest.json"
    path.write_bytes(_as_written(values))
    store = CheckpointStore(folder)
    ((_, said),) = store.examine()
    with suppress(StorageError):
        loaded = store.load(store.at(values["step"] if isinstance(said, CheckpointInfo) else 8))
        assert equal(loaded, checkpoint(8)._replace(facts=loaded.facts, score=loaded.score))


def test_memory_stays_under_twice_the_file(tmp_path):
    import tracemalloc

    big = Checkpoint(0, {"x": np.ones(2**21, np.float32)}, Rows(0, 0, lambda a, b: {}), {})
    CheckpointStore(tmp_path).save(big)
    size = next(tmp_path.glob("*/arrays.safetensors")).stat().st_size
    store = CheckpointStore(tmp_path)
    tracemalloc.start()
    store.load(store.newest()[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * size


# The calls themselves.


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (filesystem.file_size, filesystem.hash_file, lambda path: filesystem.read_file(path, 0)):
        for path in (tmp_path / "pipe", tmp_path):
            with pytest.raises(OSError, match="is no regular file"):
                read(path)


def test_removing_what_is_not_there_is_no_error(tmp_path):
    filesystem.remove(tmp_path / "none")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    filesystem.remove(tmp_path / "link")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("x")
    (tmp_path / "a" / "out").symlink_to(tmp_path / "outside")
    filesystem.remove(tmp_path / "a")
    assert {path.name for path in tmp_path.iterdir()} == {"outside"}
    assert (tmp_path / "outside" / "kept").exists()


def test_a_file_that_is_cut_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    opened = filesystem._open

    class Short:
        def __init__(self, file):
            self._file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._file.close()

        def fileno(self):
            return self._file.fileno()

        def readinto(self, buffer):
            return self._file.readinto(memoryview(buffer)[:2]) if self._file.tell() < 2 else 0

    monkeypatch.setattr(filesystem, "_open", lambda path: Short(opened(path)))
    with pytest.raises(OSError, match="ends too early"):
        filesystem.read_file(path, 3)


def test_the_names_of_dtypes_are_those_of_safetensors():
    assert arrays._DTYPES["float32"] == "F32"
    assert isinstance(Path(), Path)
