"""What a process is given that is for one run alone; each in a process of its own, as that is settled once for all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpg_jax.memory import available_cores

SCRIPT = """if True:
    import os, sys
    from pathlib import Path
    import jax, jax.numpy as jnp
    from ddpg_jax.loops.start import suit_process
    from ddpg_jax.reading import load_config

    if "in use" in sys.argv:
        jax.devices()
    env, width = sys.argv[1:3]
    before = dict(os.environ)
    suit_process(load_config(env={"id": env}, algorithm={"hidden": [16, int(width)]}))
    assert dict(os.environ) == before
    jax.block_until_ready(jnp.ones((8, 8)) @ jnp.ones((8, 8)))
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    print(sum("XLAEigen" in name for name in names))
"""
CASES = {
    "narrow": (("Pendulum-v1", "127"), {}, 1),
    "wide": (("Pendulum-v1", "128"), {}, available_cores()),
    "device loop": (("jax:pendulum", "127"), {}, available_cores()),
    "asked for": (("Pendulum-v1", "127"), {"NPROC": "3"}, 3),
    "asked for of XLA": (("Pendulum-v1", "127"), {"PJRT_NPROC": "3"}, 3),
    "in use": (("Pendulum-v1", "127", "in use"), {}, available_cores()),
}


@pytest.fixture(scope="module")
def processes():
    """Of all cases, beside each other."""
    bare = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "NPROC", "PJRT_NPROC")}
    started = {
        name: subprocess.Popen([sys.executable, "-c", SCRIPT, *words], env=bare | more, stdout=subprocess.PIPE)
        for name, (words, more, _) in CASES.items()
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not show the threads of a process")
@pytest.mark.parametrize("name", CASES)
def test_narrow_networks_on_the_host_have_one_thread(processes, name):
    said, _ = processes[name].communicate(timeout=120)
    assert int(said) == CASES[name][2]
