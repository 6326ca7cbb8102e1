"""Rows as JSON lines, read back."""

import errno
import hashlib
import json
import os
import resource

import pytest
from rows import ROWS, Full
from tiny_run import read_rows

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.loggers.jsonl import JsonLines, check_record


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


def test_a_file_that_the_system_lets_grow_no_more_neither_blocks_nor_raises(tmp_path):
    limit, said = resource.getrlimit(resource.RLIMIT_FSIZE), []
    sink = JsonLines(tmp_path / "m.jsonl", None, said.append)
    sink.write(ROWS)
    size = (tmp_path / "m.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        for _ in range(3):
            sink.write(ROWS)
        sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert ["its lines are kept" in line for line in said] == [True, False]
    assert "lacks its last" in said[1]
    assert read_rows(tmp_path / "m.jsonl") == ROWS


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


def test_a_record_whose_start_was_changed_is_refused_and_left_as_it_is(tmp_path):
    """A flipped bit, zeros of the same size, and the record of another run."""
    path = tmp_path / "m.jsonl"
    sink = JsonLines(path, 0)
    sink.write(ROWS)
    size, sha256 = sink.sync(), sink.sha256
    sink.close()
    whole = path.read_bytes()
    assert hashlib.sha256(whole).hexdigest() == sha256
    check_record(path, size, sha256)
    check_record(path, size, None)  # of a checkpoint that kept no hash
    for at in range(0, size, 7):
        for changed in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], bytes(size), whole[::-1]):
            path.write_bytes(changed)
            for read in (lambda: JsonLines(path, size, sha256=sha256), lambda: check_record(path, size, sha256)):
                with pytest.raises(StorageError, match="bytes of it were changed"):
                    read()
            assert path.read_bytes() == changed
    path.write_bytes(whole[:-1])
    with pytest.raises(StorageError, match="is shorter than"):
        check_record(path, size, None)


def test_the_hash_goes_on_where_a_file_is_taken_up(tmp_path):
    first, whole = JsonLines(tmp_path / "a", 0), JsonLines(tmp_path / "b", 0)
    first.write(ROWS[:2])
    size, sha256 = first.sync(), first.sha256
    first.write(ROWS[:1])
    first.close()
    again = JsonLines(tmp_path / "a", size, sha256=sha256)
    again.write(ROWS[2:])
    whole.write(ROWS)
    assert (again.sync(), again.sha256) == (whole.sync(), whole.sha256)
    again.close()
    whole.close()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_cut_is_replaced_and_keeps_its_other_names(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n')
    (tmp_path / "copy").hardlink_to(path)
    sink = JsonLines(path, 9)
    sink.write(ROWS[:1])
    sink.close()
    assert (tmp_path / "copy").read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    assert path.read_bytes().startswith(b'{"a": 1}\n{"event')


def test_a_file_that_is_gone_while_it_is_written_is_written_anew(tmp_path):
    said = []
    sink = JsonLines(tmp_path / "m.jsonl", 0, said.append)
    sink.write(ROWS[:2])
    (tmp_path / "m.jsonl").unlink()
    sink.write(ROWS[2:])
    assert sink.sync() == (tmp_path / "m.jsonl").stat().st_size
    assert "was gone and is written anew" in said[0]
    sink.write(ROWS[:1])
    sink.close()
    assert read_rows(tmp_path / "m.jsonl") == ROWS + ROWS[:1]


def test_a_file_whose_place_another_has_taken_is_not_written_over(tmp_path):
    sink = JsonLines(tmp_path / "m.jsonl", 0, lambda line: None)
    sink.write(ROWS)
    (tmp_path / "m.jsonl").unlink()
    (tmp_path / "m.jsonl").write_text("theirs")
    with pytest.raises(StorageError, match="another file has taken its place"):
        sink.sync()
    assert (tmp_path / "m.jsonl").read_text() == "theirs"
    sink.close()


@pytest.mark.parametrize(
    "left", [None, b"", b'{"a": 1}\n{"torn', b'{"a": 1}\n'], ids=["no file", "empty", "torn", "cut"]
)
def test_a_spare_file_goes_on_with_the_whole_lines_that_are_left(tmp_path, left):
    path, said = tmp_path / "t.jsonl", []
    if left is not None:
        path.write_bytes(left)
    with pytest.raises(StorageError, match="but held 100"):
        JsonLines(path, 100)
    sink = JsonLines(path, 100, said.append, spare=True)
    sink.write(ROWS[:1])
    sink.close()
    assert read_rows(path) == [*([{"a": 1}] if left else []), ROWS[0]]
    assert "but held 100; what lacks is lost" in said[0]


def test_links_pipes_and_devices_are_no_records(tmp_path):
    (tmp_path / "outside").write_text("mine\n")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("link", "pipe", "device"):
        for read in (
            lambda path: JsonLines(path, 3),
            lambda path: JsonLines(path),
            lambda path: check_record(path, 3, None),
        ):
            with pytest.raises(StorageError, match=name):
                read(tmp_path / name)
    assert (tmp_path / "outside").read_text() == "mine\n"
