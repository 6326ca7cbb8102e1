"""Lanes in worker processes against lanes in this one; what happens when workers fail."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path

import custom_envs as custom
import numpy as np
import pytest

from ddpg_jax.config.load import load_config
from ddpg_jax.envs.factory import make_evaluation_envs, make_training_envs
from ddpg_jax.envs.host import workers
from ddpg_jax.envs.host.make import describe, make_env
from ddpg_jax.envs.host.vector import VectorEnv, training_seeds
from ddpg_jax.envs.host.workers import SubprocVectorEnv
from ddpg_jax.errors import EnvironmentFault, Interrupted

BLOCK = r"/dev/shm/\S+"  # noqa: S108 - where Linux keeps shared memory
NEVER = 300.0  # seconds; a test that waits for it fails
ZEROS = np.zeros((2, 3, 2), np.float32)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def _blocks():
    """Shared memory this process has mapped."""
    return set(re.findall(BLOCK, Path("/proc/self/maps").read_text()))


@contextmanager
def _workers(make, shape=(2, 3), workers=2, timeout=NEVER, episode_seed=custom.lane_seed):
    """Lanes in workers, of which nothing is left in the end."""
    before, lanes = _blocks(), None
    lanes = SubprocVectorEnv(make, shape, episode_seed, spec=describe(make()), workers=workers, timeout=timeout)
    blocks, processes = _blocks() - before, multiprocessing.active_children()
    try:
        assert len(processes) == workers
        assert all(Path(block).exists() for block in blocks)
        assert len(blocks) == 1
        yield lanes
    finally:
        lanes.close()
    assert not multiprocessing.active_children()
    assert not any(Path(block).exists() for block in blocks)


def _faulty(fault, lane=4, step=1):
    return partial(custom.Faulty, fault, lane=lane, step=step)


def test_workers_give_the_numbers_of_one_process():
    make, shape, seeds = partial(make_env, "Pendulum-v1", 7, {}), (5, 1), training_seeds([4, 3, 2, 1, 0], 1)
    rng = np.random.default_rng(0)
    here = VectorEnv(make, shape, seeds)
    with _workers(make, shape, episode_seed=seeds) as there:
        assert there.spec == here.spec
        np.testing.assert_array_equal(there.reset(), here.reset())
        ends = 0
        for t in range(120):
            action = rng.uniform(-1, 1, (*shape, 1)).astype(np.float32)
            active = rng.random(shape) < 0.7 if t % 3 == 2 else None
            one, other = here.step(action, active), there.step(action, active)
            for name, x, y in zip(one._fields, one, other, strict=True):
                np.testing.assert_array_equal(x, y, err_msg=f"{name} of step {t}")
                assert x.dtype == y.dtype
            ends += one.truncated.sum()
        assert ends > 50
        kept, copy = other.next_obs, other.next_obs.copy()
        there.step(action)
        np.testing.assert_array_equal(kept, copy)  # what was returned has memory of its own
        np.testing.assert_array_equal(there.reset(), here.reset())


def test_each_worker_has_a_part_of_the_lanes_in_order():
    with _workers(custom.Who, (2, 3), workers=4) as lanes:
        obs = lanes.reset().reshape(6, 3)
        assert obs[:, 1].tolist() == [0, 1000, 2000, 3000, 4000, 5000]
        pids = obs[:, 0].astype(int).tolist()
        assert len(set(pids)) == 4
        assert pids == sorted(pids, key=pids.index)  # parts are contiguous
        assert os.getpid() not in pids
    assert not any(map(_alive, pids))


def test_the_configuration_decides_where_lanes_run():
    config = load_config(env={"id": "Pendulum-v1", "num_envs": 3, "workers": 1}, seeds=[5])
    alone = load_config(env={"id": "Pendulum-v1", "num_envs": 3}, seeds=[5])
    with closing(make_training_envs(config)) as there, closing(make_training_envs(alone)) as here:
        assert (type(there), type(here)) == (SubprocVectorEnv, VectorEnv)
        np.testing.assert_array_equal(there.reset(), here.reset())
    with closing(make_evaluation_envs(alone, 4)) as lanes:
        assert lanes.reset().shape == (1, 4, 3)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("observation nan", r"environment 1 of seed number 1 .*component \(1,\) = nan .*seed 4000"),
        ("raises", r"environment 1 of seed number 1 raised RuntimeError: the arm came off .*seed 4000, step 1"),
        ("exits", r"lanes 3 to 5.* ended with 7"),
        ("killed", r"lanes 3 to 5.* was ended by SIGKILL"),
    ],
)
def test_what_happens_in_a_worker_is_reported_with_its_lanes(fault, message):
    with _workers(_faulty(fault)) as lanes:
        lanes.reset()
        lanes.step(ZEROS)
        with pytest.raises(EnvironmentFault, match=message):
            lanes.step(ZEROS)


def test_a_fault_at_the_reset_is_reported():
    with (
        _workers(_faulty("shape longer", lane=0, step=-1)) as lanes,
        pytest.raises(EnvironmentFault, match=r"environment 0 of seed number 0 .*shape \(4,\).*episode 0"),
    ):
        lanes.reset()


def test_lanes_that_were_closed_are_of_no_use():
    with _workers(custom.Walk) as lanes:
        lanes.close()
        for use in (lanes.reset, partial(lanes.step, ZEROS)):
            with pytest.raises(EnvironmentFault, match="were closed; make new lanes"):
                use()


def test_an_action_that_is_not_finite_is_refused():
    action = ZEROS.copy()
    action[1, 2, 0] = np.nan
    with _workers(custom.Walk) as lanes:
        lanes.reset()
        with pytest.raises(EnvironmentFault, match=r"action .*not finite"):
            lanes.step(action)


@pytest.mark.parametrize("gone", [False, True], ids=["is ending", "has ended"])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_killed_between_two_steps_is_reported(victim, gone):
    with _workers(custom.Who) as lanes:
        pids = lanes.reset()[:, 0, 0].astype(int).tolist()  # one seed each
        os.kill(pids[victim], signal.SIGKILL)
        while gone and _alive(pids[victim]):
            time.sleep(0.01)
        with pytest.raises(EnvironmentFault, match=f"lanes {3 * victim} to {3 * victim + 2}.* SIGKILL"):
            lanes.step(ZEROS)
    assert not any(map(_alive, pids))


def test_a_signal_to_the_whole_group_is_left_to_the_parent():
    with _workers(custom.Walk) as lanes:
        lanes.reset()
        everyone = [process.pid for process in multiprocessing.active_children()]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            for pid in everyone:
                os.kill(pid, number)
        time.sleep(0.2)
        lanes.step(ZEROS)
        os.kill(resource_tracker._resource_tracker._pid, signal.SIGUSR1)
        time.sleep(0.2)
        assert _alive(resource_tracker._resource_tracker._pid)


def test_a_worker_that_hangs_is_reported_after_the_time_given_and_ended():
    with _workers(_faulty("hangs", step=0), timeout=3.0) as lanes:
        lanes.reset()
        began = time.monotonic()
        with pytest.raises(EnvironmentFault, match=r"lanes 3 to 5.* did not answer within 3 s"):
            lanes.step(ZEROS)
        assert 3 <= time.monotonic() - began < 10
        assert len(multiprocessing.active_children()) == 2  # close has to end it


def test_the_time_of_a_worker_stands_still_while_all_is_suspended(monkeypatch):
    """What was waited for was not there yet when the process went on: a wait took long, and heard nothing."""
    suspended, really = [True], workers.wait

    def wait(pipes, timeout):
        if suspended:
            suspended.clear()
            time.sleep(3.5)
            return []
        return really(pipes, timeout)

    with _workers(custom.Walk, timeout=3.0) as lanes:
        lanes.reset()
        monkeypatch.setattr(workers, "wait", wait)
        lanes.step(ZEROS)
        assert not suspended


def test_a_worker_is_missed_though_what_it_started_holds_its_pipe_open():
    with _workers(custom.Forks, shape=(1, 1), workers=1) as lanes:
        lanes.reset()
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(EnvironmentFault, match=r"lanes 0 to 0.* SIGKILL"):
            lanes.step(np.zeros((1, 1, 2), np.float32))
        assert time.monotonic() - began < 8


def test_an_environment_that_cannot_be_made_in_a_worker_is_reported_and_nothing_is_left():
    before = _blocks()
    make = partial(custom.Refused, "degenerate action")
    with pytest.raises(EnvironmentFault, match=r"component 1 has bounds \[2\.0, 2\.0\]"):
        SubprocVectorEnv(make, (2, 1), custom.lane_seed, spec=describe(custom.Walk()), workers=2, timeout=NEVER)
    assert not multiprocessing.active_children()
    assert _blocks() == before


def test_a_stop_is_heard_while_a_worker_is_waited_for():
    asked, stopped = [], time.monotonic() + 1e9

    def stop():
        asked.append(time.monotonic())
        return asked[-1] > stopped

    make = _faulty("hangs", step=0)
    with closing(
        SubprocVectorEnv(
            make, (2, 3), custom.lane_seed, spec=describe(custom.Walk()), workers=2, timeout=NEVER, stop=stop
        )
    ) as lanes:
        lanes.reset()
        stopped = time.monotonic() + 0.3
        with pytest.raises(Interrupted, match="worker processes were waited for"):
            lanes.step(ZEROS)
        assert time.monotonic() - stopped < 2
    assert not multiprocessing.active_children()


NOTEBOOK = """
import gymnasium, numpy as np
from gymnasium.spaces import Box

