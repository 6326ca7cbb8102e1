"""Samplers: what each gives, that equal arguments give equal settings, and that models learn from what is told."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddpg_jax.errors import ConfigError
from ddpg_jax.training.search.samplers import SAMPLERS, Told, make_sampler
from ddpg_jax.training.search.space import Choice, Range, contains, grid

NEEDS = {"tpe": ("optuna",), "gp": ("optuna", "torch"), "cmaes": ("cmaes",)}


def missing(kind):
    return [name for name in NEEDS.get(kind, ()) if importlib.util.find_spec(name) is None]


HERE = [kind for kind in SAMPLERS if not missing(kind)]


def where_installed(*kinds):
    """Tests of kinds, each skipped where a package is missing, with the reason."""
    marks = {kind: pytest.mark.skipif(bool(missing(kind)), reason=f"no {', '.join(missing(kind))}") for kind in kinds}
    return pytest.mark.parametrize("kind", [pytest.param(kind, marks=marks[kind]) for kind in kinds])


MODELS = ("tpe", "gp", "cmaes")

SPACE = {
    "algorithm.policy_delay": Choice(choice=[1, 2, 3], when={"algorithm.name": ["td3"]}),
    "algorithm.name": Choice(choice=["ddpg", "td3"]),
    "algorithm.hidden": Choice(choice=[[64, 64], [256, 256]]),
    "algorithm.actor_learning_rate": Range(low=1e-5, high=1e-1, log=True, points=3),
    "algorithm.batch_size": Range(low=8, high=512, log=True, integer=True, points=2),
    "algorithm.tau": Range(low=0.001, high=0.1, points=2, when={"algorithm.name": ["ddpg"]}),
}

SQUARE = {"x": Range(low=-5, high=5), "y": Range(low=-5, high=5)}


def near(values):
    """Best, 0, at (1, -2)."""
    return -((values["x"] - 1) ** 2) - (values["y"] + 2) ** 2


def rate(values):
    """Better, up to 0, near a learning rate of 1e-3; fails for large batches."""
    if values["algorithm.batch_size"] > 256:
        return None
    return -abs(math.log10(values["algorithm.actor_learning_rate"]) + 3)


def search(kind, space, score, seed, trials=64, batch=8):
    """All that is told, batch after batch."""
    sample, told = make_sampler(kind, space, seed, trials), []
    for number in range(0, trials, batch):
        told += [Told(values, score(values)) for values in sample(told, number, batch)]
    return told


def best(told):
    return max(score for _, score in told)


@where_installed(*SAMPLERS)
def test_settings_are_of_the_space_and_equal_for_equal_arguments(kind):
    told = search(kind, SPACE, rate, seed=3, trials=24)
    assert len(told) == 24
    assert all(contains(SPACE, values) for values, _ in told)
    fresh = make_sampler(kind, SPACE, 3, 24)
    before = list(told[:16])
    assert fresh(told[:16], 16, 8) == [values for values, _ in told[16:]]
    if kind != "cmaes":  # where the count is the size of a generation
        assert fresh(told[:16], 16, 3) == [values for values, _ in told[16:19]]
    assert told[:16] == before
    if kind != "grid":
        assert make_sampler(kind, SPACE, 4, 24)(told[:16], 16, 8) != fresh(told[:16], 16, 8)


SCRIPT = """
import json, sys
from ddpg_jax.training.search.samplers import Told, make_sampler
from ddpg_jax.training.search.space import parse_space
heavy = [name for name in ("jax", "flax", "optax", "ray", "optuna", "cmaes", "scipy", "torch") if name in sys.modules]
given = json.load(sys.stdin)
space = parse_space(given["space"], "a test")
told = [Told(values, score) for values, score in given["told"]]
print(json.dumps([heavy, {kind: make_sampler(kind, space, 3, 32)(told, 16, 4) for kind in given["kinds"]}]))
"""


def test_another_process_gives_the_same_and_imports_nothing_heavy_before_it_asks():
    told = search("random", SPACE, rate, seed=0, trials=16)
    space = {path: each.model_dump(exclude_none=True, exclude_defaults=True) for path, each in SPACE.items()}
    given = json.dumps({"space": space, "told": told, "kinds": HERE})
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"PYTHONHASHSEED": "4242", "PYTHONPATH": root}
    words = [sys.executable, "-W", "error", "-c", SCRIPT]
    ended = subprocess.run(words, input=given, env=environment, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")  # Optuna is silent too
    heavy, found = json.loads(ended.stdout)
    assert heavy == []
    assert found == {kind: make_sampler(kind, SPACE, 3, 32)(told, 16, 4) for kind in HERE}


@pytest.mark.parametrize("kind", ["random", "sobol"])
def test_a_setting_depends_on_its_number_alone(kind):
    sample = make_sampler(kind, SPACE, 5, 100)
    whole = sample([], 0, 40)
    assert [values for i in range(40) for values in sample([Told(whole[0], 1.0)] * i, i, 1)] == whole
    assert sample([], 7, 0) == []
    assert len({json.dumps(values) for values in whole}) == 40


def test_sobol_fills_every_cell_once():
    """Of the first 16 points of a two-dimensional sequence, one lies in each cell of a four by four board."""
    for seed in range(3):
        points = np.array([list(values.values()) for values in make_sampler("sobol", SQUARE, seed, 16)([], 0, 16)])
        cells = np.floor((points + 5) / 2.5).astype(int)
        assert len(np.unique(cells, axis=0)) == 16


def test_random_numbers_fill_the_range():
    values = [values["x"] for values in make_sampler("random", SQUARE, 0, 1000)([], 0, 1000)]
    np.testing.assert_allclose(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]), [-5, -2.5, 0, 2.5, 5], atol=0.5)


def test_a_grid_ends():
    sample = make_sampler("grid", SPACE, 0, 1000)
    whole = grid(SPACE)
    assert len(whole) == 2 * 3 * 2 * (2 + 3)
    assert [*sample([], 0, 50), *sample([], 50, 50)] == whole
    assert sample([], 60, 8) == []


@where_installed(*MODELS)
def test_a_model_finds_better_points_than_random_numbers(kind):
    """64 trials in batches of 8: each seed's best is better than the median of the bests of ten random searches."""
    reached = np.median([best(search("random", SQUARE, near, seed)) for seed in range(10)])
    found = [best(search(kind, SQUARE, near, seed)) for seed in range(2 if kind == "gp" else 5)]
    print(f"{kind}: median {np.median(found):.3g}, worst {min(found):.3g}, random's median {reached:.3g}")
    assert np.median(found) > reached / 2
    assert sum(each > reached for each in found) >= 0.8 * len(found)


