"""The record of a search: gone through again line by line, cut anywhere, and never another one's."""

import json
from contextlib import closing

import pytest

from ddpg_jax.errors import StorageError
from ddpg_jax.training.search.record import TrialsRecord, read_lines

EVENTS = [
    ("asked", {"trial": 0, "values": {"algorithm.tau": 0.1}}, {}),
    ("asked", {"trial": 1, "values": {"algorithm.hidden": [8, 8]}}, {"refused": "it is odd"}),
    ("started", {"pack": "ab", "trials": [0], "until": None}, {}),
    ("ended", {"pack": "ab", "until": None}, {"code": 0}),
    ("scored", {"trial": 0, "step": 7}, {"score": -1.5, "per_seed": [-1.0, -2.0]}),
]


def go_through(path, events=EVENTS):
    """Writes what is not there yet; returns the lines, and of which something had to be found out."""
    asked, lines = [], []
    with closing(TrialsRecord(path)) as record:
        for event, keys, found in events:

            def find_out(event=event, found=found):
                asked.append(event)
                return found

            lines.append(record.once(event, keys, find_out))
    return lines, asked


def test_what_was_found_out_is_not_found_out_again(tmp_path):
    path = tmp_path / "trials.jsonl"
    lines, asked = go_through(path)
    assert lines == [{"event": event, **keys, **found} for event, keys, found in EVENTS]
    assert asked == [event for event, _, _ in EVENTS]
    before = path.read_bytes()
    assert go_through(path) == (lines, [])
    assert path.read_bytes() == before
    assert [json.loads(line).keys() >= {"event", "check"} for line in before.splitlines()] == [True] * 5
    more, asked = go_through(path, [*EVENTS, ("stopped", {"trial": 0, "step": 7}, {})])
    assert (more[:5], asked) == (lines, ["stopped"])
    assert path.read_bytes().startswith(before)


def test_cut_at_every_byte_it_loses_its_last_line_at_most(tmp_path):
    whole = tmp_path / "whole.jsonl"
    lines, _ = go_through(whole)
    content, path = whole.read_bytes(), tmp_path / "cut.jsonl"
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        kept = content[:size].count(b"\n")
        assert read_lines(path)[0] == lines[:kept]
        if size % 40 == 0 or size == len(content):
            assert go_through(path) == (lines, [event for event, _, _ in EVENTS[kept:]])
            assert path.read_bytes() == content


def test_a_line_that_was_changed_doubled_or_lost_is_found(tmp_path):
    path = tmp_path / "trials.jsonl"
    go_through(path)
    pieces = path.read_bytes().splitlines(keepends=True)
    changed = pieces[1].replace(b"8, 8", b"8, 9")
    for wrong in (
        [pieces[0], changed, *pieces[2:]],
        [pieces[0], pieces[0], *pieces[1:]],
        [pieces[0], *pieces[2:]],
        [pieces[0], b"[]\n", *pieces[1:]],
    ):
        path.write_bytes(b"".join(wrong))
        with pytest.raises(
            StorageError, match=r"trials.jsonl, line [12345]: was changed, or a line before it was lost"
        ):
            TrialsRecord(path)


def test_another_search_is_refused(tmp_path):
    path = tmp_path / "trials.jsonl"
    go_through(path)
    other = [EVENTS[0], ("asked", {"trial": 1, "values": {"algorithm.tau": 0.2}}, {})]
    with pytest.raises(StorageError, match=r"line 2: holds .*hidden.*, but this search comes to .*0\.2.*: its file or"):
        go_through(path, other)
    assert path.read_bytes().count(b"\n") == 5


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    with closing(TrialsRecord(tmp_path / "trials.jsonl")) as record, pytest.raises(ValueError, match="JSON"):
        record.once("scored", {"trial": 0}, lambda: {"score": float("nan")})
    assert not (tmp_path / "trials.jsonl").read_bytes()
