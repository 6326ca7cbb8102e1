"""Rows of which some have more than others: written once, read in parts, and nothing false about them is read."""

import json

import numpy as np
import pytest
from picture_list import GAMMA, add_steps, picture_spec, stacked

from ddpg_jax.errors import StorageError
from ddpg_jax.replay.host.frames import FrameRing
from ddpg_jax.runs import filesystem
from ddpg_jax.runs.checkpoints import rows as segments
from ddpg_jax.runs.checkpoints.checkpoint import Checkpoint, digest
from ddpg_jax.runs.checkpoints.manifest import Manifest, canonical, mark_of
from ddpg_jax.runs.checkpoints.rows import Rows
from ddpg_jax.runs.checkpoints.store import CheckpointStore

CAPACITY = 20


def rows_between(first, stop):
    """Row k begins 0 to 2 of its 2 episodes, and has a number for each of those."""
    numbers = np.arange(first, stop)
    begins = (numbers[:, None] * [3, 5]) % 7 < 3
    of_each = np.stack([numbers * 2, numbers * 2 + 1], 1)
    return {"in/rows": numbers.astype(np.uint8)[:, None], "in/begins": begins, "in/firsts@begins": of_each[begins]}


def checkpoint(step, read=rows_between):
    return Checkpoint(step, {"step": np.array(step)}, Rows(max(0, step - CAPACITY), step, read), {})


def saved(folder, *steps):
    store = CheckpointStore(folder)
    for step in steps:
        store.save(checkpoint(step))
    return store


def assert_rows(loaded, step):
    for start in range(loaded.rows.first, step):
        for stop in range(start, step + 1, 3):
            np.testing.assert_equal(loaded.rows.read(start, stop), rows_between(start, stop))


def test_the_mark_of_a_leaf_stands_beside_it():
    assert [mark_of(name) for name in ("rows", "a/rows", "firsts@begins", "a/b/firsts@begins")] == [
        *(None, None, "begins", "a/b/begins")
    ]


def test_every_part_is_read_as_it_was_over_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 5 * 11)  # about 5 rows
    store = saved(tmp_path, 8, 13, 27)
    loaded = store.load(store.newest()[0])
    assert len(list((tmp_path / "rows").iterdir())) > 3
    assert_rows(loaded, 27)
    assert digest(loaded) == digest(checkpoint(27))


def test_a_first_row_that_begins_nothing_has_the_same_form(tmp_path):
    assert not any(rows_between(1, 2)["in/begins"][0]) or not any(rows_between(5, 6)["in/begins"][0])
    for first in range(7):
        rows = Rows(first, 27, rows_between)
        assert segments.row_form(rows) == segments.row_form(Rows(0, 27, rows_between))


def test_a_store_that_was_loaded_goes_on_adding(tmp_path):
    saved(tmp_path, 8)
    store = CheckpointStore(tmp_path)
    store.load(store.newest()[0])
    store.save(checkpoint(15))
    names = sorted(path.name for path in (tmp_path / "rows").iterdir())
    assert names == ["00000001-0-8.safetensors", "00000002-8-15.safetensors"]
    assert_rows(store.load(store.newest()[0]), 15)


def test_a_damaged_file_is_written_anew_while_its_rows_are_at_hand(tmp_path):
    store = saved(tmp_path, 8, 12)
    path = tmp_path / "rows" / "00000001-0-8.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    store.save(checkpoint(15))
    assert path.read_bytes() == content
    assert_rows(store.load(store.newest()[0]), 15)


def test_rows_with_other_entries_than_before_are_all_written_anew(tmp_path):
    """What is at hand is not what was written, as a first picture may be lost since."""

    def changed(first, stop):
        rows = rows_between(first, stop)
        return rows | {"in/firsts@begins": rows["in/firsts@begins"] + 1000}

    lines = []
    store = CheckpointStore(tmp_path, warn=lines.append)
    for step in (8, 12):
        store.save(checkpoint(step))
    path = tmp_path / "rows" / "00000001-0-8.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    store.save(checkpoint(15, changed))
    assert "all rows are written anew" in lines[0]
    loaded = store.load(store.newest()[0])
    np.testing.assert_equal(loaded.rows.read(0, 15), changed(0, 15))


