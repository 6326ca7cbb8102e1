"""Signals: noted inside the context, ours no longer outside it."""

import signal
import threading

import pytest

from ddpg_jax.runs.signals import SIGNALS, StopRequest


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
        assert stop.signal == number
    assert signal.getsignal(number) == signal.SIG_IGN


@pytest.mark.parametrize("number", SIGNALS)
def test_of_the_second_signals_ctrl_c_alone_aborts(number):
    with StopRequest() as stop:
        signal.raise_signal(number)
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        else:
            signal.raise_signal(number)
        assert stop.signal == number
    assert signal.getsignal(number) == signal.SIG_IGN


def test_a_second_ctrl_c_aborts_whatever_came_between():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_nothing_is_changed():
    seen = []

    def work():
        with StopRequest():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_IGN] * len(SIGNALS)
