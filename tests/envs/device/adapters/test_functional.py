"""gymnasium's functional pendulum, also one that ends, and what is refused."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.phys2d import PendulumFunctional
from gymnasium.spaces import Box, Dict, Discrete

from ddpg_jax.envs.device import pendulum
from ddpg_jax.envs.device.adapters.functional import from_func_env, functional
from ddpg_jax.envs.device.backends import make_named_env
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import EnvSpec

ONE = jnp.ones(1)


class Falling(PendulumFunctional):
    """gymnasium's pendulum, over once it turns fast; its state has a key, and an int that becomes a float."""

    limit = 1.5

    def initial(self, rng):
        rng, key = jax.random.split(rng)
        return {"angles": super().initial(rng), "steps": 0, "key": key}

    def transition(self, state, action, rng):
        key, _ = jax.random.split(state["key"])
        return {"angles": super().transition(state["angles"], action), "steps": state["steps"] + 0.5, "key": key}

    def observation(self, state, rng):
        return super().observation(state["angles"], rng)

    def reward(self, state, action, next_state, rng):
        return super().reward(state["angles"], action, next_state["angles"], rng)

    def terminal(self, state, rng):
        return jnp.abs(state["angles"][1]) > self.limit


@pytest.fixture(scope="module")
def by_hand(raw):
    def make(env):
        def reset(key):
            first, second = jax.random.split(key)
            state = env.initial(first)
            return state, env.observation(state, second)

        def step(state, action, key):
            keys = jax.random.split(key, 4)
            after = env.transition(state, action, keys[0])
            reward = env.reward(state, action, after, keys[2])
            return after, env.observation(after, keys[1]), reward, env.terminal(after, keys[3])

        return raw(reset, step)

    return make


@pytest.mark.parametrize(("action", "torque"), [(-1.0, -2.0), (1.0, 2.0)])
def test_a_time_limit_cuts_and_the_next_episode_begins(update_targets, by_hand, action, torque):
    env = functional("pendulum", 3, {})
    seen = update_targets(env, by_hand(PendulumFunctional()), action * ONE, torque * ONE, steps=7)
    assert seen.truncated.tolist() == [False, False, True, False, False, True, False]
    assert not seen.terminated.any()
    assert not np.allclose(seen.obs[0], seen.obs[3])


@pytest.mark.usefixtures("unchecked_keys")
def test_an_end_is_no_cut(update_targets, by_hand):
    env = from_func_env(Falling(), 40)
    seen = update_targets(env, by_hand(Falling()), ONE, 2 * ONE, steps=30, seed=1)
    assert seen.terminated.any()
    assert not seen.truncated.any()


@pytest.mark.usefixtures("unchecked_keys")
def test_an_end_at_the_limit_is_both(update_targets, by_hand):
    env = from_func_env(Falling({"limit": 0.0}), 1)
    seen = update_targets(env, by_hand(Falling({"limit": 0.0})), ONE, 2 * ONE, steps=2)
    assert seen.terminated.all()
    assert seen.truncated.all()


@pytest.mark.parametrize("action", [-1.0, 1.0])
def test_actions_arrive_as_the_bounds(action):
    class Recording(PendulumFunctional):
        action_space = Box(np.array([-0.3, 0.1], np.float32), np.array([0.7, 7.0], np.float32))

        def initial(self, rng):
            return jnp.zeros(2)

        def transition(self, state, action, rng):
            return action

    env = from_func_env(Recording(), 5)
    state, _ = env.reset(jax.random.key(0))
    state, _ = jax.jit(env.step)(state, jnp.full(2, action), jax.random.key(1))
    bound = Recording.action_space.low if action < 0 else Recording.action_space.high
    np.testing.assert_array_equal(state.state, bound)


@pytest.mark.usefixtures("unchecked_keys")
@pytest.mark.parametrize("make", [PendulumFunctional, Falling])
def test_lanes_are_environments_of_their_own(lanes, make):
    lanes(from_func_env(make(), 3))


