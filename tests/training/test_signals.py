"""Signals: noted inside the context, ours no longer outside it."""

import gc
import signal
import sys
import threading
import time

import pytest

from ddpg_jax.training.signals import SIGNALS, StopRequest


@pytest.fixture(autouse=True)
def deaf():
    """Where a request does not take a signal, the tests go on."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_the_handler_before_comes_back(number):
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
    assert signal.getsignal(number) == signal.SIG_IGN


@pytest.mark.parametrize("between", [(), (signal.SIGTERM,)], ids=["at once", "after another signal"])
def test_a_second_ctrl_c_aborts(between):
    with StopRequest() as stop:
        for number in (signal.SIGINT, *between):
            signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


class InItself:
    """Rings when it is collected, at which errors are printed and not raised."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def _start_slowly(thread, start=threading.Thread.start):
    start(thread)
    time.sleep(0.1)


@pytest.mark.parametrize("start", [threading.Thread.start, _start_slowly])
def test_a_second_ctrl_c_is_not_lost_where_the_garbage_collector_calls(start, monkeypatch):
    """Nor where the machine is so busy that it comes again while the first one is still looked at."""
    monkeypatch.setattr(threading.Thread, "start", start)

    def collect():
        InItself()
        gc.collect()
        for _ in range(5000):
            time.sleep(0.001)

    before = sys.unraisablehook
    gc.freeze()  # what other tests have left, which would be looked through for seconds
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                collect()
            assert stop.requested
    finally:
        gc.unfreeze()
    assert sys.unraisablehook is before


def test_other_errors_that_cannot_be_raised_go_where_they_went(monkeypatch):
    class Broken:
        def __init__(self, error):
            self.error = error

        def __del__(self):
            raise self.error

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda error: seen.append(error.exc_type))
    with StopRequest():
        Broken(ValueError)
        Broken(KeyboardInterrupt)
        signal.raise_signal(signal.SIGINT)
        Broken(ValueError)
    assert seen == [ValueError, KeyboardInterrupt, ValueError]


@pytest.mark.parametrize("second", SIGNALS)
def test_after_the_end_that_a_system_asks_for_no_signal_aborts(second):
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(second)
        assert stop.requested


def test_outside_the_main_thread_nothing_is_changed():
    seen = []

    def work():
        with StopRequest():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_IGN] * len(SIGNALS)


def test_a_request_inside_another_is_that_one_and_what_it_heard_counts():
    with StopRequest() as outer:
        signal.raise_signal(signal.SIGTERM)
        with StopRequest() as inner:
            assert inner is outer
            assert inner.requested
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    with StopRequest() as stop:
        assert not stop.requested


def test_a_command_that_hears_no_signals_leaves_them_to_the_system():
    came = []
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    StopRequest.leave_to_system()
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert (stop.requested, came) == (True, [])
        StopRequest.leave_to_system()
        assert came == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
    assert came == [signal.SIGTERM] * 2
