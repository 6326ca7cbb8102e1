"""Each row is sent once: wherever a follower is killed, however far the record is cut back, whatever comes after."""

import errno
import json
import random

import pytest
from plain_sink import FailingSink, PlainSink

from ddpg_jax.errors import StorageError
from ddpg_jax.runs import filesystem
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.sinks.follower import Follower
from ddpg_jax.runs.sinks.position import read_positions
from ddpg_jax.runs.sinks.sink import points


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


def lines_of(step, seeds=(4, 9), value=1.0):
    rows = [{"event": "update", "seed": seed, "step": step, "updates": step, "loss": value * step} for seed in seeds]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


RECORD = [lines_of(step) for step in range(20, 260, 20)]


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.toml").write_text('[env]\nid = "Pendulum-v1"\n[algorithm]\nname = "ddpg"\n')
    return RunDirectory(path)


def follow(directory, sink=PlainSink, *, at_end=True, close=True):
    follower = Follower(directory, "plain", sink)
    try:
        while follower.advance(at_end=at_end):
            pass
    finally:
        if close:
            follower.close()
        else:
            follower._lock.release()
    return follower.sent


def sent(directory):
    path = directory.followers / "plain.jsonl"
    return path.read_bytes() if path.exists() else b""


def test_what_was_sent_is_not_sent_again(directory):
    directory.metrics.write_bytes(b"".join(RECORD[:5]))
    assert follow(directory) == 10
    assert follow(directory) == 0
    directory.metrics.write_bytes(b"".join(RECORD))
    assert follow(directory) == 2 * len(RECORD) - 10
    assert sent(directory) == b"".join(RECORD)


def test_a_step_is_sent_when_it_is_whole(directory):
    whole = b"".join(RECORD[:3])
    follower = Follower(directory, "plain", PlainSink)
    assert not follower.advance(at_end=False)  # there is no record yet
    directory.metrics.write_bytes(whole[:-30])
    assert follower.advance(at_end=False)
    assert sent(directory) == b"".join(RECORD[:2])
    assert not follower.advance(at_end=False)
    directory.metrics.write_bytes(whole)
    assert not follower.advance(at_end=False)  # it may still grow
    assert follower.advance(at_end=False)  # it has not
    follower.close()
    assert sent(directory) == whole


def test_steps_of_more_bytes_than_are_read_at_once_stay_together(directory, monkeypatch):
    monkeypatch.setattr("ddpg_jax.runs.sinks.follower._PIECE", 64)
    directory.metrics.write_bytes(b"".join(RECORD))
    assert follow(directory) == 2 * len(RECORD)
    assert sent(directory) == b"".join(RECORD)


@pytest.mark.parametrize("cut", [0, 3, 6])
def test_a_record_that_is_cut_back_and_written_again_is_sent_once(cut, directory):
    directory.metrics.write_bytes(b"".join(RECORD[:6]))
    follow(directory, close=False)
    directory.metrics.write_bytes(b"".join(RECORD[:cut]))
    assert follow(directory) == 0
    directory.metrics.write_bytes(b"".join(RECORD))
    follow(directory)
    assert sent(directory) == b"".join(RECORD)


@pytest.mark.parametrize("fault", [0, 1, 2, 4])
def test_kills_at_every_call_of_the_system(fault, directory, monkeypatch):
    """The record grows, is cut back and written again, and the follower dies at the n-th call of each of its lives."""
    chance = random.Random(fault)  # noqa: S311
    written, calls = 0, 0

    def count(operation, path):
        nonlocal calls
        calls -= path.parent == directory.followers and not calls < 0
        if calls == 0 and path.parent == directory.followers:
            raise KilledError

    monkeypatch.setattr(filesystem, "fault_point", count)
    kills = 0
    for _ in range(30):
        written = min(len(RECORD), max(0, written + chance.randint(-2, 3)))
        directory.metrics.write_bytes(b"".join(RECORD[:written]))
        calls = fault + chance.randint(1, 8)
        try:
            follow(directory, at_end=chance.random() < 0.5, close=chance.random() < 0.5)
        except KilledError:
            kills += 1
    calls = -1
    directory.metrics.write_bytes(b"".join(RECORD))
    follow(directory)
    assert sent(directory) == b"".join(RECORD)
    assert kills > 5


def test_a_kill_between_sending_and_noting_sends_nothing_twice(directory):
    class Killed(PlainSink):
        def send(self, rows, when, *, again):
            super().send(rows, when, again=again)
            raise KilledError

    directory.metrics.write_bytes(b"".join(RECORD[:4]))
    with pytest.raises(KilledError):
        follow(directory, Killed, close=False)
    assert sent(directory) == b"".join(RECORD[:4])
    directory.metrics.write_bytes(b"".join(RECORD))
    assert follow(directory) == 2 * len(RECORD)
    assert sent(directory) == b"".join(RECORD)


