"""Wrappers around environments written in JAX, beside their twins around those of gymnasium, over episodes' ends."""

from functools import cache
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpg_jax.config.load import load_config
from ddpg_jax.config.sections import WRAPPERS as NAMES
from ddpg_jax.envs.device.autoreset import episodic
from ddpg_jax.envs.device.backends import make_named_env
from ddpg_jax.envs.device.wrappers import WRAPPERS, wrap_device_env
from ddpg_jax.envs.factory import device_env
from ddpg_jax.envs.host.partial import OWN
from ddpg_jax.envs.host.wrappers import Wrapping, wrap
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import DeviceEnv, EnvSpec

SPEC = EnvSpec((3,), "float32", (-2.0, 0.0), (2.0, 8.0))
STEPS = 60


class Played(NamedTuple):
    """First observation, actions in [-1, 1] and reports of `STEPS` steps."""

    first: Any
    action: Any
    step: Any


def drawn() -> DeviceEnv:
    """Observes draws; ends where a draw says so, by either end, or after 9 steps."""

    def reset(key):
        return (), jax.random.normal(key, (3,))

    def step(state, action, key):
        keys = jax.random.split(key)
        ends = jax.random.uniform(keys[0], (2,)) < 0.1
        return state, jax.random.normal(keys[1], (3,)) + action[0], jnp.sum(action), ends[0], ends[1]

    return episodic(reset, step, SPEC, 9)


AS_TRAINED = {"xla_backend_optimization_level": 1} | (
    {"xla_cpu_use_fusion_emitters": True} if jax.__version_info__ < (0, 11) else {}
)
"""The program that trains is compiled so; by the flags of the tests equal numbers may be rounded apart."""


@cache
def player(*wrappings: Any) -> Any:
    """`seed -> Played` of an environment in wrappers, each a name and a tuple of its arguments; compiled once."""
    env = wrap_device_env(drawn(), "drawn", [(name, dict(kwargs)) for name, kwargs in wrappings])

    def play(seed):
        run, acting = jax.random.split(jax.random.key(seed))
        actions = jax.random.uniform(acting, (STEPS, 2), minval=-1)
        state, first = env.reset(jax.random.fold_in(run, STEPS))

        def advance(state, row):
            t, action = row
            return env.step(state, action, jax.random.fold_in(run, t))

        _, steps = jax.lax.scan(advance, state, (jnp.arange(STEPS), actions))
        return Played(first, actions, steps)

    jitted = jax.jit(play, compiler_options=AS_TRAINED)
    return lambda seed: jax.tree.map(np.asarray, jitted(seed)), env.spec


