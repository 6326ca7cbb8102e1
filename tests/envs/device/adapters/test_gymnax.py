"""gymnax's environments of continuous actions, before and since its version 1."""

import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.envs.device.backends import make_named_env
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import EnvSpec

gymnax = pytest.importorskip("gymnax")

from gymnax.environments.classic_control.continuous_mountain_car import ContinuousMountainCar, EnvParams  # noqa: E402

from ddpg_jax.envs.device.adapters.gymnax import from_gymnax, gymnax_env  # noqa: E402

ONE = jnp.ones(1)
CONTINUOUS = ["MountainCarContinuous-v0", "Pendulum-v1", "PointRobot-misc", "Reacher-misc", "Swimmer-misc"]


class Cut(ContinuousMountainCar):
    """Ends after four steps, whatever its parameters say."""

    def step_env(self, key, state, action, params):
        obs, state, reward, done, info = super().step_env(key, state, action, params)
        return obs, state, reward, done | (state.time >= 4), info


class Endless(ContinuousMountainCar):
    """Never ends, and needs no limit among its parameters."""

    def is_terminal(self, state, params):
        return jnp.array(False)

    is_terminated = is_terminal


NO_LIMIT = SimpleNamespace(
    **{name: value for name, value in vars(EnvParams()).items() if name != "max_steps_in_episode"}
)


@pytest.fixture(scope="module")
def by_hand(raw):
    """Of gymnax's own functions; its time limit is merged into `done` before version 1."""

    def make(env, params):
        def step(state, action, key):
            obs, state, reward, done, _ = env.step_env(key, state, action, params)
            return state, obs, reward, done

        return raw(lambda key: env.reset_env(key, params)[::-1], step)

    return make


@pytest.mark.parametrize("action", [-1.0, 1.0])
def test_a_time_limit_cuts_and_the_next_episode_begins(update_targets, by_hand, action):
    env = gymnax_env("Pendulum-v1", 3, {})
    seen = update_targets(env, by_hand(*gymnax.make("Pendulum-v1")), action * ONE, 2 * action * ONE, steps=7)
    assert seen.truncated.tolist() == [False, False, True, False, False, True, False]
    assert not seen.terminated.any()


def test_an_end_is_no_cut(update_targets, by_hand):
    """Rolling down from the left rim, with the goal moved to the bottom of the valley."""
    goal = {"goal_position": -0.42}
    car, params = gymnax.make("MountainCarContinuous-v0")
    env = gymnax_env("MountainCarContinuous-v0", None, goal)
    seen = update_targets(env, by_hand(car, params.replace(**goal)), ONE, ONE, steps=40)
    assert seen.terminated.sum() > 1
    assert not seen.truncated.any()


def test_the_time_limit_of_gymnax_is_no_end():
    """The package's own limit, 200: before version 1 gymnax calls it `done` as it does an end."""
    env = gymnax_env("Pendulum-v1", None, {})

    def body(carry, t):
        state, key = carry
        state, out = env.step(state, ONE, jax.random.fold_in(key, t))
        return (state, key), (out.terminated, out.truncated)

    state, _ = env.reset(jax.random.key(0))
    _, (terminated, truncated) = jax.jit(lambda *carry: jax.lax.scan(body, carry, jnp.arange(400)))(
        state, jax.random.key(1)
    )
    assert not terminated.any()
    assert np.flatnonzero(truncated).tolist() == [199, 399]


@pytest.mark.parametrize("action", [-1.0, 1.0])
def test_actions_arrive_as_the_bounds(action):
    env = gymnax_env("Pendulum-v1", 5, {"max_torque": 0.7})
    state, _ = env.reset(jax.random.key(0))
    state, _ = jax.jit(env.step)(state, action * ONE, jax.random.key(1))
    assert state.state.last_u == np.float32(0.7 * action)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_all_of_continuous_actions_without_a_warning(name):
    env, params = gymnax.make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted = make_named_env(f"gymnax:{name}", None, {})
    assert adapted.max_episode_steps == params.max_steps_in_episode
    assert adapted.spec.obs_shape == env.reset_env(jax.random.key(0), params)[0].shape


@pytest.mark.parametrize("name", ["MountainCarContinuous-v0", "PointRobot-misc"])
def test_lanes_are_environments_of_their_own(lanes, name):
    lanes(gymnax_env(name, 3, {}))


def test_bounds_are_those_of_each_component():
    assert gymnax_env("Pendulum-v1", None, {}).spec == EnvSpec((3,), "float32", (-2.0,), (2.0,))
    assert gymnax_env("PointRobot-misc", None, {"max_force": 0.5}).spec == EnvSpec(
        (6,), "float32", (-0.5, -0.5), (0.5, 0.5)
    )


def test_arguments_reach_the_parameters_and_the_constructor():
    assert gymnax_env("Pendulum-v1", None, {"max_steps_in_episode": 50}).max_episode_steps == 50
    assert gymnax_env("Pendulum-v1", 7, {"max_steps_in_episode": 50}).max_episode_steps == 7
    assert gymnax_env("Swimmer-misc", None, {"num_urchins": 3}).spec.obs_shape == (12,)


def test_a_limit_that_cannot_be_told_from_an_end_is_said_once():
    with pytest.warns(UserWarning, match="MountainCarContinuous-v0 reports a time limit as an end") as said:
        env = from_gymnax(Cut(), Cut().default_params.replace(max_steps_in_episode=4))
    assert len(said) == 1
    state, _ = env.reset(jax.random.key(0))  # a warning here would be an error
    for seed in range(1, 5):
        state, out = env.step(state, ONE, jax.random.key(seed))
    assert out.terminated
    assert out.truncated


def test_parameters_without_a_limit():
    with pytest.raises(EnvironmentFault, match="no max_steps_in_episode: give it a time limit"):
        from_gymnax(Endless(), NO_LIMIT)
    if not hasattr(ContinuousMountainCar, "is_truncated"):
        with pytest.warns(UserWarning, match="reports a time limit as an end"):
            from_gymnax(Endless(), NO_LIMIT, 5)


def test_cuts_that_an_environment_tells_apart_are_kept(update_targets, by_hand):
    class Telling(Endless):
        def is_truncated(self, state, params):
            return state.time >= 2

    seen = update_targets(from_gymnax(Telling(), NO_LIMIT, 5), by_hand(Telling(), NO_LIMIT), ONE, ONE, steps=4)
    assert seen.truncated.tolist() == [False, True, False, True]
    assert not seen.terminated.any()


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("CartPole-v1", {}, "Discrete.* is not a Box: ddpg_jax trains continuous actions only"),
        ("Pendulum-v0", {}, "gymnax environment 'Pendulum-v0' is not known: did you mean Pendulum-v1"),
        (
            "Pendulum-v1",
            {"torque": 1},
            "gymnax:Pendulum-v1 cannot be made: .*'torque'.*its parameters are .*max_torque",
        ),
    ],
)
def test_refusals(name, kwargs, message):
    with pytest.raises(EnvironmentFault, match=message):
        gymnax_env(name, None, kwargs)