class Mine(gymnasium.Env):
    observation_space, action_space = Box(-9, 9, (3,), np.float32), Box(-1, 1, (2,), np.float32)
    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(3, np.float32), {}
    def step(self, action):
        self.t += 1
        return np.full(3, self.t, np.float32), 0.5, False, False, {}

gymnasium.register("Mine-v0", Mine)
from ddpg_jax.config.load import load_config
from ddpg_jax.envs.factory import make_training_envs
config = load_config(seeds=2, env={"id": "Mine-v0", "max_episode_steps": 5, "workers": 2})
lanes = make_training_envs(config)
lanes.reset()
print(lanes.step(np.zeros((2, 1, 2), np.float32)).obs.tolist())
lanes.close()
"""


@pytest.mark.parametrize("way", ["standard input", "script"])
def test_workers_know_what_the_program_has_defined_and_registered(way, tmp_path):
    """As typed into `python -` or a notebook, or in a script that does not ask whether it is the main one."""
    (tmp_path / "script.py").write_text(NOTEBOOK)
    words = {"standard input": ["-"], "script": [str(tmp_path / "script.py")]}[way]
    done = subprocess.run(
        [sys.executable, *words], input=NOTEBOOK, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[[[1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]]]\n"


def test_what_cannot_be_handed_to_a_worker_is_told_and_nothing_is_left():
    before = _blocks()
    with open(os.devnull) as file, pytest.raises(EnvironmentFault, match="cannot be handed to a worker process"):
        SubprocVectorEnv(
            lambda: custom.Walk(file),
            (2, 1),
            custom.lane_seed,
            spec=describe(custom.Walk()),
            workers=2,
            timeout=9,
        )
    assert not multiprocessing.active_children()
    assert _blocks() == before


SCRIPT = """
import multiprocessing, os, pathlib, re, signal, sys, threading
from functools import partial
import custom_envs as custom, numpy as np
from ddpg_jax.envs.host.make import describe
from ddpg_jax.envs.host.workers import SubprocVectorEnv
hangs = sys.argv[1] == "kill while they hang"
make = partial(custom.Faulty, "hangs", lane=1, step=0) if hangs else custom.Who
lanes = SubprocVectorEnv(make, (2, 1), custom.lane_seed, spec=describe(make()), workers=2, timeout=60.0)
lanes.reset()
print(*(process.pid for process in multiprocessing.active_children()), flush=True)
print(*set(re.findall(r"/dev/shm/\\S+", pathlib.Path("/proc/self/maps").read_text())), flush=True)
if hangs:
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
lanes.step(np.zeros((2, 1, 2), np.float32))
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "close":
    lanes.close()