class Again(gymnasium.Env):
    """Plays the steps of an environment written in JAX again, one after the other."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(np.array(SPEC.action_low, np.float32), np.array(SPEC.action_high, np.float32))

    def __init__(self, played: Played) -> None:
        self._played, self._now = played, 0

    def reset(self, **_: Any) -> tuple[Any, dict]:
        return (self._played.step.obs[self._now - 1] if self._now else self._played.first), {}

    def step(self, action: Any) -> tuple[Any, ...]:
        step = jax.tree.map(lambda x: x[self._now], self._played.step)
        self._now += 1
        return step.next_obs, float(step.reward), bool(step.terminated), bool(step.truncated), {}


STACKS = {
    "hide": (("HideObservations", (("indices", (0, 2)),)),),
    "traces": (("MemoryTraces", (("rates", (0.5, 0.9)),)),),
    "traces of observations": (("MemoryTraces", (("rates", (0.25,)), ("actions", False))),),
    "both": (("HideObservations", (("indices", (1,)),)), ("MemoryTraces", ())),
    "traces of traces": (("MemoryTraces", (("rates", (0.5,)),)), ("MemoryTraces", (("rates", (0.75,)),))),
}


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**31 - 1))
def test_a_wrapper_is_the_same_on_both_sides(stack, seed):
    plain, (play, spec) = player()[0](seed), player(*stack)
    mine = play(seed)
    ended = mine.step.terminated | mine.step.truncated
    assert ended.sum() >= 2
    for name in ("reward", "terminated", "truncated"):  # the environment's own draws are what they were
        np.testing.assert_array_equal(getattr(mine.step, name), getattr(plain.step, name))
    env = wrap(Again(plain), [Wrapping(name, dict(kwargs)) for name, kwargs in stack])
    assert env.observation_space.shape == spec.obs_shape == mine.first.shape
    assert env.observation_space.dtype == np.float32
    low, high = (np.array(bound) for bound in (SPEC.action_low, SPEC.action_high))
    np.testing.assert_allclose(mine.first, env.reset()[0], atol=1e-5)
    for t, action in enumerate(plain.action):
        obs, *_ = env.step(low + (high - low) * (action + 1) / 2)
        np.testing.assert_allclose(mine.step.next_obs[t], obs, atol=1e-5)
        following = env.reset()[0] if ended[t] else obs
        np.testing.assert_allclose(mine.step.obs[t], following, atol=1e-5)


def test_traces_by_hand():
    """o_t and two traces of rate 1/2 and 3/4, and of the action before; an end forgets them all."""

    def reset(key):
        return jnp.float32(8.0), jnp.full(1, 8.0)

    def step(state, action, key):
        return state + 8, jnp.full(1, state + 8), 0.0, state >= 16, False

    env = episodic(reset, step, EnvSpec((1,), "float32", (-1.0,), (1.0,)), 99)
    env = wrap_device_env(env, "x", [("MemoryTraces", {"rates": [0.5, 0.75]})])
    state, obs = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(obs, [8, 4, 2, 0, 0])
    state, report = env.step(state, jnp.array([1.0]), jax.random.key(1))
    np.testing.assert_array_equal(report.next_obs, [16, 2 + 8, 1.5 + 4, 0.5, 0.25])
    np.testing.assert_array_equal(report.obs, report.next_obs)
    state, report = env.step(state, jnp.array([-1.0]), jax.random.key(2))
    assert report.terminated
    np.testing.assert_array_equal(report.next_obs, [24, 5 + 12, 4.125 + 6, 0.25 - 0.5, 0.1875 - 0.25])
    np.testing.assert_array_equal(report.obs, [8, 4, 2, 0, 0])
    state, report = env.step(state, jnp.array([1.0]), jax.random.key(3))
    np.testing.assert_array_equal(report.next_obs, [16, 10, 5.5, 0.5, 0.25])


@pytest.mark.parametrize("name", ["NoisyObservations", "DroppedObservations"])
def test_what_disturbs_an_observation_is_drawn_once_for_it(name):
    kwargs = {"NoisyObservations": (("sigma", 0.5),), "DroppedObservations": (("probability", 0.25),)}[name]
    plain, play = player()[0], player((name, kwargs))[0]
    noise, dropped = [], []
    for seed in range(40):
        before, after = plain(seed), play(seed)
        going_on = ~(after.step.terminated | after.step.truncated)
        np.testing.assert_array_equal(after.step.obs[going_on], after.step.next_obs[going_on])
        np.testing.assert_array_equal(after.step.reward, before.step.reward)
        for mine, theirs in ((after.step.next_obs, before.step.next_obs), (after.step.obs, before.step.obs)):
            noise.append(mine - theirs)
            dropped.append((mine == 0).all(-1))
        begun = ~going_on
        change = (after.step.obs - before.step.obs)[begun], (after.step.next_obs - before.step.next_obs)[begun]
        assert not begun.any() or not np.allclose(*change)  # an end has two observations, and two draws
        np.testing.assert_array_equal(after.step.obs, play(seed).step.obs)
    if name == "NoisyObservations":
        drawn_noise = np.concatenate(noise)
        assert abs(drawn_noise.mean()) < 0.02
        assert abs(drawn_noise.std() - 0.5) < 0.02
    else:
        assert abs(np.concatenate(dropped).mean() - 0.25) < 0.03  # 4800 draws, most of them twice


def test_velocities_and_positions_are_hidden_by_the_id():
    env = make_named_env("jax:pendulum", None, {})
    _, obs = env.reset(jax.random.key(0))
    for name, kept in (("HideVelocities", slice(0, 2)), ("HidePositions", slice(2, 3))):
        config = load_config(env={"id": "jax:pendulum", "wrappers": [name]})
        hidden = device_env(config)
        assert hidden.spec == env.spec._replace(obs_shape=(kept.stop - kept.start,))
        assert hidden.max_episode_steps == 200
        np.testing.assert_array_equal(hidden.reset(jax.random.key(0))[1], obs[kept])


def doubled(env: DeviceEnv, factor: float = 2.0) -> DeviceEnv:
    def step(state, action, key):
        state, report = env.step(state, action, key)
        return state, report._replace(reward=factor * report.reward)

    return env._replace(step=step)


def nothing(env: DeviceEnv) -> None:
    return None


def test_one_of_ones_own_is_a_function():
    config = load_config(
        env={"id": "jax:pendulum", "wrappers": [{"name": f"{__name__}:doubled", "kwargs": {"factor": 3.0}}]}
    )
    one, other = make_named_env("jax:pendulum", None, {}), device_env(config)
    state, _ = one.reset(jax.random.key(0))
    rewards = [env.step(state, jnp.ones(1), jax.random.key(1))[1].reward for env in (one, other)]
    assert rewards[1] == 3 * rewards[0]


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("HideVelocity", {}, "did you mean HideVelocities"),
        ("ClipReward", {}, "there are HideObservations, HideVelocities"),
        ("HideVelocities", {}, "velocities of drawn are not known, only those of Pendulum-v1.*HideObservations"),
        ("HideObservations", {"indices": [3]}, r"indices=\[3\]: expected at least one of 0 to 2"),
        ("HideObservations", {"indices": []}, r"indices=\[\]: expected at least one"),
        ("HideObservations", {"indices": [0, 1, 2]}, "not all of them"),
        ("NoisyObservations", {"sigma": -0.5}, "sigma=-0.5: expected a finite number that is not negative"),
        ("DroppedObservations", {"probability": 1.5}, "probability=1.5: expected a number from 0 to 1"),
        ("MemoryTraces", {"rates": [1.0]}, r"rates=\[1.0\]: expected at least one number between 0 and 1"),
        ("MemoryTraces", {"rates": []}, r"rates=\[\]"),
        ("MemoryTraces", {"rate": [0.5]}, "unexpected keyword argument 'rate'"),
        (f"{__name__}:Nothing", {}, "has no 'Nothing'"),
        (f"{__name__}:nothing", {}, "it returned NoneType: expected a DeviceEnv"),
        ("no_such_module:wrap", {}, "No module named 'no_such_module'"),
    ],
)
def test_a_wrapper_that_cannot_be_made_is_refused_by_number_and_name(name, kwargs, said):
    first = ("MemoryTraces", {}) if name == "" else (f"{__name__}:doubled", {})
    with pytest.raises(
        EnvironmentFault, match=rf"^env.wrappers: number 1, '{name}', cannot be made: .*{said}"
    ) as error:
        wrap_device_env(drawn(), "drawn", [first, (name, kwargs)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [(SPEC._replace(obs_shape=(4, 2)), "expected one axis"), (SPEC._replace(obs_dtype="uint8"), "expected float32")],
)
@pytest.mark.parametrize("name", ["NoisyObservations", "DroppedObservations", "MemoryTraces"])
def test_what_is_no_vector_of_floats_is_refused(name, spec, said):
    kwargs = {"NoisyObservations": {"sigma": 1.0}, "DroppedObservations": {"probability": 0.5}, "MemoryTraces": {}}
    with pytest.raises(EnvironmentFault, match=said):
        wrap_device_env(drawn()._replace(spec=spec), "drawn", [(name, kwargs[name])])


def test_a_task_in_another_form_than_the_table_has_is_refused():
    stacked = [("MemoryTraces", {}), ("HideVelocities", {})]
    env = make_named_env("jax:pendulum", None, {})
    with pytest.raises(EnvironmentFault, match=r"known among 3 components, but observations have shape \(15,\)"):
        wrap_device_env(env, "jax:pendulum", stacked)


def test_the_names_are_those_that_a_configuration_knows():
    assert tuple(WRAPPERS) == tuple(OWN) == NAMES
