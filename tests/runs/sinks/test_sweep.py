"""A sweep is sent as so many runs: each lane, a combination with a seed, has all of its rows once, in order."""

import json
import random

import plain_sink
import pytest
from plain_sink import FailingSink, PlainSink
from sink_readers import BACKENDS, expected, follow, need, part, read

from ddpg_jax.cli.main import main
from ddpg_jax.config import sections
from ddpg_jax.errors import StorageError
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.sinks.record import Lane, SweepRecord
from ddpg_jax.runs.sinks.sweep import Combinations, SweepFollower

SWEEP = """
[config]
seeds = [4, 9]
total_steps = 60
env.id = "jax:pendulum"
[grid]
algorithm.tau = [0.005, 0.05]
"""
LANES = [(number, seed) for number in (0, 1) for seed in (4, 9)]
TURNS = (LANES[:3], LANES[3:])
"""A combination's seeds may run in different turns, each of which begins at step 0."""


def lines():
    for turn in TURNS:
        for step in range(20, 140, 20):
            for event, name in (("update", "loss"), ("evaluation", "mean_return")):
                for number, seed in turn:
                    row = {"combination": number, "event": event, "seed": seed, "step": step, name: step / 7 + number}
                    yield json.dumps(row).encode() + b"\n"


RECORD = list(lines())


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "sweep"
    path.mkdir()
    (path / "sweep.toml").write_text(SWEEP)
    return RunDirectory(path)


def send(directory, sink=PlainSink, *, at_end=True):
    follower = SweepFollower(directory, "plain", sink)
    try:
        while follower.advance(at_end=at_end):
            pass
    finally:
        follower.close()
    return follower.sent


def sent(directory, lane):
    return (directory.followers / part(lane) / "plain.jsonl").read_bytes().splitlines(keepends=True)


def of_lane(lane, record=RECORD):
    return [line for line in record if (json.loads(line)["combination"], json.loads(line)["seed"]) == lane]


def test_each_lane_is_sent_once_and_in_order(directory):
    for kept in (7, 30, len(RECORD)):
        directory.metrics.write_bytes(b"".join(RECORD[:kept]))
        send(directory)
    for lane in LANES:
        assert sent(directory, lane) == of_lane(lane)
        steps = [json.loads(line)["step"] for line in sent(directory, lane)]
        assert steps == sorted(steps)
    assert send(directory) == 0


def test_a_record_that_is_cut_back_and_written_again_is_sent_once(directory):
    chance, written = random.Random(3), 0  # noqa: S311
    for _ in range(12):
        written = min(len(RECORD), max(0, written + chance.randint(-9, 14)))
        directory.metrics.write_bytes(b"".join(RECORD[:written]))
        send(directory, at_end=chance.random() < 0.5)
    directory.metrics.write_bytes(b"".join(RECORD))
    send(directory)
    assert [sent(directory, lane) for lane in LANES] == [of_lane(lane) for lane in LANES]


def test_one_lane_at_a_time_and_none_left_out(directory):
    """So no call takes longer than that of a run does, after which nobody would wait for it."""
    directory.metrics.write_bytes(b"".join(RECORD))
    opened = []

    class Noted(PlainSink):
        def open(self, run, *, resumes):
            opened.append(run.name)
            return super().open(run, resumes=resumes)

    follower = SweepFollower(directory, "plain", Noted)
    for count in range(1, 5):
        assert follower.advance(at_end=True)
        assert len(opened) == count
    assert sorted(opened) == [f"sweep-combination-{number}-seed-{seed}" for number, seed in LANES]
    while follower.advance(at_end=True):
        pass
    follower.close()
    assert follower.sent == len(RECORD)


def test_a_lane_whose_sink_fails_does_not_keep_the_others_waiting(directory):
    directory.metrics.write_bytes(b"".join(RECORD))
    sinks = iter([FailingSink(), *(PlainSink() for _ in LANES)])
    follower = SweepFollower(directory, "plain", lambda: next(sinks))
    with pytest.raises(ConnectionError):
        follower.advance(at_end=True)
    while follower.advance(at_end=True):
        pass
    follower.close()
    assert [sent(directory, lane) for lane in LANES] == [of_lane(lane) for lane in LANES]


def test_one_process_follows_a_sweep_to_a_sink(directory):
    first = SweepFollower(directory, "plain", PlainSink)
    with pytest.raises(StorageError, match="is being used by another process"):
        SweepFollower(directory, "plain", PlainSink)
    first.close()
    SweepFollower(directory, "plain", PlainSink).close()


@pytest.mark.parametrize("most", [1, 7, 10_000])
def test_a_lane_is_read_as_a_file_of_its_own(most, directory):
    directory.metrics.write_bytes(b"".join(RECORD) + b'{"combination": 0, "se')
    record = SweepRecord(directory.metrics)
    record.look()
    assert list(record.lanes) == LANES
    whole = b"".join(of_lane((1, 4)))
    lane = record.lanes[1, 4]
    assert lane.size() == len(whole)
    assert b"".join(lane.read(start, most) for start in range(0, len(whole), most)) == whole
    assert lane.read(len(whole), most) == b""


def test_a_record_in_whose_place_another_is_put_is_split_anew(directory):
    directory.metrics.write_bytes(b"".join(RECORD))
    record = SweepRecord(directory.metrics)
    record.look()
    other = directory.path / "other"
    other.write_bytes(b"".join(RECORD[:9]))
    other.replace(directory.metrics)
    assert record.lanes[0, 4].read(0, 100) == b""  # its places are those of a file that is gone
    record.look()
    assert record.lanes[0, 4].read(0, 10_000) == b"".join(of_lane((0, 4), RECORD[:9]))


def test_a_lane_has_the_configuration_of_a_run(directory):
    config = Combinations(directory.sweep).config(Lane(1, 9))
    assert (config["seeds"], config["algorithm"]["tau"], config["algorithm"]["gamma"]) == ([9], 0.05, 0.99)
    text = SWEEP.replace("[grid]", 'algorithm.name = "of_a_package_that_is_not_here"\n[grid]')
    directory.sweep.write_text(text)
    config = Combinations(directory.sweep).config(Lane(1, 9))
    assert config["algorithm"] == {"name": "of_a_package_that_is_not_here", "tau": 0.05}


@pytest.mark.parametrize("name", BACKENDS)
def test_what_a_sink_holds_of_each_lane_is_the_record(name, directory, tmp_path):
    """The record grows, is cut back, written again, and the follower dies on the way; each time in a new process."""
    need(name)
    (directory.path / "whole.jsonl").write_bytes(b"".join(RECORD))
    for lengths, code in (("-20", 9), (f"14,{len(RECORD)},{len(RECORD)}", 0)):
        done = follow(directory.path, name, lengths, tmp_path)
        assert done.returncode == code, done.stderr
    assert done.stdout.split()[-1] == "0"
    for lane in LANES:
        assert read(name, directory.path, tmp_path, lane) == expected(directory.path, lane)


def test_sync_sends_what_a_sweep_lacks_once(directory, capsys, monkeypatch):
    monkeypatch.setattr(sections, "SINKS", sections.SINKS)
    plain_sink.allow(plain_sink.NAME)
    directory.metrics.write_bytes(b"".join(RECORD))
    for said in (f"{len(RECORD)} rows sent", "nothing new"):
        assert main(["sync", str(directory.path), "--to", plain_sink.NAME]) == 0
        assert said in capsys.readouterr().out
    assert [sent(directory, lane) for lane in LANES] == [of_lane(lane) for lane in LANES]