def test_where_a_record_goes_on_otherwise_later_steps_alone_are_sent(directory):
    directory.metrics.write_bytes(b"".join(RECORD[:6]))  # up to 120
    follow(directory)
    other = [lines_of(step, value=2.0) for step in range(30, 300, 30)]
    directory.metrics.write_bytes(b"".join(RECORD[:2] + other[1:]))
    follow(directory)
    assert sent(directory) == b"".join(RECORD[:6] + other[4:])
    assert follow(directory) == 0


def test_a_record_that_is_shorter_in_the_end_is_sent_from_the_next_step(directory):
    directory.metrics.write_bytes(b"".join(RECORD[:6]))
    follow(directory)
    directory.metrics.write_bytes(lines_of(100) + lines_of(200))
    directory.result.write_text("{}")
    follow(directory)
    assert sent(directory) == b"".join(RECORD[:6]) + lines_of(200)


def test_a_sink_that_has_lost_its_rows_gets_all_of_them(directory):
    directory.metrics.write_bytes(b"".join(RECORD))
    follow(directory)
    (directory.followers / "plain.jsonl").unlink()
    directory.metrics.write_bytes(b"".join([*RECORD, lines_of(500)]))
    assert follow(directory) == 2 * len(RECORD) + 2
    assert sent(directory) == b"".join([*RECORD, lines_of(500)])


def test_what_may_not_have_arrived_is_looked_after(directory):
    """A sink with a queue loses what it holds when it is killed; the next one is asked, even if no row was added."""
    directory.metrics.write_bytes(b"".join(RECORD))
    follow(directory, close=False)
    (directory.followers / "plain.jsonl").unlink()
    assert follow(directory) == 2 * len(RECORD)
    (directory.followers / "plain.jsonl").unlink()
    assert follow(directory) == 0  # it was closed: there is nothing to ask


def test_a_sink_that_failed_is_tried_again(directory):
    directory.metrics.write_bytes(b"".join(RECORD))
    sinks = iter([FailingSink(), FailingSink(), PlainSink()])
    follower = Follower(directory, "plain", lambda: next(sinks))
    for _ in range(2):
        with pytest.raises(ConnectionError):
            follower.advance(at_end=True)
    while follower.advance(at_end=True):
        pass
    follower.close()
    assert sent(directory) == b"".join(RECORD)


def test_a_disk_that_is_full_for_a_while_costs_no_row(directory, monkeypatch):
    directory.metrics.write_bytes(b"".join(RECORD))
    follower, left = Follower(directory, "plain", PlainSink), 9

    def full(operation, path):
        nonlocal left
        if operation == "write" and path.parent == directory.followers and (left := left - 1) > 0:
            raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(filesystem, "fault_point", full)
    failures = 0
    for _ in range(20):
        try:
            while follower.advance(at_end=True):
                pass
        except OSError:
            failures += 1
    follower.close()
    assert failures == 8
    assert sent(directory) == b"".join(RECORD)


def test_one_process_follows_a_run_to_a_sink(directory):
    first = Follower(directory, "plain", PlainSink)
    with pytest.raises(StorageError, match="is being used by another process"):
        Follower(directory, "plain", PlainSink)
    first.close()
    Follower(directory, "plain", PlainSink).close()


def test_files_that_are_no_positions_are_refused(directory, tmp_path):
    directory.followers.mkdir()
    (directory.followers / "plain.json").write_text('{"id": "../../etc", "destinations": {}}')
    with pytest.raises(StorageError, match=r"plain\.json"):
        read_positions(directory.followers / "plain.json")
    elsewhere = RunDirectory(tmp_path / "other")
    elsewhere.path.mkdir()
    elsewhere.followers.symlink_to(directory.followers)
    with pytest.raises(StorageError, match="is a link"):
        Follower(elsewhere, "plain", PlainSink)


def test_points_of_rows():
    rows = [
        {"event": "episode", "seed": 4, "step": 15, "env": 0, "episode": 0, "episode_return": 1.0},
        {"event": "episode", "seed": 4, "step": 15, "env": 1, "episode": 0, "episode_return": 4.0},
        {"event": "evaluation", "seed": 9, "step": 15, "mean_return": 2.0, "returns": [1.0, 3.0]},
        {"event": "diverged", "seed": 9, "step": 30, "updates": 3},
    ]
    assert points(rows) == [
        (15, {"episode/episode_return/seed-4": 2.5, "evaluation/mean_return/seed-9": 2.0}),
        (30, {}),
    ]
