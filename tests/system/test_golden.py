"""Runs that an earlier version wrote are read, verified and brought to their end as that version would have."""

import hashlib
import importlib.metadata
import json
import os
import re
import runpy
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import ddpg_jax as dj
from ddpg_jax.training.signals import SIGNALS
from ddpg_jax.training.sweep.grid import load_stored_sweep
from ddpg_jax.training.sweep.recorder import identify

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
RUNS = ("complete", "host", "device", "sweep")
INTERRUPTED = RUNS[1:]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnasium", "numpy")
TOLERANCE = 1e-4
"""Of returns a few updates after a resume: what other last bits come to there."""


def command(*words):
    """The exit code of `python -m ddpg_jax`, run in this process, where what is compiled is shared."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["ddpg_jax", *map(str, words)])
            with pytest.raises(SystemExit) as ended:
                runpy.run_module("ddpg_jax", run_name="__main__")
    finally:  # the program hears none once all is done
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return ended.value.code


def processor():
    """SHA-256 of what decides which instructions are used; None where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return None
    told = sorted(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
    return hashlib.sha256("\n".join(told).encode()).hexdigest() if told else None


def facts():
    """All that the last bits of a run depend on."""
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "processor": processor(),
        "cores": os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS"),
    }


def contents(run, capsys):
    """What `verify` prints as hash of the newest checkpoint."""
    capsys.readouterr()
    assert command("verify", run) == 0
    return re.search(r"contents after step \d+: +sha256 ([0-9a-f]{64})", capsys.readouterr().out)[1]


def left(run, stored, capsys):
    """What a resumed run has left: hashes, and the evaluations since it was interrupted."""
    record = (run / "metrics.jsonl").read_bytes()
    rows = [json.loads(line) for line in record[stored:].splitlines()]
    kept = ("combination", "seed", "step", "returns")
    hashes = {"record": hashlib.sha256(record).hexdigest()}
    if (run / "checkpoints").is_dir():  # a sweep keeps none to its end
        hashes["contents"] = contents(run, capsys)
    return {
        "hashes": hashes,
        "rows": len(rows),
        "evaluations": [{key: row[key] for key in kept if key in row} for row in rows if row["event"] == "evaluation"],
    }


def lane(row):
    """Of which seed an evaluation is, after how many steps."""
    return row.get("combination"), row["seed"], row["step"]


@pytest.fixture
def copied(tmp_path):
    """`(name) -> a copy of that directory`."""
    return lambda name: shutil.copytree(GOLDEN / name, tmp_path / name)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_an_earlier_version_is_read_to_the_bit(name, copied, capsys):
    assert contents(copied(name), capsys) == EXPECTED["stored"][name]


def test_a_run_of_an_earlier_version_is_evaluated(copied):
    returns = dj.evaluate(copied("complete"), episodes=3)
    np.testing.assert_allclose(returns, EXPECTED["returns"], rtol=TOLERANCE)


def test_a_sweep_of_an_earlier_version_is_told_as_the_same_by_fields_that_it_had_not(copied):
    """Slow tests go on with it; a new field of the configuration must not wait for them."""
    sweep = copied("sweep")
    newest = max((sweep / "checkpoints").glob("*-step-*"))
    kept = json.loads((newest / "manifest.json").read_text())["facts"]["sweep"]
    assert identify(load_stored_sweep(sweep / "sweep.toml")) == kept


@pytest.mark.slow
@pytest.mark.parametrize("name", INTERRUPTED)
def test_a_run_of_an_earlier_version_goes_on_to_the_end_it_would_have_had(name, copied, capsys):
    run, expected, here = copied(name), EXPECTED["resumed"][name], facts()
    stored = (run / "metrics.jsonl").read_bytes()
    assert command("resume", run, "--quiet") == 0
    result = json.loads((run / "result.json").read_text())
    assert result["complete"]
    assert (run / "metrics.jsonl").read_bytes().startswith(stored)
    found = left(run, len(stored), capsys)
    if result.get("level", "exact") == "exact":
        assert found["rows"] == expected["rows"]
        assert list(map(lane, found["evaluations"])) == list(map(lane, expected["evaluations"]))
        soonest = min(row["step"] for row in expected["evaluations"])
        for row, other in zip(found["evaluations"], expected["evaluations"], strict=True):
            if row["step"] == soonest:  # later ones may drift further
                np.testing.assert_allclose(row["returns"], other["returns"], rtol=TOLERANCE)
    else:  # on another processor an episode in progress may not repeat itself to the bit
        assert here["processor"] not in [exact["facts"]["processor"] for exact in expected["exact"]]
    for exact in expected["exact"]:
        if exact["facts"] == here:
            assert found["hashes"] == exact["hashes"]
