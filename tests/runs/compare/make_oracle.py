"""Writes oracle.json, what rliable makes of fixed scores; needs `pip install "rliable==1.2.0" "pandas<3"`.

python tests/runs/compare/make_oracle.py
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rliable import library, metrics

PACKAGES = ("rliable", "arch", "numpy", "scipy", "pandas")
THRESHOLDS = [0.2, 0.45, 0.7, 0.95]


def scores(seed, runs, tasks, digits):
    """Normalised scores `[runs, tasks]`; few digits make ties."""
    rng = np.random.default_rng(seed)
    return np.round(rng.beta(2, 2, (runs, tasks)) * 1.2, digits)


def estimates(matrix):
    """Points and 95% intervals of one group."""
    np.random.seed(0)  # noqa: NPY002  rliable draws from the global stream
    point, interval = library.get_interval_estimates(
        {"x": matrix}, lambda x: np.array([metrics.aggregate_iqm(x), metrics.aggregate_optimality_gap(x)]), reps=50_000
    )
    profile, ends = library.create_performance_profile({"x": matrix}, THRESHOLDS, reps=50_000)
    return {
        "scores": matrix.tolist(),
        "iqm": [point["x"][0], *interval["x"][:, 0]],
        "gap": [point["x"][1], *interval["x"][:, 1]],
        "profile": [profile["x"].tolist(), *ends["x"].tolist()],
    }


def improvement(first, second):
    """The probability that a run of the first is better, and its interval."""
    np.random.seed(0)  # noqa: NPY002
    point, interval = library.get_interval_estimates(
        {"x": [first, second]}, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=50_000
    )
    return {"first": first.tolist(), "second": second.tolist(), "p": [point["x"][0], *interval["x"][:, 0]]}


if __name__ == "__main__":
    groups = {
        "5 runs, 1 task": scores(1, 5, 1, 4),
        "10 runs, 1 task": scores(2, 10, 1, 4),
        "3 runs, 26 tasks": scores(3, 3, 26, 4),
        "8 runs, 4 tasks, ties": scores(4, 8, 4, 1),
    }
    pairs = {
        "5 and 5 runs, 2 tasks": (scores(5, 5, 2, 4), scores(6, 5, 2, 4)),
        "8 and 6 runs, 2 tasks, ties": (scores(7, 8, 2, 1), scores(8, 6, 2, 1)),
    }
    found = {
        "command": "python tests/runs/compare/make_oracle.py",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "thresholds": THRESHOLDS,
        "groups": {name: estimates(matrix) for name, matrix in groups.items()},
        "pairs": {name: improvement(*pair) for name, pair in pairs.items()},
    }
    Path(__file__).with_name("oracle.json").write_text(json.dumps(found, indent=1) + "\n")
