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
from ddpg_jax.training.sweep.grid import load_stored_sweep, load_sweep
from ddpg_jax.training.sweep.recorder import identify

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
RUNS = ("complete", "host", "device", "sweep")
INTERRUPTED = RUNS[1:]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnasium", "numpy")
TOLERANCE = 1e-4
"""Of returns a few updates after a resume: what other last bits come to there."""

SWEEPS = {
    "d4pg": "c1566d777f5eeb4f45db214fc1177243ab5deac121654aaa57fa8316d8025efb",
    "ddpg": "8603a73ae5cecd1a67a6beb5010f2789f228e41dbca446e04a3c72b6ed0af01e",
    "drqv2": "e669d8fcec3d1136b5986f2893f00ceb09d314493293813f0956e061aaff4d82",
    "fasttd3": "6b7418985a068870bc556b9795ab39aa99da6cadc9fec3df70e9c24dab3bcf17",
    "mrq": "e7bf931294ff9d69d88f5b8c14b7a2508fea9a8edc05b72baf51921e0e8eb516",
    "td3": "fcedc554e2ddaf1f268fb8d3cd80b0084854774af79f6aecd86a0584ca3bab23",
    "td7": "448da2c4f142fe89623b6e31a3f70295e0efedfc9924c0b0b4ce0a30be8eeb97",
}
"""How a sweep of each learner over tau is known again, as an earlier version (39959ac) had it."""


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


def test_an_interrupted_sweep_of_an_earlier_version_is_known_again(copied):
    sweep = copied("sweep")
    newest = max((sweep / "checkpoints").glob("*-step-*"))
    kept = json.loads((newest / "manifest.json").read_text())["facts"]["sweep"]
    assert identify(load_stored_sweep(sweep / "sweep.toml")) == kept


@pytest.mark.parametrize("learner", SWEEPS)
def test_a_field_that_comes_later_does_not_make_a_sweep_another_one(learner, tmp_path):
    text = f'config.env.value_range = [-10.0, 0.0]\nconfig.algorithm.name = "{learner}"\n'
    (tmp_path / "sweep.toml").write_text(text + 'grid."algorithm.tau" = [0.005, 0.01]\n')
    assert identify(load_sweep(tmp_path / "sweep.toml")) == SWEEPS[learner]


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
