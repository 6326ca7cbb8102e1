"""Wrappers that a configuration names, actions without bounds, and numbers of the info."""

import logging

import numpy as np
import pytest
from brought_envs import Brought
from gymnasium.spaces import Box
from gymnasium.wrappers import ClipReward, FrameStackObservation, TimeLimit

from ddpg_jax.envs.host.infos import EndedInfo
from ddpg_jax.envs.host.make import describe, make_env
from ddpg_jax.envs.host.vector import VectorEnv
from ddpg_jax.envs.host.workers import SubprocVectorEnv
from ddpg_jax.envs.host.wrappers import Wrapping, bound_actions, unknown_wrapper
from ddpg_jax.errors import EnvironmentFault

CLIP = {"min_reward": -1}
FREE = {"form": "vector", "bounded": False, "action": [6]}


def layers(env):
    found = [type(env)]
    while hasattr(env, "env"):
        env = env.env
        found.append(type(env))
    return found


def test_wrappers_are_put_around_in_order_outside_the_time_limit():
    stack, clip = Wrapping("FrameStackObservation", {"stack_size": 3}), Wrapping("gymnasium.wrappers.ClipReward", CLIP)
    env = make_env("Brought-v0", 5, {"form": "vector"}, wrappings=[stack, clip])
    assert layers(env)[:3] == [ClipReward, FrameStackObservation, TimeLimit]
    assert env.func(-5.0) == -1
    assert describe(env).layout[0].shape == (3, 12)


def test_one_of_ones_own_is_named_with_its_module():
    env = make_env(
        "Brought-v0", None, {}, wrappings=[Wrapping("gymnasium.wrappers:TimeLimit", {"max_episode_steps": 3})]
    )
    assert layers(env)[0] is TimeLimit


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("ClipRewards", {}, "did you mean ClipReward"),
        ("Wrapper", {}, "no wrapper of this name"),
        ("vector.ClipReward", {}, "no wrapper of this name"),
        ("FrameStackObservation", {}, "stack_size"),
        ("ClipReward", {"lowest": 1}, "lowest"),
        ("brought_envs:Nothing", {}, "has no 'Nothing'"),
        ("no_such_module:Wrap", {}, "No module named 'no_such_module'"),
    ],
)
def test_a_wrapper_that_cannot_be_made_is_refused_by_number_and_name(name, kwargs, said):
    Brought.alive = 0
    with pytest.raises(
        EnvironmentFault, match=rf"^env.wrappers: number 1, '{name}', cannot be made: .*{said}"
    ) as caught:
        make_env("Brought-v0", None, {}, wrappings=[Wrapping("ClipReward", CLIP), Wrapping(name, kwargs)])
    assert "\n" not in str(caught.value)
    assert Brought.alive == 0
    assert (unknown_wrapper(name) is None) == (":" in name or not said.startswith(("did", "no")))


@pytest.mark.parametrize(
    ("action_range", "low", "high"),
    [
        (((-2, 3),), [-2] * 6, [3] * 6),
        (tuple((-i, i) for i in range(1, 7)), [-1, -2, -3, -4, -5, -6], [1, 2, 3, 4, 5, 6]),
    ],
    ids=["one", "each"],
)
def test_actions_without_bounds_are_given_a_range(action_range, low, high):
    spec = describe(make_env("Brought-v0", None, FREE, action_range=action_range))
    assert (spec.action_low, spec.action_high) == (tuple(map(float, low)), tuple(map(float, high)))


def test_bounds_that_there_are_stay():
    env = Brought(form="vector")
    env.action_space = Box(np.array([[-np.inf, 0, -1]], np.float32), np.array([[np.inf, np.inf, 1]], np.float32))
    spec = describe(bound_actions(env, ((-2, 2),)))
    assert (spec.action_low, spec.action_high, spec.action_shape) == ((-2, 0, -1), (2, 2, 1), (1, 3))


@pytest.mark.parametrize(
    ("kwargs", "action_range", "said"),
    [
        (FREE, None, "must be finite.*set env.action_range"),
        (FREE, ((-1, 1), (-1, 1)), "has 2 pairs, but .* has 6 components"),
        (FREE, ((1, 1 + 1e-9),), "must be below"),
        ({}, ((-1, 1),), "no effect.*leave it out"),
    ],
)
def test_a_range_that_is_missing_or_cannot_be_meant_is_refused(kwargs, action_range, said):
    with pytest.raises(EnvironmentFault, match=said):
        make_env("Brought-v0", None, kwargs, action_range=action_range)


def test_a_key_that_is_missing_or_no_number_is_warned_of_once(caplog):
    caplog.set_level(logging.WARNING, "ddpg_jax")
    info = EndedInfo(["good", "gone", "name"], 2)
    for lane in (0, 1, 0):
        info.note(lane, {"good": np.array([True]), "name": "x"})
    np.testing.assert_array_equal(info.values, [[1, np.nan, np.nan]] * 2)
    gone, name = (record.getMessage() for record in caplog.records)
    assert "'gone' is not in the info of an episode's end, which holds good, name" in gone
    assert "'name' is no number, but str" in name
    info.note(1, None)
    assert np.isnan(info.values[1]).all()


def make_short():
    return Brought(end=2)


def test_workers_report_the_info_of_ends_too():
    keys, actions = ("is_success", "distance"), np.random.default_rng(0).uniform(-1, 1, (5, 2, 3, 6)).astype(np.float32)
    seeds = _seed
    here = VectorEnv(make_short, (2, 3), seeds, info_keys=keys)
    there = SubprocVectorEnv(
        make_short, (2, 3), seeds, spec=describe(make_short()), workers=2, timeout=60.0, info_keys=keys
    )
    try:
        np.testing.assert_array_equal(here.reset(), there.reset())
        for action in actions:
            mine, theirs = here.step(action), there.step(action)
            np.testing.assert_array_equal(mine.obs, theirs.obs)
            np.testing.assert_array_equal(here.ended_info, there.ended_info)
        assert np.isfinite(here.ended_info).all()
    finally:
        there.close()


def _seed(lane, episode):
    return 100 * lane + episode