def test_entries_that_are_not_those_marked_are_not_written(tmp_path):
    def odd(first, stop):
        rows = rows_between(first, stop)
        return rows | {"in/firsts@begins": rows["in/firsts@begins"][1:]}

    with pytest.raises(StorageError, match="not what its rows were"):
        CheckpointStore(tmp_path).save(checkpoint(8, odd))
    assert list((tmp_path / "rows").iterdir()) == []


def forged(folder, change):
    """Changes the manifest of the only checkpoint, with a hash that is right."""
    path = next(folder.glob("*/manifest.json"))
    values = json.loads(path.read_text())
    change(values)
    path.write_bytes(canonical(Manifest.model_validate_json(json.dumps(values))))


def _without_mark(values):
    values["row_leaves"] = [leaf for leaf in values["row_leaves"] if leaf["name"] != "in/begins"]


def _mark_of_numbers(values):
    values["row_leaves"][0]["dtype"] = "uint8"


def _other_entries(values):
    values["segments"][0]["entries"] = {"in/firsts@begins": 1}


def _unknown_entries(values):
    values["segments"][0]["entries"]["in/rows"] = 8


@pytest.mark.parametrize("change", [_without_mark, _mark_of_numbers, _other_entries, _unknown_entries])
def test_a_manifest_whose_marks_are_wrong_is_refused(tmp_path, change):
    saved(tmp_path, 8)
    forged(tmp_path, change)
    with pytest.raises(StorageError, match="contradict"):
        CheckpointStore(tmp_path).at(8)


def test_marks_that_say_otherwise_than_the_manifest_are_not_read(tmp_path):
    store = saved(tmp_path, 8)
    path = next((tmp_path / "rows").iterdir())
    content = bytearray(path.read_bytes())
    at = len(content) - 8 * int(rows_between(0, 8)["in/begins"].sum()) - 8 - 16  # marks, numbers, then rows
    start = content.index(bytes(rows_between(0, 8)["in/begins"].ravel()), int.from_bytes(content[:8], "little"))
    content[start] ^= 1
    assert start >= at - 64
    path.write_bytes(content)

    def follow(values):
        values["segments"][0]["sha256"] = filesystem.hash_file(path)[1]

    forged(tmp_path, follow)
    with pytest.raises(StorageError, match="not those that are marked"):
        store.load(CheckpointStore(tmp_path).at(8)).rows.read(0, 8)


def test_manifests_without_such_leaves_are_as_they_were(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(3, lambda a, b: {"rows": np.arange(a, b)}))
    assert "entries" not in next(tmp_path.glob("*/manifest.json")).read_text()


def test_a_checkpoint_after_the_first_costs_its_new_frames_alone(tmp_path):
    spec, episode, places = picture_spec(3, (16, 16, 3)), 25, 400
    steps = 700
    ends = np.zeros((steps, 2, 1, 2), bool)
    ends[episode - 1 :: episode, 1] = True
    data = stacked(spec, ends)
    ring = FrameRing(spec, [0], num_envs=2, capacity=2 * places, n_step=3, gamma=GAMMA)
    store, before = CheckpointStore(tmp_path), 0
    for stop in (200, 250, 300, 500, 700):
        add_steps(ring, data, before, stop)
        written = {path.name for path in (tmp_path / "rows").glob("*")}
        store.save(Checkpoint(stop, {}, Rows(*ring.row_range, ring.rows), {}))
        new = [path for path in (tmp_path / "rows").iterdir() if path.name not in written]
        pictures = 2 * (stop - before) * (1 + 1 / episode)
        assert sum(path.stat().st_size for path in new) <= pictures * 16 * 16 * 3 * 1.05 + 1000
        before = stop
    loaded = store.load(store.newest()[0])
    again = FrameRing(spec, [0], num_envs=2, capacity=2 * places, n_step=3, gamma=GAMMA)
    again.restore(loaded.rows.first, loaded.rows.stop, loaded.rows.read, {})
    for a, b in zip(again.sample(2, 64, 0).data[:5], ring.sample(2, 64, 0).data[:5], strict=True):
        np.testing.assert_array_equal(a, b)
