"""A loop that was interrupted and taken up again, in fresh environments and a fresh replay, ends with the same bits."""

import json
from contextlib import ExitStack

import numpy as np
import pytest
from tiny_run import tiny_config

from ddpg_jax.runs.checkpoints.manifest import mark_of
from ddpg_jax.training.factory import start
from ddpg_jax.training.report import no_snapshots
from ddpg_jax.types import Snapshot

PRIORITIES = {"kind": "prioritized", "capacity": 30}
NORMALIZED = {"normalize_observations": True, "normalization": "batch"}
OU = {"kind": "ou", "sigma": 0.3}
MEMORY = {"hidden": 4, "length": 4, "burn_in": 2, "obs_embedding": 4, "action_embedding": 4, "reward_embedding": 4}
SMALL = {"pixels": {"size": 16, "gray": True, "stack": 3}}
PIXELS = {"algorithm": {"n_step": 3, "encoder": {"kind": "small", "channels": 2, "features": 4, "shift": 1}}}

RUNS = {
    "plain": {},
    "ring that goes round": {"replay": {"capacity": 25}, "env": {"num_envs": 2}},
    "priorities": {"replay": PRIORITIES, "algorithm": {"updates_per_step": 2}},
    "td3, n-step, noise with a memory": {
        "algorithm": {"name": "td3", "policy_delay": 2, "n_step": 3, "updates_per_step": 0.5},
        "exploration": OU,
        "env": {"num_envs": 3},
    },
    "moments": {"algorithm": NORMALIZED},
    "parameter noise, resets": {
        "algorithm": {"reset_every": 30},
        "exploration": {"kind": "parameter", "adapt_every": 4},
    },
    "hindsight, ring that goes round, n-step": {
        "algorithm": {"n_step": 3},
        "env": {"num_envs": 2, "max_episode_steps": 12},
        "replay": {"kind": "hindsight", "capacity": 44},
    },
    "memory": {"algorithm": {"memory": MEMORY, "n_step": 2, "normalize_observations": True}, "env": {"num_envs": 2}},
    "memory, kept states, priorities": {
        "algorithm": {"name": "td3", "policy_delay": 1, "memory": MEMORY | {"cell": "lru", "keep_every": 3}},
        "replay": {"kind": "prioritized", "capacity": 30},
    },
    "pixels, n-step, ring that goes round": PIXELS | {"replay": {"capacity": 36}, "env": {"num_envs": 2} | SMALL},
    "pixels, priorities": PIXELS | {"replay": PRIORITIES, "env": SMALL},
    "td7, priorities": {
        "algorithm": {
            "name": "td7",
            "input_width": 4,
            "embedding_size": 4,
            "encoder_hidden": [4],
            "target_every": 6,
            "normalize_observations": True,
        },
        "replay": PRIORITIES,
    },
    "mrq, priorities that fade": {
        "algorithm": {
            "name": "mrq",
            "critic_hidden": [4],
            "embedding_size": 4,
            "encoder_hidden": [4],
            "action_embedding": 4,
            "reward_bins": 5,
            "horizon": 2,
            "n_step": 2,
            "contrast_weight": 0.1,
            "target_every": 6,
            "normalize_observations": True,
        },
        "replay": PRIORITIES | {"fade": 0.9},
        "env": {"num_envs": 2},
    },
    "flash, one batch of both pairs, held noise": {
        "algorithm": {
            "name": "fasttd3",
            "architecture": "flash",
            "hidden": [4],
            "critic_hidden": [4],
            "joint_batch": True,
            "scale_rewards": True,
            "return_limit": 5.0,
            "num_atoms": 5,
            "v_min": -5,
            "v_max": 5,
        },
        "exploration": {"kind": "gaussian", "hold": 16},
        "env": {"num_envs": 2},
    },
    "d4pg, delayed errors": {
        "algorithm": {"name": "d4pg", "num_atoms": 5, "v_min": -100, "v_max": 0},
        "replay": PRIORITIES,
    },
}


def config_of(name, identifier):
    changes = json.loads(json.dumps(RUNS[name]))
    changes.setdefault("env", {})["id"] = identifier
    return tiny_config(**changes)


def kept(snapshot):
    """A snapshot as the disk would give it back: bytes, and nothing shared with the loop."""
    rows = snapshot.read_rows(snapshot.first_row, snapshot.stop_row)
    rows = {name: x.copy() for name, x in rows.items()}

    def read(first, stop):
        bounds = [first - snapshot.first_row, stop - snapshot.first_row]
        marked = {name: [int(rows[mark_of(name)][:i].sum()) for i in bounds] for name in rows if mark_of(name)}
        return {name: x[slice(*marked.get(name, bounds))] for name, x in rows.items()}

    arrays = {name: x.copy() for name, x in snapshot.arrays.items()}
    return Snapshot(arrays, snapshot.first_row, snapshot.stop_row, read, dict(snapshot.seconds))


def run(config, snapshot=None, stop_at=None):
    """Rows of the record, and the last snapshot: at the end, or where the loop is wanted to stop."""
    with ExitStack() as stack:
        should_snapshot = no_snapshots if stop_at is None else (lambda step: step >= stop_at)
        loop, rows = start(config, stack, snapshot, should_snapshot), []
        for report in loop.reports:
            rows += report.rows
            last = report
            if stop_at is not None and report.step >= stop_at:
                break
        assert loop.restarted_episodes == 0
        return rows, kept(last.snapshot()), last


def assert_equal(a, b):
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        assert a.arrays[name].dtype == b.arrays[name].dtype, name
        np.testing.assert_array_equal(a.arrays[name], b.arrays[name], err_msg=name)
    assert (a.first_row, a.stop_row) == (b.first_row, b.stop_row)
    rows = [each.read_rows(each.first_row, each.stop_row) for each in (a, b)]
    for name in rows[0]:
        assert rows[0][name].tobytes() == rows[1][name].tobytes()


HINDSIGHT = "hindsight, ring that goes round, n-step"
FAST = {  # compiling takes the time; CI runs all of them
    "Pendulum-v1": ("priorities", "td3, n-step, noise with a memory"),
    "jax:pendulum": ("plain",),
    "goal_envs:Reach-v0": (),
}


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        pytest.param(name, identifier, marks=() if name in fast else pytest.mark.slow, id=f"{name}-{identifier}")
        for identifier, fast in FAST.items()
        for name in RUNS
        if (name == HINDSIGHT) == ("Reach" in identifier)
    ],
)
def test_a_loop_that_was_interrupted_ends_with_the_same_bits(name, identifier, monkeypatch):
    monkeypatch.setattr("ddpg_jax.training.device.loop.FIRST_PIECE", 1)
    monkeypatch.setattr("ddpg_jax.training.device.loop.PIECE_SECONDS", 0.0)
    config = config_of(name, identifier)
    rows, clean, _ = run(config)
    assert clean.arrays["lane/learner/step" if identifier.startswith("jax:") else "learner/step"].min() > 0
    begun, snapshot = [], None
    for stop in (7, 20, 33, 44):  # in the warm-up, at a report, in the second episode, in the third
        more, snapshot, report = run(config, snapshot, stop)
        begun += more
        assert report.step in range(stop, stop + 3)
    more, resumed, _ = run(config, snapshot)
    assert begun + more == rows
    assert_equal(resumed, clean)
