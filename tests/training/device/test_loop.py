"""What the device loop says of its chunks, and what it refuses to go on from."""

import json
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_device import (
    SEEDS,
    TOTAL,
    WARMUP,
    Built,
    build,
    device_config,
    four,
    lane_of,
    run,
    stored,
)
from tiny_run import EPISODE

from ddpg_jax.config.schema import Config
from ddpg_jax.envs.device.pendulum import pendulum
from ddpg_jax.errors import EnvironmentFault, NotFiniteError
from ddpg_jax.rng import run_keys, stream_key
from ddpg_jax.training.device.loop import Chunk, device_loop, reports
from ddpg_jax.training.report import DIAGNOSTICS, METRICS
from ddpg_jax.types import DeviceEnv

# --- Rows.


def test_the_rows_of_a_report_are_the_means_of_its_chunk():
    built = four()
    chunks = device_loop(built.config, built.compiled, built.keys, {})
    found = list(
        reports(built.config, built.compiled, device_loop(built.config, built.compiled, built.keys, {}), {}, 1.5)
    )
    assert [r.step for r in found] == [60, 110, 120, 180, TOTAL]
    assert [r.updates for r in found] == [40, 90, 100, 160, 200]
    before = 0
    for report, chunk in zip(found, chunks, strict=True):
        assert report.seconds.keys() == {"compile", "device"}
        assert report.seconds["compile"] == 1.5
        json.dumps(report.rows, allow_nan=False)
        expected = []
        for i, seed in enumerate(SEEDS):
            totals = lane_of(chunk.totals, i)
            episodes = report.step // EPISODE - before // EPISODE
            assert totals.episodes == episodes
            label = {"seed": seed, "step": report.step}
            if episodes:
                mean = pytest.approx(totals.episode_return / episodes, rel=1e-6)
                lengths = {"episodes": episodes, "episode_return": mean, "episode_length": EPISODE}
                expected.append({"event": "episodes", **label, **lengths})
            means = dict(zip(METRICS, totals.metrics / (report.updates - max(0, before - WARMUP)), strict=True))
            means = {name: pytest.approx(value, rel=1e-6) for name, value in means.items()} | {"max_q": totals.max_q}
            means |= zip(DIAGNOSTICS, totals.diagnostics.tolist(), strict=True)
            expected.append({"event": "update", **label, "updates": report.updates, **means})
        assert report.rows == expected
        before = report.step
    seconds = [r.seconds["device"] for r in found]
    assert 0 < seconds[0] < seconds[1] < seconds[-1]


def test_the_returns_of_a_chunk_are_the_rewards_of_the_episodes_that_ended_in_it():
    ended = run(four(), 50, 60)
    rewards = stored(four(), ended).reward
    first, second = ended.totals
    np.testing.assert_allclose(first.episode_return, rewards[:, :45].sum(1), rtol=1e-5)
    np.testing.assert_allclose(second.episode_return, rewards[:, 45:60].sum(1), rtol=1e-5)  # begun in the chunk before
    assert (first.episodes.tolist(), second.episodes.tolist()) == ([3] * 4, [1] * 4)
    assert (first.episode_length.tolist(), second.episode_length.tolist()) == ([45] * 4, [15] * 4)


def test_a_chunk_without_updates_or_episodes_has_no_rows_of_them():
    built = four()
    config = built.config.model_copy(update={"logging": built.config.logging.model_copy(update={"every": 10})})
    first, second, third = (
        [row["event"] for row in report.rows]
        for report, _ in zip(
            reports(config, built.compiled, device_loop(config, built.compiled, built.keys, {}), {}, 0),
            range(3),
            strict=False,
        )
    )
    assert (first, second, third) == ([], ["episodes"] * 4, ["episodes", "update"] * 4)


# --- What is not finite.


def faulty(config: Config) -> DeviceEnv:
    """Pendulum with an error that is drawn for each environment: none, a reward that is NaN, an infinite angle."""
    good = pendulum(config.env.max_episode_steps)

    def reset(key: Any) -> Any:
        state, obs = good.reset(key)
        return (state, error_of(key)), obs

    def step(state: Any, action: Any, key: Any) -> Any:
        inner, error = state
        inner, report = good.step(inner, action, key)
        reward = jnp.where(error == 1, jnp.nan, report.reward)
        next_obs = jnp.where(error == 2, jnp.inf, report.next_obs)
        return (inner, error), report._replace(reward=reward, next_obs=next_obs)

    return good._replace(reset=reset, step=step)


def error_of(key: Any, count: int = 3) -> Any:
    return jax.random.randint(jax.random.fold_in(jax.random.clone(key), 1), (), 0, count)


def error_of_seed(seed: int, count: int = 3) -> int:
    """What the one environment of a seed draws at the beginning."""
    return int(error_of(jax.random.split(stream_key(run_keys([seed])[0], "reset"), 1)[0], count))


