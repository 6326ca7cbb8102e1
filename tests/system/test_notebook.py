"""Training in a real kernel: what it shows, and that Ctrl-C saves the run and keeps the kernel."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HELPERS = Path(__file__).parents[1] / "helpers"

BEGIN = """
import signal, time
import ddpg_jax as dj
from tiny_run import tiny_config

handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
"""
TRAIN = """
run = dj.train(tiny_config(total_steps=120), "run")
run
"""
AGAIN = """
began = time.monotonic()
first = run.result["seconds"]["compile"]
second = dj.train(tiny_config(total_steps=120), "second", quiet=True).result["seconds"]["compile"]
print(f"compiling took {first:.2f} s, and {second:.2f} s in the same kernel")
"""
USE = """
import numpy as np
action = run.policy(1)(np.zeros(3, np.float32))
print(action.shape, run.metrics.returns.shape, type(run.plot()).__name__)
"""
LONG = """
import _thread, threading
from pathlib import Path
def interrupt():
    while not Path("long/timing.jsonl").exists() or not Path("long/timing.jsonl").stat().st_size:
        time.sleep(0.05)
    signal.raise_signal(signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
dj.train(tiny_config(total_steps=1_000_000, seeds=1, evaluation={"every": 0}), "long")
"""
AFTER = """
assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
step = max(int(path.name.rpartition("-")[2]) for path in Path("long/checkpoints").glob("0*-step-*"))
resumed = dj.resume_run("long", total_steps=step + 40, quiet=True)
print(step, resumed.result["complete"])
"""


@pytest.mark.slow
def test_a_kernel_trains_shows_is_interrupted_and_goes_on(tmp_path):
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package)
    records = find_spec("ddpg_jax.runs.record") is not None  # then a run has its metrics as arrays
    cells = [BEGIN, TRAIN, USE if records else "", AGAIN, LONG, AFTER]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HELPERS.parents[1]), str(HELPERS)]),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    command = [sys.executable, "-W", "ignore", str(HELPERS / "run_notebook.py"), str(tmp_path)]
    done = subprocess.run(
        command, input=json.dumps(cells), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    begin, train, use, again, long, after = (cell["outputs"] for cell in json.loads(done.stdout)["cells"])
    assert begin == []

    printed = "".join("".join(each["text"]) for each in train if each["output_type"] == "stream")
    assert re.search(r"files in .*run\nstep \d+/120: evaluation ", printed)
    (line,) = [each["data"]["text/plain"] for each in train if each["output_type"] == "display_data"]
    assert "".join(line).startswith("step 120/120  return -")  # one line, which was shown anew
    (shown,) = [each["data"] for each in train if each["output_type"] == "execute_result"]
    assert len("".join(shown["text/plain"]).splitlines()) == 3
    if records:
        assert '<img alt="learning curve" src="data:image/png;base64,' in "".join(shown["text/html"])
        assert "".join(use[0]["text"]) == "(1,) (5, 2, 3) Figure\n"
    print("".join(again[0]["text"]))

    (error,) = [each for each in long if each["output_type"] == "error"]
    assert error["ename"] == "Interrupted"
    assert len(error["traceback"]) == 1
    told = r"interrupted after (\d+) of 1000000 steps; to go on: ddpg_jax\.resume_run\('.*long'\)"
    found = re.fullmatch(told, error["evalue"])
    assert found is not None, error["evalue"]
    assert "".join(after[-1]["text"]) == f"{found[1]} True\n", after
