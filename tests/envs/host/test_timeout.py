"""The bound on the time of a call in this process: interrupted where it is, left quiet whatever happens."""

import io
import pdb
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial

import custom_envs as custom
import numpy as np
import pytest

from ddpg_jax.config.schema import Config
from ddpg_jax.envs.factory import make_training_envs
from ddpg_jax.envs.host import timeout
from ddpg_jax.envs.host.timeout import Timeout
from ddpg_jax.envs.host.vector import VectorEnv
from ddpg_jax.errors import EnvironmentFault

ZEROS = np.zeros((2, 2, 2), np.float32)
WHERE = "environment 1 of seed number 0"  # lane 1 of [2, 2]
NO_ANSWER = r"TimeoutError: no answer within 0\.2 s \(env\.timeout\)"


def _spin():
    while True:
        pass


def _swallow():
    """Hides the first two interruptions."""
    for _ in range(2):
        with suppress(TimeoutError):
            _spin()
    _spin()


WAITS = {
    "sleeps": partial(time.sleep, 60),
    "spins": _spin,
    "waits": lambda: threading.Event().wait(60),
    "hides": _swallow,
}


def _quiet():
    return signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("waits", WAITS)
def test_what_takes_too_long_is_interrupted_wherever_it_is(waits):
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"), Timeout(0.1):
        WAITS[waits]()
    assert 0.1 <= time.monotonic() - began < 5
    assert _quiet()


def test_what_ends_in_time_hears_nothing_and_nothing_rings_after_it():
    alarm = Timeout(0.2)
    for _ in range(3):
        with alarm:
            time.sleep(0.1)
        assert _quiet()
    time.sleep(0.3)
    with pytest.raises(KeyError), alarm:
        raise KeyError("its own error")
    assert _quiet()


def test_an_alarm_that_rings_while_it_is_set_or_taken_back_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(timeout, "_PARTS", 1)  # so that each would interrupt
    own = {Timeout.__enter__.__code__, Timeout.__exit__.__code__}
    tracer, lines = sys.gettrace(), []

    def ring(frame, event, _):
        if frame.f_code in own:
            lines.append((frame.f_code.co_name, event))
            signal.getsignal(signal.SIGALRM)(signal.SIGALRM, frame)
            signal.getsignal(signal.SIGALRM)(signal.SIGALRM, sys._getframe())  # of another handler that runs there
            return ring
        return None

    sys.settrace(ring)
    try:
        with Timeout(60):
            pass
    finally:
        sys.settrace(tracer)
    assert {(name, event) for name in ("__enter__", "__exit__") for event in ("call", "line", "return")} <= set(lines)
    assert _quiet()


SUSPENDED = """
import time
from ddpg_jax.envs.host.timeout import Timeout
with Timeout(1.6):
    print("begun", flush=True)
    for _ in range(60):
        time.sleep(0.01)
print("ended in time")
"""


def test_time_stands_still_while_the_process_is_suspended():
    process = subprocess.Popen([sys.executable, "-c", SUSPENDED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.0)
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate(timeout=60)
    assert said == "ended in time\n"


def test_no_time_bounds_nothing():
    with Timeout(None):
        assert _quiet()


def test_another_thread_is_not_bounded():
    alarm, seen = Timeout(0.05), []

    def work(alarm):
        with alarm:
            seen.append(_quiet())
            time.sleep(0.2)

    for chosen in (lambda: alarm, lambda: Timeout(0.05)):
        thread = threading.Thread(target=lambda chosen=chosen: work(chosen()))
        thread.start()
        thread.join()
    assert seen == [True, True]


def test_the_handler_of_another_is_left_alone():
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        with Timeout(0.05):
            assert _quiet()
            time.sleep(0.1)
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGALRM, before)


class _Slow(io.StringIO):
    """A user who thinks before every line."""

    def readline(self, *arguments):
        time.sleep(0.3)
        return super().readline(*arguments)


def test_who_looks_at_what_is_left_of_a_run_is_not_interrupted():
    with Timeout(0.1):
        try:
            raise KeyError("lost")
        except KeyError as error:
            debugger = pdb.Pdb(stdin=_Slow("p 3 * 7\nq\n"), stdout=(said := io.StringIO()))
            debugger.reset()
            debugger.interaction(None, error.__traceback__)
    assert "21" in said.getvalue()


def test_who_sits_at_a_debugger_is_not_interrupted():
    tracer = sys.gettrace()
    try:
        with Timeout(0.1):
            pdb.Pdb(stdin=_Slow("p 3 * 7\nc\n"), stdout=(said := io.StringIO())).set_trace()
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    finally:
        sys.settrace(tracer)
    assert "21" in said.getvalue()


@pytest.mark.parametrize(("step", "doing"), [(2, ("", r"step 2, action \[")), (-1, ("reset ", r"step 0\)"))])
def test_an_environment_that_hangs_in_this_process_is_named_after_its_time(step, doing):
    lanes = VectorEnv(partial(custom.Faulty, "hangs", lane=1, step=step), (2, 2), custom.lane_seed, timeout=0.2)

    def run():
        lanes.reset()
        for _ in range(3):
            lanes.step(ZEROS)

    with pytest.raises(EnvironmentFault, match=f"{WHERE} {doing[0]}raised {NO_ANSWER} .*, {doing[1]}"):
        run()
    assert _quiet()


def test_the_time_is_that_of_the_configuration(monkeypatch):
    config = Config.model_validate({"env": {"timeout": 0.2}})
    lanes = make_training_envs(config)
    lead = lanes.reset().shape[:2]
    monkeypatch.setattr("gymnasium.envs.classic_control.pendulum.PendulumEnv.step", lambda self, action: time.sleep(60))
    with pytest.raises(EnvironmentFault, match=NO_ANSWER):
        lanes.step(np.zeros((*lead, 1), np.float32))
