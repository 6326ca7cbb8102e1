"""Rows as JSON lines, read back."""

import errno
import json

import pytest
from rows import ROWS, Full
from tiny_run import read_rows

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.loggers.jsonl import JsonLines


def test_rows_are_lines_that_read_back_equal(tmp_path):
    sink = JsonLines(tmp_path / "m.jsonl")
    sink.write(ROWS[:2])
    assert read_rows(tmp_path / "m.jsonl") == ROWS[:2]  # handed over at once, before it is closed
    sink.write([])
    sink.write(ROWS[2:])
    sink.close()
    assert read_rows(tmp_path / "m.jsonl") == ROWS


def test_a_second_sink_appends(tmp_path):
    for row in ROWS:
        sink = JsonLines(tmp_path / "m.jsonl")
        sink.write([row])
        sink.close()
    assert read_rows(tmp_path / "m.jsonl") == ROWS


def test_lines_are_json_without_extensions(tmp_path):
    sink = JsonLines(tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match=r"[Jj]son|JSON"):
        sink.write([ROWS[0] | {"episode_return": float("nan")}])
    sink.close()
    assert (tmp_path / "m.jsonl").read_text() == ""


# --- When they cannot be written.


def test_lines_wait_in_order_while_the_disk_is_full(tmp_path, monkeypatch):
    said = []
    sink = JsonLines(tmp_path / "m.jsonl", 0, said.append)
    sink.write(ROWS[:1])
    disk = Full(monkeypatch, "write")
    sink.write(ROWS[1:2])
    sink.write(ROWS[2:3])
    with pytest.raises(StorageError, match="bytes are still to be written"):
        sink.sync()
    assert [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()] == ROWS[:1]
    assert len(said) == 1
    assert "its lines are kept, training goes on" in said[0]
    disk.full = False
    sink.write(ROWS[3:])
    assert sink.sync() == (tmp_path / "m.jsonl").stat().st_size
    sink.close()
    assert [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()] == ROWS


def test_a_device_that_is_always_full_neither_blocks_nor_raises(tmp_path):
    (tmp_path / "m.jsonl").symlink_to("/dev/full")
    said = []
    sink = JsonLines(tmp_path / "m.jsonl", None, said.append)
    for _ in range(3):
        sink.write(ROWS)
    sink.close()
    assert ["its lines are kept" in line for line in said] == [True, False]
    assert "lacks its last" in said[1]


def test_a_write_that_was_cut_in_the_middle_is_written_over(tmp_path, monkeypatch):
    sink = JsonLines(tmp_path / "m.jsonl", 0, lambda line: None)
    whole, write = sink._file, sink._file.write

    class Torn:
        """Writes ten bytes and fails; the next time it works."""

        def __getattr__(self, name):
            return getattr(whole, name)

        def write(self, content):
            write(content[:10])
            sink._file = whole
            raise OSError(errno.EIO, "torn")

    sink._file = Torn()
    sink.write(ROWS[:2])
    assert (tmp_path / "m.jsonl").stat().st_size == 10
    sink.write(ROWS[2:])
    sink.close()
    assert [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()] == ROWS


def test_a_file_is_cut_back_to_the_offset(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n{"torn')
    sink = JsonLines(path, 9)
    sink.write(ROWS[:1])
    sink.close()
    assert path.read_bytes().startswith(b'{"a": 1}\n{"event')
    with pytest.raises(StorageError, match=r"m\.jsonl holds \d+ bytes, but held 10000"):
        JsonLines(path, 10_000)
