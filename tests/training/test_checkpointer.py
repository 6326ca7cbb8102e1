"""When a run is saved, and what if it cannot be."""

from types import SimpleNamespace

import pytest

import ddpg_jax as dj
from ddpg_jax.errors import StorageError
from ddpg_jax.training.checkpointer import MAX_FAILURES, Checkpointer
from ddpg_jax.training.signals import StopRequest


def fail():
    raise StorageError("no room")


def saver_of(monkeypatch, **checkpoint):
    now, said = [0.0], []
    config = dj.load_config(checkpoint=checkpoint).checkpoint
    stop = StopRequest()
    return Checkpointer(config, stop, 0, said.append, clock=lambda: now[0]), now, said, stop


def test_it_is_wanted_at_multiples_but_not_too_often(monkeypatch):
    checkpointer, now, _, stop = saver_of(monkeypatch, every=100, min_seconds=10)
    assert not checkpointer.should_save(150)
    now[0] = 10
    assert not checkpointer.should_save(99)
    assert checkpointer.should_save(100)
    assert checkpointer.should_save(250)
    stop.requested = True
    assert checkpointer.should_save(1)
    assert not saver_of(monkeypatch, every=0, min_seconds=0)[0].should_save(10**9)


def test_a_save_that_fails_is_tried_again_at_longer_intervals_and_not_for_ever(monkeypatch):
    checkpointer, now, said, _ = saver_of(monkeypatch, every=100, min_seconds=0)

    class Full:
        def save(self, checkpoint):
            fail()

    waits = []
    for _ in range(MAX_FAILURES - 1):
        checkpointer.save(Full(), lambda: None)
        before = now[0]
        while not checkpointer.should_save(100):
            now[0] += 1
        waits.append(now[0] - before)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert len(said) == MAX_FAILURES - 1
    assert "no room; trying again in 5 s, training goes on" in said[0]
    with pytest.raises(StorageError, match="10 checkpoints in a row failed"):
        checkpointer.save(Full(), lambda: None)


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_the_last_save_is_tried_three_times(failures, monkeypatch):
    checkpointer, _, said, _ = saver_of(monkeypatch, every=100, min_seconds=0)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    tries = []

    class FullAtFirst:
        def save(self, checkpoint):
            tries.append(checkpoint)
            return fail() if len(tries) <= failures else SimpleNamespace(step=7)

    if failures == 3:
        with pytest.raises(StorageError, match="no room"):
            checkpointer.save_now(FullAtFirst(), lambda: "made")
    else:
        checkpointer.save_now(FullAtFirst(), lambda: "made")
    assert tries == ["made"] * min(failures + 1, 3)
    assert len(said) == min(failures, 2)
