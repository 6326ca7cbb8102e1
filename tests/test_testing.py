"""The checks for strangers pass what keeps its contract, and name what does not."""

import itertools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stranger

import ddpg_jax as dj
from ddpg_jax.testing import check_agent, check_callback, check_device_env, check_env, check_logger

_MADE = itertools.count()


class Remembers(stranger.Point):
    """An episode that depends on how many there were before."""

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self._x = self._x * 0.5 + 0.01 * (next(_MADE) % 50)
        return obs, info


class Breaks:
    def write(self, rows):
        raise ValueError("mine")

    def sync(self):
        return 0

    def close(self): ...


def faulty(**changes):
    def reset(key):
        return jnp.zeros(()), jnp.zeros(2)

    def step(x, action, key):
        obs = changes.get("obs", lambda x: jnp.full(2, x))(x)
        return x + action[0], obs, jnp.zeros(()), False

    return dj.make_device_env(reset, step, action_low=[-1.0], action_high=[1.0], max_episode_steps=10)


def test_a_logger_that_keeps_its_contract_passes():
    check_logger(stranger.Counts)


@pytest.mark.slow
def test_what_keeps_its_contract_passes():
    check_env(stranger.Point)
    check_device_env(stranger.device_point(), steps=50)
    check_callback(stranger.norm)
    check_agent(stranger.quantiles)


def test_an_environment_that_does_not_repeat_itself_is_found():
    with pytest.raises(AssertionError, match="resumed"):
        check_env(Remembers)


def test_an_environment_in_jax_that_diverges_is_found():
    with pytest.raises(AssertionError, match="not finite"):
        check_device_env(faulty(obs=lambda x: jnp.full(2, jnp.log(-1.0 - x * x))), steps=20)


def test_an_action_out_of_bounds_is_found():
    def make(config, spec):
        agent = stranger.quantiles(config, spec)
        return agent._replace(policy=lambda state, obs: 1.5 + 0 * agent.policy(state, obs))

    with pytest.raises(Exception, match="not within"):
        check_agent(make)


def test_a_logger_and_a_callback_that_break_are_found():
    with pytest.raises(ValueError, match="mine"):
        check_logger(Breaks)
    with pytest.raises(AssertionError, match="differs"):
        check_callback(lambda report: {"n": next(_MADE)})
    with pytest.raises(AssertionError, match="expected metrics"):
        check_callback(lambda report: 5)


class Style:
    """A point in the form of gymnax's environments, without gymnax."""

    class Params(tuple):
        __slots__ = ()
        max_steps_in_episode = 7

        def replace(self, **changes):
            return self

    default_params = Params()

    def reset_env(self, key, params):
        x = jax.random.uniform(key, minval=-1.0)
        return x[None], x

    def step_env(self, key, x, action, params):
        x = jnp.clip(x + 0.1 * action[0], -1, 1)
        return x[None], x, -jnp.square(x), jnp.zeros((), bool), {}

    def is_truncated(self, x, params):
        return jnp.zeros((), bool)

    def action_space(self, params):
        return gymnasium.spaces.Box(-2, 1, (1,), np.float32)


def test_an_environment_in_gymnax_style_is_a_device_environment():
    env = dj.from_gymnax(Style())
    assert env.max_episode_steps == 7
    assert env.spec.action_low == (-2.0,)
    state, obs = env.reset(jax.random.key(0))
    moved = env.step(state, jnp.ones(1), jax.random.key(1))[1]
    np.testing.assert_allclose(moved.next_obs, jnp.clip(obs + 0.1, -1, 1), rtol=1e-6)
    assert dj.from_gymnax(Style(), max_episode_steps=3).max_episode_steps == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"action_low": [1.0]}, "below its upper"),
        ({"action_low": [0.0, 0.0]}, "two lists"),
        ({"action_low": [], "action_high": []}, "two lists"),
        ({"action_low": -1.0, "action_high": 1.0}, "two lists"),
        ({"action_high": [float("inf")]}, "finite"),
        ({"max_episode_steps": 0}, "from 1"),
        ({"step": lambda x, a, key: (x, x[None], 0.0)}, "returned 3 values"),
        ({"step": lambda x, a, key: (x, jnp.zeros(3), 0.0, False)}, "observation of a step has shape"),
    ],
)
def test_functions_that_are_no_environment_are_refused(changes, said):
    def reset(key):
        return jnp.zeros(()), jnp.zeros(1)

    given = {"step": lambda x, a, key: (x, x[None], 0.0, False), "action_low": [-1.0], "action_high": [1.0]}
    given |= {"max_episode_steps": 5} | changes
    with pytest.raises(dj.errors.EnvironmentFault, match=said):
        dj.make_device_env(reset, **given)