@pytest.mark.usefixtures("learning_nothing")
def test_numbers_of_an_environment_that_are_not_finite_end_the_run_and_name_the_seed():
    fine, reward, obs = (next(s for s in range(50) if error_of_seed(s) == kind) for kind in range(3))
    config = device_config(seeds=[fine, reward, obs], total_steps=12, logging={"every": 12})
    built = build(config, faulty(config), devices=jax.devices()[:1])
    loop = partial(device_loop, config, built.compiled, built.keys, {})
    assert next(loop()).totals.faults.tolist() == [0, 12, 12]
    for seeds, named in (([fine, reward, obs], reward), ([fine, fine + 100, obs], obs)):
        renamed = config.model_copy(update={"seeds": tuple(seeds)})
        chunk = next(loop())
        faults = np.where(np.arange(3) == seeds.index(named), chunk.totals.faults, 0)
        with pytest.raises(EnvironmentFault, match=rf"env\.id='jax:pendulum', seed {named}: .* not finite .* 12") as e:
            next(
                reports(
                    renamed,
                    built.compiled,
                    iter([chunk._replace(totals=chunk.totals._replace(faults=faults))]),
                    {},
                    0,
                )
            )
        assert "before step 12" in str(e.value)
    with pytest.raises(EnvironmentFault, match=f"seed {reward}:"):
        next(reports(config, built.compiled, loop(), {}, 0))


SPOILT = [("reward", np.nan, 5, 0), ("next_obs", np.inf, 30, 2), ("obs", -np.inf, 17, 1), ("first", np.nan, 0, 2)]
"""A component of a leaf that is not finite, at a step of an environment's life; "first" is the reset's observation."""


def spoiling(config: Config) -> DeviceEnv:
    """Pendulum that reports one such number once; which one, is drawn for each environment."""
    good = pendulum(config.env.max_episode_steps)

    def spoil(leaf: str, x: Any, drawn: Any, age: Any) -> Any:
        flat = jnp.atleast_1d(x)
        for i, (name, value, when, where) in enumerate(SPOILT):
            here = (name == leaf) & (drawn == i) & (age == when)
            flat = jnp.where(here, flat.at[where % len(flat)].set(value), flat)
        return flat.reshape(jnp.shape(x))

    def reset(key: Any) -> Any:
        (state, obs), drawn = good.reset(key), error_of(key, len(SPOILT))
        return (state, drawn, jnp.int32(0)), spoil("first", obs, drawn, 0)

    def step(state: Any, action: Any, key: Any) -> Any:
        inner, drawn, age = state
        inner, report = good.step(inner, action, key)
        leaves = {name: spoil(name, getattr(report, name), drawn, age) for name in ("reward", "next_obs", "obs")}
        return (inner, drawn, age + 1), report._replace(**leaves)

    return good._replace(reset=reset, step=step)


@cache
def spoilt() -> tuple[Config, Built, Chunk]:
    """Forty steps of a seed for each number, in their order."""
    seeds = [next(seed for seed in range(99) if error_of_seed(seed, len(SPOILT)) == i) for i in range(len(SPOILT))]
    config = device_config(seeds=seeds, total_steps=40, logging={"every": 40})
    built = build(config, spoiling(config), devices=jax.devices()[:1])
    return config, built, next(device_loop(config, built.compiled, built.keys, {}))


@pytest.mark.parametrize("number", range(len(SPOILT)), ids=[f"{leaf} {value}" for leaf, value, *_ in SPOILT])
@pytest.mark.usefixtures("learning_nothing")
def test_no_number_that_is_not_finite_enters_a_replay_on_device(number: int):
    """From a reward, a successor, the first observation of a later episode, or of the run: reported, and not kept."""
    config, built, last = spoilt()
    assert all(np.isfinite(x[number]).all() for x in jax.tree.leaves(last.carry.lane.store))
    assert last.totals.faults[number] >= 1
    faults = np.where(np.arange(len(SPOILT)) == number, last.totals.faults, 0)
    alone = last._replace(totals=last.totals._replace(faults=faults))
    with pytest.raises(EnvironmentFault, match=f"seed {config.seed_list[number]}: an observation or a reward was not"):
        next(reports(config, built.compiled, iter([alone]), {}, 0))


def test_a_metric_that_is_not_finite_ends_the_run_and_names_the_seed():
    built = four()
    chunk = next(device_loop(built.config, built.compiled, built.keys, {}))
    for k, name in enumerate(METRICS):
        for value in (np.nan, np.inf):
            metrics = chunk.totals.metrics.copy()
            metrics[2, k] = value
            spoilt = chunk._replace(totals=chunk.totals._replace(metrics=metrics))
            with pytest.raises(NotFiniteError, match=rf"seed {SEEDS[2]}: {name} was not finite .* number 40;"):
                next(reports(built.config, built.compiled, iter([spoilt]), {}, 0))
    assert next(reports(built.config, built.compiled, iter([chunk]), {}, 0)).step == 60


def test_a_diagnostic_that_is_not_finite_ends_the_run_and_names_the_seed():
    built = four()
    chunk = next(device_loop(built.config, built.compiled, built.keys, {}))
    found = np.array(chunk.totals.diagnostics)
    found[2, DIAGNOSTICS.index("target_distance")] = np.nan
    broken = chunk._replace(totals=chunk.totals._replace(diagnostics=found))
    with pytest.raises(NotFiniteError, match=f"seed {SEEDS[2]}: target_distance was not finite"):
        next(reports(built.config, built.compiled, iter([broken]), {}, 0))
