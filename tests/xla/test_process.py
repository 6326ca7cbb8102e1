"""What a process is given that is for one run alone; each in a process of its own, as that is settled once for all."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpg_jax.xla.memory import available_cores
from ddpg_jax.xla.tuning import MAX_ROWS, MAX_SEEDS

SCRIPT = """if True:
    import os, sys
    from contextlib import suppress
    from pathlib import Path
    import jax, jax.numpy as jnp
    from ddpg_jax.xla.tuning import MAX_CRITICS, configure_process
    from ddpg_jax.config.load import load_config

    if "in use" in sys.argv:
        jax.devices()
    env, width, rows, seeds, *more = sys.argv[1:]
    critics, shared = MAX_CRITICS + ("many critics" in more), ("shared" in more) + 1
    before = dict(os.environ)
    algorithm = {"name": "td3", "num_critics": critics, "hidden": [16, int(width)], "batch_size": int(rows)}
    config = load_config(seeds=int(seeds), env={"id": env}, algorithm=algorithm, data_parallel=shared)
    configure_process(config, tune_process="beside others" not in sys.argv)
    assert dict(os.environ) == before
    jax.block_until_ready(jnp.ones((8, 8)) @ jnp.ones((8, 8)))
    names = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has just ended
            names.append((task / "comm").read_text())
    print(sum("XLAEigen" in name for name in names))
"""
BARE = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "NPROC", "PJRT_NPROC")}
MOST = (str(MAX_ROWS), str(MAX_SEEDS))
CASES = {
    "narrow": (("Pendulum-v1", "127", *MOST), {}, 1),
    "wide": (("Pendulum-v1", "128", *MOST), {}, available_cores()),
    "large batches": (("Pendulum-v1", "127", str(MAX_ROWS + 1), MOST[1]), {}, available_cores()),
    "many seeds": (("Pendulum-v1", "127", MOST[0], str(MAX_SEEDS + 1)), {}, available_cores()),
    "device loop, many seeds": (("jax:pendulum", "127", *MOST), {}, available_cores()),
    "device loop, a seed": (("jax:pendulum", "127", MOST[0], "1"), {}, 1),
    "device loop, shared batches": (("jax:pendulum", "127", MOST[0], "1", "shared"), {}, available_cores()),
    "many critics": (("Pendulum-v1", "127", *MOST, "many critics"), {}, available_cores()),
    "device loop, wide": (("jax:pendulum", "128", MOST[0], "1"), {}, available_cores()),
    "asked for": (("Pendulum-v1", "127", *MOST), {"NPROC": "3"}, 3),
    "asked for of XLA": (("Pendulum-v1", "127", *MOST), {"PJRT_NPROC": "3"}, 3),
    "beside others": (("Pendulum-v1", "127", *MOST, "beside others"), {}, available_cores()),
    "in use": (("Pendulum-v1", "127", *MOST, "in use"), {}, available_cores()),
}
TRAINING = """if True:
    import sys
    import ddpg_jax as dj
    from ddpg_jax.xla.tuning import MAX_CRITICS, MAX_ROWS
    identifier, seeds, replay, threads, path = sys.argv[1:]
    learner = {"name": "td3", "hidden": [127, 127], "batch_size": MAX_ROWS, "warmup_steps": 100}
    learner |= {"num_critics": MAX_CRITICS}
    evaluation, replay = {"every": 0, "episodes": 1}, {"kind": replay, "capacity": 20000}
    config = dj.load_config(
        seeds=int(seeds),
        total_steps=150,
        env={"id": identifier},
        algorithm=learner,
        replay=replay,
        evaluation=evaluation,
    )
    dj.train(config, path, tune_process=threads == "one")
"""


@pytest.fixture(scope="module")
def processes():
    """Of all cases, beside each other."""
    started = {
        name: subprocess.Popen([sys.executable, "-c", SCRIPT, *words], env=BARE | more, stdout=subprocess.PIPE)
        for name, (words, more, _) in CASES.items()
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not show the threads of a process")
@pytest.mark.skipif(available_cores() == 1, reason="one core has one thread whatever is asked for")
@pytest.mark.parametrize("name", CASES)
def test_narrow_networks_have_one_thread(processes, name):
    said, _ = processes[name].communicate(timeout=120)
    assert int(said) == CASES[name][2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("HalfCheetah-v5", "2", "uniform"),
        ("Humanoid-v5", "2", "uniform"),
        ("jax:pendulum", "1", "uniform"),
        ("jax:pendulum", "1", "prioritized"),
    ],
)
def test_the_numbers_of_narrow_networks_do_not_depend_on_the_threads(words, tmp_path):
    hashes = []
    for threads in ("one", "as many as cores"):
        path = tmp_path / threads
        subprocess.run([sys.executable, "-c", TRAINING, *words, threads, str(path)], env=BARE, check=True)
        hashes.append(hashlib.sha256((path / "checkpoints" / "final.safetensors").read_bytes()).hexdigest())
    assert hashes[0] == hashes[1]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_nothing_asks_for_devices_before_the_cores_are_made_into_some(command, tmp_path):
    """What asks first settles their number, and with it the last bits of a run."""
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(
        'config.env.id = "jax:pendulum"\nconfig.seeds = 2\nconfig.total_steps = 10\ngrid."algorithm.tau" = [0.1]\n'
    )
    words = ["--env.id", "jax:pendulum", "--seeds", "2", "--total-steps", "10"] if command == "train" else [str(sweep)]
    code = f"""if True:
        import sys
        import jax._src.xla_bridge as bridge
        from ddpg_jax.cli.main import main
        from ddpg_jax.xla.memory import available_cores
        main({[command, *words, "--run-dir", str(tmp_path / "run"), "--quiet"]!r})
        print(bridge.local_device_count() == available_cores())
    """
    said = subprocess.run(
        [sys.executable, "-c", code], env=BARE, capture_output=True, text=True, timeout=300, check=True
    )
    assert said.stdout.splitlines()[-1] == "True"
