"""Four updates of each learner, beside the same four by other codes, whose numbers are frozen in `parity.npz`."""

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FROZEN = dict(np.load(Path(__file__).parent / "parity.npz"))
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| ([0-9.e-]+) \|", re.MULTILINE)
PUBLISHED = {(case, peer): float(most) for case, peer, most in ROW.findall((ROOT / "docs/fidelity.md").read_text())}
"""Most that weights differ by, of each row of the table."""

spec = importlib.util.spec_from_file_location("parity", ROOT / "benchmarks" / "parity.py")
assert spec is not None
assert spec.loader is not None
parity = importlib.util.module_from_spec(spec)
sys.modules["parity"] = parity
spec.loader.exec_module(parity)


@cache
def ours(case):
    return parity.update_ours(case, FROZEN)


def test_the_table_has_a_row_for_each_code():
    assert sorted(PUBLISHED) == parity.peers_of(FROZEN)
    assert max(PUBLISHED.values()) <= 1e-5


@pytest.mark.parametrize(("case", "peer"), parity.peers_of(FROZEN))
def test_weights_after_four_updates_are_those_of_another_code(case, peer):
    theirs = parity.part(FROZEN, f"peer/{case}/{peer}")
    assert parity.largest_difference(case, ours(case), theirs) <= PUBLISHED[case, peer]
    for root in ("params/actor", "params/critic", "target_params/critic"):  # all that learns has moved, far more
        names = [name for name in theirs if name.startswith(root) and not name.endswith(parity.WITHOUT_EFFECT)]
        begun = parity.part(FROZEN, f"init/{case}")
        moved = [np.abs(theirs[name] - begun[name.removeprefix("target_")]).max() for name in names]
        assert min(moved) > (1e-5 if root.startswith("target") else 1e-3)


def test_a_small_change_of_an_update_is_seen():
    """A hundredth more of the critics' rate, a fifth more of the noise: both are beyond what is allowed."""
    for case, path, factor in (("ddpg", "critic_learning_rate", 1.01), ("td3", "target_noise", 1.2)):
        given = parity.ALGORITHM if path in parity.ALGORITHM else parity.CASES[case]
        before = given[path]
        given[path] = factor * before
        try:
            changed = parity.update_ours(case, FROZEN)
        finally:
            given[path] = before
        theirs = parity.part(FROZEN, f"peer/{case}/float64")
        assert parity.largest_difference(case, changed, theirs) > 3 * PUBLISHED[case, "float64"]
