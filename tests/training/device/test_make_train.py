"""The whole training as one pure function, and numbers that differ from lane to lane."""

from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from tiny_device import TOTAL, Built, Ended, assert_close, build, device_config, four, four_ended, host, lane_of, run
from tiny_run import EPISODE

from ddpg_jax.config.load import merge
from ddpg_jax.config.schema import Config, hyper_paths
from ddpg_jax.errors import ConfigError
from ddpg_jax.rng import run_keys
from ddpg_jax.training.device.loop import device_loop, reports
from ddpg_jax.training.device.make_train import make_train
from ddpg_jax.training.report import DIAGNOSTICS, METRICS
from ddpg_jax.training.schedule import is_due


@cache
def trained() -> Any:
    """`make_train` of the four seeds."""
    built = four()
    return host(jax.jit(jax.vmap(make_train(built.config)))(built.keys))


def test_the_pure_function_equals_the_loop():
    built, (state, history) = four(), trained()
    assert_close(state, four_ended().lane.learner, 1e-4)
    np.testing.assert_array_equal(history.step, np.tile([110, TOTAL], (4, 1)))
    chunks, episodes, period = device_loop(built.config, built.compiled, built.keys, {}), [], 0
    for chunk in chunks:
        episodes.append(chunk.totals)
        if is_due(chunk.step, 110, 1):
            evaluation = host(built.compiled.evaluate(chunk.learner, {}))
            np.testing.assert_allclose(history.returns[:, period], evaluation.returns, rtol=1e-4)
            np.testing.assert_array_equal(history.lengths[:, period], evaluation.lengths)
            sums = jax.tree.map(lambda *x: np.sum(x, 0), *episodes)
            np.testing.assert_array_equal(history.episodes[:, period], sums.episodes)
            mean = sums.episode_return / sums.episodes
            np.testing.assert_allclose(history.episode_return[:, period], mean, rtol=1e-4)
            for k, name in enumerate(METRICS):
                mean = sums.metrics[:, k] / sums.updates
                if name == "max_q":
                    mean = np.max([t.max_q for t in episodes], 0)
                np.testing.assert_allclose(history.metrics[name][:, period], mean, rtol=1e-3, atol=1e-4)
            episodes, period = [], period + 1
    assert period == 2