@pytest.mark.usefixtures("unchecked_keys")
def test_a_count_that_becomes_a_float_loses_nothing():
    env = from_func_env(Falling({"limit": 9.0}), 5)
    state, _ = env.reset(jax.random.key(0))
    assert state.state["steps"].dtype == jnp.float32
    state, _ = env.step(state, ONE, jax.random.key(1))
    assert state.state["steps"] == 0.5


def test_it_is_made_by_its_name_and_is_our_pendulum_but_for_the_first_states():
    env = make_named_env("phys2d:pendulum", None, {})
    assert env.max_episode_steps == gymnasium.spec("phys2d/Pendulum-v0").max_episode_steps == 200
    assert env.spec == EnvSpec((3,), "float32", (-2.0,), (2.0,))
    state, _ = env.reset(jax.random.key(0))
    ours, _ = pendulum.pendulum().reset(jax.random.key(0))
    ours = ours._replace(state=pendulum.Pendulum(*state.state))
    for seed in range(3):
        state, out = env.step(state, 0.3 * ONE, jax.random.key(seed))
        ours, expected = pendulum.pendulum().step(ours, 0.3 * ONE, jax.random.key(seed))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), out, expected)


def test_parameters_reach_the_environment():
    heavy, plain = (functional("pendulum", 5, kwargs) for kwargs in ({"m": 9}, {}))
    state, _ = plain.reset(jax.random.key(0))
    (_, a), (_, b) = (env.step(state, ONE, jax.random.key(1)) for env in (heavy, plain))
    assert not np.allclose(a.next_obs, b.next_obs)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("cartpole", {}, r"Discrete\(2\) is not a Box: ddpg_jax trains continuous actions only"),
        ("pendulm", {}, "phys2d environment 'pendulm' is not known: did you mean pendulum"),
        ("pendulum", {"gravity": 1}, "parameter of phys2d:pendulum 'gravity' is not known"),
    ],
)
def test_refusals_of_names(name, kwargs, message):
    with pytest.raises(EnvironmentFault, match=message):
        functional(name, None, kwargs)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"action_space": Box(-np.inf, 1, (1,))}, r"component 0 has bounds \[-inf, 1.0\]: they must be finite"),
        ({"action_space": Box(-1, 1, (2, 2))}, r"shape \(2, 2\): flatten"),
        ({"action_space": Box(1, 1, (1,))}, "the lower must be below the upper"),
        ({"action_space": Box(0, 9, (1,), np.int64)}, "is not floating"),
        ({"action_space": Dict({"a": Discrete(2)})}, "is not a Box"),
        ({"observation": lambda state, key: {"a": state, "b": state}}, "observations are a dict of a, b: expected one"),
        ({"observation": lambda state, key: (state, state)}, "observations are a tuple: expected one"),
        ({"reward": lambda state, action, after, key: action}, r"reward of a step has shape \(1,\): expected \(\)"),
        (
            {"transition": lambda *_: jnp.zeros((2, 1)), "observation": lambda *_: jnp.zeros(3)},
            r"state has shape \(2,\) after a reset and \(2, 1\) after a step",
        ),
        ({"initial": lambda key: tuple(jnp.zeros(2))}, "has other parts than after a reset"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_refusals_of_what_cannot_be_trained(attributes, message):
    with pytest.raises(EnvironmentFault, match=message):
        from_func_env(PendulumFunctional(attributes), 5)


def test_images_stay_bytes():
    image = {"observation": lambda state, key: jnp.full((4, 4, 1), state[0]).astype(jnp.uint8)}
    env = from_func_env(PendulumFunctional(image), 5)
    state, obs = env.reset(jax.random.key(0))
    assert env.spec[:2] == ((4, 4, 1), "uint8")
    assert obs.dtype == env.step(state, ONE, jax.random.key(1))[1].next_obs.dtype == jnp.uint8
