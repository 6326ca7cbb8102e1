"""brax's inverted pendulum, which falls, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.envs.device.backends import make_named_env
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import EnvSpec

envs = pytest.importorskip("brax.envs")

from ddpg_jax.envs.device.adapters.brax import brax_env, from_brax  # noqa: E402

pytestmark = pytest.mark.filterwarnings(  # that brax is no longer maintained, and what follows from it
    "ignore:Brax System:UserWarning", "ignore:Accessing .* directly from `Data`:DeprecationWarning"
)

NAME = "inverted_pendulum"
ONE = jnp.ones(1)


@pytest.fixture(scope="module")
def by_hand(stateful):
    return stateful(envs.get_environment(NAME))


def test_a_time_limit_cuts_and_the_next_episode_begins(update_targets, by_hand):
    env = brax_env(NAME, 3, {})
    seen = update_targets(env, by_hand, -0.1 * ONE, -0.1 * ONE, steps=7)
    assert seen.truncated.tolist() == [False, False, True, False, False, True, False]
    assert not seen.terminated.any()
    assert not np.allclose(seen.obs[0], seen.obs[3])


def test_an_end_is_no_cut(update_targets, by_hand):
    """Pushed until it falls, twice."""
    seen = update_targets(brax_env(NAME, None, {}), by_hand, ONE, ONE, steps=25)
    assert seen.terminated.sum() > 1
    assert not seen.truncated.any()


@pytest.mark.parametrize("action", [-1.0, 1.0])
def test_actions_arrive_as_the_bounds(action):
    class Recording(type(envs.get_environment("fast"))):
        def step(self, state, action):
            return super().step(state, action).replace(reward=action[0])

    state, _ = (env := from_brax(Recording(), 5)).reset(jax.random.key(0))
    assert env.step(state, action * ONE, jax.random.key(1))[1].reward == action


def test_lanes_are_environments_of_their_own(lanes):
    lanes(brax_env(NAME, 3, {}))


def test_it_is_made_by_its_name():
    env = make_named_env(f"brax:{NAME}", None, {"backend": "positional"})
    assert env.max_episode_steps == 1000
    assert env.spec == EnvSpec((4,), "float32", (-1.0,), (1.0,))


def test_of_dictionaries_the_state_is_observed():
    assert brax_env("fast", None, {"obs_mode": "dict_pixels_state"}).spec.obs_shape == (2,)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        (
            "inverted_pendulums",
            {},
            "brax environment 'inverted_pendulums' is not known: did you mean inverted_pendulum",
        ),
        (NAME, {"gravity": 1}, "brax:inverted_pendulum cannot be made: .*'gravity'"),
        (NAME, {"backend": "bullet"}, "brax:inverted_pendulum cannot be made: backend should be in .*'spring'"),
        ("fast", {"obs_mode": "dict_pixels"}, "observations are a dict of pixels/view_0, pixels/view_1: expected one"),
    ],
)
def test_refusals(name, kwargs, message):
    with pytest.raises(EnvironmentFault, match=message):
        brax_env(name, None, kwargs)