def test_the_history_is_whole():
    _, history = trained()
    assert history.returns.shape == history.lengths.shape == (4, 2, 3)
    assert history.episodes.shape == history.episode_return.shape == (4, 2)
    assert history.metrics.keys() == {*METRICS, *DIAGNOSTICS}
    assert all(x.shape == (4, 2) for x in history.metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(history))
    np.testing.assert_array_equal(
        history.episodes, np.tile([110 // EPISODE, TOTAL // EPISODE - 110 // EPISODE], (4, 1))
    )
    assert (history.lengths == EPISODE).all()
    assert (history.returns < 0).all()


def test_what_a_period_has_none_of_is_nan(learning_nothing):
    config = device_config(
        total_steps=40,
        env={"id": "jax:probe-delayed", "num_envs": 2},
        evaluation={"every": 20},
    )
    _, history = jax.jit(make_train(config))(jax.random.key(0))
    assert history.step.tolist() == [20, 40]
    assert history.episodes.tolist() == [10, 10]
    assert np.isnan(history.metrics["critic_loss"][0])
    assert np.isnan(history.metrics["max_q"][0])
    assert history.metrics["critic_loss"][1] == history.metrics["max_q"][1] == -2


def test_more_steps_than_the_pure_function_counts_are_refused():
    with pytest.raises(ConfigError, match=rf"total_steps={2**31}: make_train counts at most {2**31 - 1}"):
        make_train(device_config(total_steps=2**31))


# --- Numbers that differ from lane to lane.


CHANGED = {
    "algorithm.actor_learning_rate": 4e-3,
    "algorithm.critic_learning_rate": 3e-3,
    "algorithm.critic_weight_decay": 0.5,
    "algorithm.actor_weight_decay": 0.5,
    "algorithm.max_grad_norm": 0.05,
    "algorithm.gamma": 0.8,
    "algorithm.tau": 0.2,
    "exploration.theta": 0.6,
    "exploration.sigma": 0.7,
    "exploration.dt": 0.3,
    "exploration.sigma_end": 0.9,
    "exploration.epsilon": 0.8,
    "replay.alpha": 0.1,
    "replay.beta": 0.9,
    "replay.beta_end": 0.0,
    "replay.epsilon": 1.0,
}
DIVERGING = len(CHANGED) + 2
"""The last lane that differs; before it the file's numbers, a lane for each that changes, and one with all changed."""


def varied_config(**changes: Any) -> Config:
    base = {
        "total_steps": 100,
        "algorithm": {
            "weight_decay": "decoupled",
            "critic_weight_decay": 0.01,
            "max_grad_norm": 20.0,
            "critic_learning_rate": 1e-2,
            "tau": 0.1,
        },
        "exploration": {"kind": "ou", "schedule": "linear", "sigma_end": 0.05, "epsilon": 0.1},
        "replay": {"kind": "prioritized", "capacity": 10_000},
    }
    return device_config(**merge(base, changes))


def value_at(config: Config, path: str) -> float:
    section, _, field = path.partition(".")
    return getattr(getattr(config, section), field)


@cache
def varied() -> Built:
    """Equal seeds with other numbers: seed number i of the list only names the lane i."""
    count = len(CHANGED) + 3
    count += count % 2  # two devices share them
    config = varied_config(seeds=list(range(100, 100 + count)))
    hyper = {path: np.full(count, value_at(config, path), np.float32) for path in CHANGED}
    for i, (path, value) in enumerate(CHANGED.items()):
        hyper[path][[1 + i, len(CHANGED) + 1]] = value
    hyper["algorithm.critic_learning_rate"][DIVERGING] = 1e30
    return build(config, hyper=hyper, keys=run_keys([4] * count))


@cache
def varied_ended() -> Ended:
    return run(varied(), 100)


def test_every_number_that_may_differ_is_tested_here():
    assert set(CHANGED) == set(hyper_paths(varied_config()))
    assert all(value_at(varied_config(), path) != value for path, value in CHANGED.items())


@pytest.mark.slow
def test_every_number_that_differs_makes_a_difference():
    params = varied_ended().lane.learner.params
    for i, path in enumerate(CHANGED):
        for network in (params.actor, params.critic):
            assert max(np.abs(leaf[1 + i] - leaf[0]).max() for leaf in jax.tree.leaves(network)) > 1e-4, path


@pytest.mark.parametrize("lane", [0, len(CHANGED) + 1], ids=["as configured", "all changed"])
def test_numbers_of_a_lane_are_those_of_a_run_that_is_configured_so(lane):
    """To 1e-5 after 80 updates, beside a lane that is not finite."""
    changes: dict[str, Any] = {}
    for path, value in CHANGED.items():
        section, _, field = path.partition(".")
        if lane:
            changes = merge(changes, {section: {field: value}})
    config = varied_config(seeds=[4], **changes)
    assert (value_at(config, "algorithm.gamma") == 0.8) == (lane > 0)
    single = run(build(config, devices=jax.devices()[:1]), 100)
    assert single.lane.learner.step == 80
    assert_close(lane_of(varied_ended().lane.learner, lane), lane_of(single.lane.learner, 0), 1e-5)


def test_a_lane_that_diverges_does_not_disturb_the_others():
    (totals,), rejected = varied_ended().totals, varied_ended().lane.learner.rejected
    assert np.flatnonzero(totals.metrics[:, METRICS.index("rejected")]).tolist() == [DIVERGING]
    assert np.flatnonzero(rejected.max(1)).tolist() == [DIVERGING]
    assert rejected[DIVERGING].max() == varied().config.algorithm.max_rejected
    assert np.isfinite(totals.metrics).all()
    assert not totals.faults.any()  # what environments make of its actions is not their fault


def test_parameters_that_diverge_are_not_blamed_on_the_environment():
    built = varied()
    loop = device_loop(built.config, built.compiled, built.keys, built.hyper)
    *_, last = reports(built.config, built.compiled, loop, {}, 0)
    rows = [row for row in last.rows if row["event"] == "update" and row["seed"] == 100 + DIVERGING]
    assert [(row["rejected"], "critic_loss" in row) for row in rows] == [(1.0, False)]
