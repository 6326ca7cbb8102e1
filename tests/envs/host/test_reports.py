"""What can only be meant in one way is taken as if it were the usual one."""

import logging
from fractions import Fraction

import custom_envs as custom
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.envs.host.reports import as_flag, as_number
from ddpg_jax.envs.host.vector import VectorEnv
from ddpg_jax.errors import EnvironmentFault

ONE = [1.5, np.float64(1.5), np.float32(1.5), np.array(1.5), np.array([1.5]), np.array([[1.5]]), [1.5], Fraction(3, 2)]
WHOLE = [2, True + 1, np.int64(2), np.array([2]), np.uint8(2)]


class Reports(custom.Walk):
    """Changes each report of a walk."""

    def __init__(self, change):
        super().__init__()
        self._change = change

    def step(self, action):
        return self._change(*super().step(action))


def steps(make, count=5):
    """The steps of one environment under fixed actions."""
    lanes = VectorEnv(make, (1, 1), custom.lane_seed)
    lanes.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (count, 1, 1, 2)).astype(np.float32)
    return [lanes.step(action) for action in actions]


def changed(**changes):
    def change(obs, reward, terminated, truncated, info):
        report = {"obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated}
        return *(changes.get(name, lambda x: x)(value) for name, value in report.items()), info

    return lambda: Reports(change)


@pytest.mark.parametrize("value", [*ONE, jnp.float32(1.5), jnp.array([1.5])], ids=repr)
def test_one_number_of_any_type_and_shape_is_a_reward(value):
    assert as_number(value) == 1.5


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_numbers_are_rewards(value):
    assert (as_number(value), type(as_number(value))) == (2.0, float)


@pytest.mark.parametrize("wrap", [int, float, np.int64, np.array, lambda x: np.array([x]), lambda x: [x], jnp.array])
def test_an_end_may_be_0_or_1_of_any_type_and_shape(wrap):
    assert [as_flag(wrap(value)) for value in (False, True)] == [False, True]


@pytest.mark.parametrize("value", [2, 0.5, np.nan, -1, None, "1", [True, True], [], 1j, b"1"], ids=repr)
def test_no_other_end_is_taken(value):
    with pytest.raises(TypeError, match="must be True or False, 1 or 0, not "):
        as_flag(value)


@pytest.mark.parametrize("value", ["1.5", b"1", None, [1, 2], [], 1j, np.array([1j]), {}, np.array(["1"])], ids=repr)
def test_no_other_reward_is_taken(value):
    with pytest.raises(TypeError):
        as_number(value)


@pytest.mark.parametrize(
    "changes",
    [
        {"obs": lambda obs: obs.tolist()},
        {"obs": tuple},
        {"obs": jnp.asarray},
        {"reward": lambda reward: np.array([reward])},
        {"reward": int},
        {"terminated": int, "truncated": lambda end: np.array([end])},
    ],
    ids=["list", "tuple", "jax", "reward of shape (1,)", "int reward", "ends"],
)
def test_such_reports_give_the_steps_of_the_usual_ones(changes):
    for usual, step in zip(steps(changed()), steps(changed(**changes)), strict=True):
        for name, x, y in zip(usual._fields, usual, step, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)
            assert x.dtype == y.dtype


def test_lists_of_bytes_are_images_and_those_of_larger_numbers_are_not():
    def image(value):
        class Listed(custom.Bytes):
            def _report(self, *values):
                return np.full((4, 2, 3), value).tolist()

        return VectorEnv(Listed, (1, 1), custom.lane_seed)

    assert (image(255).reset() == 255).all()
    for value in (256, -1, 0.5):
        with pytest.raises(EnvironmentFault, match="returned list as observation"):
            image(value).reset()


@pytest.mark.parametrize(
    ("component", "lost"),
    [
        (lambda t: 1.75e9 + 0.05 * t, True),  # seconds since 1970
        (lambda t: np.int64(1_750_000_000_000 + 50 * t), True),
        (lambda t: 0.05 * t, False),
        (lambda t: 5.0 + 2.0**-t, False),  # comes to rest
        (lambda t: 1.75e9, False),  # stays as it is
        (lambda t: 1e6 + t, False),
    ],
    ids=["seconds", "milliseconds", "small", "at rest", "constant", "whole"],
)
def test_observations_that_float32_cannot_tell_apart_are_warned_of_once(component, lost, caplog):
    class Timed(custom.Walk):
        def _report(self, *values):
            value = component(values[1])
            return np.array([0, value, 0], np.asarray(value).dtype)

    with caplog.at_level(logging.WARNING, "ddpg_jax"):
        steps(lambda: Timed(end=1000), 200)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == lost
    assert all("observation component 1 changes" in line and "float32" in line for line in said)