"""


@pytest.mark.parametrize(("end", "code"), [("close", 0), ("forget", 0), ("kill", -9), ("kill while they hang", -9)])
def test_when_the_process_ends_so_do_its_workers_and_its_memory(end, code):
    environment = os.environ | {"PYTHONPATH": str(Path(custom.__file__).parent), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, end], env=environment, capture_output=True, text=True, timeout=60
    )
    pids, blocks = (line.split() for line in done.stdout.splitlines())
    assert (done.returncode, len(pids), len(blocks)) == (code, 2, 1), done.stderr
    if end == "close":
        assert done.stderr == ""  # the tracker of shared memory found nothing to complain of
    left = []
    for _ in range(200):  # orphans and the tracker see the end of their parent by themselves
        left = [*filter(_alive, pids), *(block for block in blocks if Path(block).exists())]
        if not left:
            break
        time.sleep(0.05)
    assert not left


def test_workers_begin_the_episodes_that_are_asked_for():
    episode, active = np.array([[3, 0, 2], [7, 1, 0]]), np.array([[1, 0, 0], [1, 1, 0]]) > 0
    with _workers(custom.Walk) as lanes, closing(VectorEnv(custom.Walk, (2, 3), custom.lane_seed)) as plain:
        for each in (lanes, plain):
            each.reset()
            each.step(ZEROS)
        np.testing.assert_array_equal(lanes.reset(episode, active), plain.reset(episode, active))
        np.testing.assert_array_equal(lanes.reset(episode), plain.reset(episode))
        np.testing.assert_array_equal(lanes.reset(), plain.reset())


def _until_it_fails(lanes):
    while True:
        lanes.step(ZEROS)


@pytest.mark.slow
def test_twenty_workers_that_are_killed_are_each_reported_within_two_seconds():
    chance, longest = np.random.default_rng(3), 0.0
    for _ in range(20):
        with _workers(custom.Who) as lanes:
            pids = lanes.reset()[:, 0, 0].astype(int).tolist()
            victim = int(chance.integers(2))
            time.sleep(chance.uniform(0, 0.05))
            os.kill(pids[victim], signal.SIGKILL)
            began = time.monotonic()
            with pytest.raises(EnvironmentFault, match=f"lanes {3 * victim} to {3 * victim + 2}.* SIGKILL"):
                _until_it_fails(lanes)
            longest = max(longest, time.monotonic() - began)
        assert not any(map(_alive, pids))
    print(f"20 kills, the longest until it was reported {longest:.3f} s")
    assert longest < 2.0
