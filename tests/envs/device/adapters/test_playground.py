"""Tasks of MuJoCo Playground that need no download.

None of these ends but where its physics has become NaN, so the end is added to one of them by hand.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.envs.device.backends import make_named_env
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import EnvSpec

registry = pytest.importorskip("mujoco_playground").registry

from ddpg_jax.envs.device.adapters.playground import from_playground, playground_env  # noqa: E402

NAME = "PendulumSwingup"
ONE = jnp.ones(1)


class Fast:
    """A task of Playground that is over once its pendulum turns fast."""

    def __init__(self, env):
        self.reset, self.action_size, self._step = env.reset, env.action_size, env.step

    def step(self, state, action):
        state = self._step(state, action)
        return state.replace(done=jnp.where(jnp.abs(state.obs[2]) > 0.3, 1.0, state.done))


@pytest.fixture(scope="module")
def swingup():
    return registry.load(NAME, config_overrides={"impl": "jax"})


@pytest.fixture(scope="module")
def cut():
    return playground_env(NAME, 3, {})


def test_a_time_limit_cuts_and_the_next_episode_begins(update_targets, stateful, swingup, cut):
    seen = update_targets(cut, stateful(swingup), -ONE, -ONE, steps=7)
    assert seen.truncated.tolist() == [False, False, True, False, False, True, False]
    assert not seen.terminated.any()
    assert not np.allclose(seen.obs[0], seen.obs[3])


def test_an_end_is_no_cut(update_targets, stateful, swingup):
    seen = update_targets(from_playground(Fast(swingup), 100), stateful(Fast(swingup)), ONE, ONE, steps=20)
    assert seen.terminated.any()
    assert not seen.truncated.any()


def test_actions_arrive_as_the_bounds(swingup, cut):
    """At the motors, whose range is the same."""
    np.testing.assert_array_equal(
        swingup.mj_model.actuator_ctrlrange, [[cut.spec.action_low[0], cut.spec.action_high[0]]]
    )
    step = jax.jit(cut.step)
    state, _ = jax.jit(cut.reset)(jax.random.key(0))
    for action in (-1.0, 1.0):
        state, _ = step(state, action * ONE, jax.random.key(1))
        np.testing.assert_array_equal(state.state.data.ctrl, [action])


def test_lanes_are_environments_of_their_own(lanes, cut):
    lanes(cut)


def test_a_state_whose_metrics_are_written_into_is_not_changed():
    """CartpoleBalance writes into the dictionary of the state it is given."""
    env = make_named_env("playground:CartpoleBalance", None, {"vision_config": {"nworld": 8}})
    assert env.max_episode_steps == 1000
    assert env.spec == EnvSpec((5,), "float32", (-1.0,), (1.0,))
    state, _ = env.reset(jax.random.key(0))
    before = jax.tree.map(np.asarray, state.state.metrics)
    env.step(state, ONE, jax.random.key(1))
    assert jax.tree.all(jax.tree.map(np.array_equal, before, state.state.metrics))


def test_settings_reach_the_configuration():
    assert playground_env(NAME, None, {"episode_length": 50}).max_episode_steps == 50


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("PendulumSwingUp", {}, "Playground environment 'PendulumSwingUp' is not known: did you mean PendulumSwingup"),
        (NAME, {"sim_td": 1}, "setting of playground:PendulumSwingup 'sim_td' is not known: did you mean sim_dt"),
        (
            "CartpoleBalance",
            {"vision_config": {"worlds": 1}},
            "'vision_config.worlds' is not known: .*vision_config.nworld",
        ),
        (NAME, {"vision": True}, "playground:PendulumSwingup cannot be made: Vision not implemented"),
        (NAME, {"sim_dt": "slow"}, "playground:PendulumSwingup cannot be made: .*sim_dt"),
        (NAME, {"action_repeat": 2}, "action_repeat=2, which Playground leaves to a wrapper.*ctrl_dt=0.04"),
    ],
)
def test_refusals(name, kwargs, message):
    with pytest.raises(EnvironmentFault, match=message):
        playground_env(name, None, kwargs)


def test_of_dictionaries_the_state_is_observed(swingup):
    class Dictionaries(Fast):
        def __init__(self, env, entry):
            super().__init__(env)
            self.reset = lambda key: self._dressed(env.reset(key))
            self._entry, self._plain = entry, env.step

        def _dressed(self, state):
            return state.replace(obs={self._entry: state.obs, "privileged_state": state.obs[:1]})

        def step(self, state, action):
            return self._dressed(self._plain(state.replace(obs=state.obs[self._entry]), action))

    assert from_playground(Dictionaries(swingup, "state"), 5).spec.obs_shape == (3,)
    with pytest.raises(
        EnvironmentFault, match="observations are a dict of pixels, privileged_state: expected one array"
    ):
        from_playground(Dictionaries(swingup, "pixels"), 5)