@where_installed(*MODELS)
def test_what_fails_is_not_sought(kind):
    """On one half everything fails, which is all that there is to learn of `x`."""

    def score(values):
        return None if values["x"] > 0 else -abs(values["y"])

    late = search(kind, SQUARE, score, seed=1)[32:]
    assert sum(each.score is None for each in late) <= 8


@where_installed(*MODELS)
def test_all_may_fail_and_what_is_not_finite_failed(kind):
    told = search(kind, SQUARE, lambda values: None, seed=0, trials=32, batch=16)
    sample = make_sampler(kind, SQUARE, 0, 32)
    expected = sample(told, 32, 4)
    assert len({tuple(values.values()) for values in expected}) == 4
    for strange in (math.nan, math.inf, -math.inf):
        assert sample([each._replace(score=strange) for each in told], 32, 4) == expected


@where_installed(*MODELS)
def test_settings_of_a_space_that_was_changed_are_left_out(kind):
    told = search("random", SQUARE, near, seed=0, trials=32)
    narrow = {"x": Range(low=0, high=2), "y": Range(low=-5, high=5)}
    inside = [each for each in told if contains(narrow, each.values)]
    assert 0 < len(inside) < 32
    sample = make_sampler(kind, narrow, 0, 40)
    assert sample(told, 32, 4) == sample(inside, 32, 4)
    assert all(contains(narrow, values) for values in sample(told, 32, 4))


@where_installed("tpe", "gp")
def test_what_is_asked_together_is_kept_apart(kind):
    told = search("random", SQUARE, near, seed=0, trials=32)
    points = np.array([list(values.values()) for values in make_sampler(kind, SQUARE, 0, 40)(told, 32, 8)])
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(8, 1)]
    assert apart.min() > 1e-3


@where_installed("cmaes")
def test_the_evolution_strategy_works_in_one_dimension_and_needs_one(kind):
    line = {"x": Range(low=-5, high=5), "c": Choice(choice=[1, 2])}
    told = search(kind, line, lambda values: -((values["x"] - 1) ** 2), seed=0)
    assert abs(max(told, key=lambda each: each.score).values["x"] - 1) < 0.05
    with pytest.raises(ConfigError, match="needs a range without conditions"):
        make_sampler(kind, {"c": Choice(choice=[1, 2]), "x": Range(low=0, high=1, when={"c": [1]})}, 0, 8)


def test_what_cannot_be_made_is_told(monkeypatch):
    with pytest.raises(ConfigError, match=r"search.sampler = 'tpee': there is no such sampler; did you mean tpe\?"):
        make_sampler("tpee", SQUARE, 0, 8)
    with pytest.raises(ConfigError, match="a grid needs points"):
        make_sampler("grid", SQUARE, 0, 8)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'"tpe" needs optuna, not installed here: pip install "ddpg-jax\[search\]"$'):
        make_sampler("tpe", SQUARE, 0, 8)
    with pytest.raises(
        ConfigError, match=r'needs optuna, torch, not installed here: pip install "ddpg-jax\[search\]" to'
    ):
        make_sampler("gp", SQUARE, 0, 8)
    with pytest.raises(ConfigError, match="needs cmaes"):
        make_sampler("cmaes", SQUARE, 0, 8)
