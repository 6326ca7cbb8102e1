"""Numbers below pictures: by hand, from NumPy and JAX alike, and on the way from environments to networks."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counted import counted

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.agents.augmentations import random_shift
from ddpg_jax.config.load import load_config
from ddpg_jax.envs.device.pixels import pixels
from ddpg_jax.envs.factory import device_env, env_maker
from ddpg_jax.envs.host.from_device import FromDevice
from ddpg_jax.envs.host.make import describe, make_env
from ddpg_jax.envs.host.pixels import see_pixels
from ddpg_jax.envs.mixed import number_rows, numbers_in, put_below, split_rows
from ddpg_jax.envs.pictures import View
from ddpg_jax.errors import ConfigError, EnvironmentFault
from ddpg_jax.rng import run_keys
from ddpg_jax.runs.export.golden import golden_observations
from ddpg_jax.types import Transition


def test_the_bytes_of_numbers_fill_rows_below():
    """1.5 is 3fc00000 and -2 is c0000000, the last byte first; two rows of 6 bytes hold 8, and 4 stay 0."""
    picture = np.full((2, 3, 2), 7, np.uint8)
    numbers = np.array([1.5, -2.0], np.float32)
    expected = np.concatenate([picture.ravel(), [0, 0, 0xC0, 0x3F, 0, 0, 0, 0xC0], [0] * 4]).reshape(4, 3, 2)
    assert number_rows(2, (3, 2)) == 2
    np.testing.assert_array_equal(put_below(picture, numbers), expected)
    np.testing.assert_array_equal(jax.jit(put_below)(picture, numbers), expected)
    assert put_below(picture, numbers[:0]) is picture


def test_numbers_come_back_to_the_bit():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (5, 6, 4, 3), np.uint8)
    numbers = np.concatenate([rng.normal(size=(5, 6)), [[0.0, -0.0, 1e-45, 3e38, -1e-38, 1 / 3]] * 5], 1).astype("f4")
    packed = np.stack([put_below(*pair) for pair in zip(pictures, numbers, strict=True)])
    for array in (packed, jnp.asarray(packed)):
        shown, rows = split_rows(array, 12)
        np.testing.assert_array_equal(shown, pictures)
        np.testing.assert_array_equal(np.asarray(numbers_in(rows, 12)).view(np.int32), numbers.view(np.int32))


VIEW = View(12, gray=True, stack=2, repeat=2, draw_each=True, proprioception=True)


def test_both_loops_see_the_same():
    """The numbers are those after the last of the steps that an action is held for."""
    inner = counted(7, 100)
    host, device = see_pixels(FromDevice(inner, render_mode="rgb_array"), "tested", VIEW), pixels(inner, "tested", VIEW)
    spec = device.spec
    assert describe(host) == spec
    size = inner.spec.obs_shape[0]
    assert (spec.obs_shape, spec.proprioception) == ((2, 12 + number_rows(size, (12, 2)), 12, 2), size)
    state, expected = device.reset(jax.random.key(0))
    obs, _ = host.reset(seed=0)
    plain, first = inner.reset(jax.random.key(0))
    done = False
    while not done:
        np.testing.assert_array_equal(obs, expected)
        np.testing.assert_array_equal(numbers_in(split_rows(obs, size)[1], size)[-1], first)
        obs, _, *ends, _ = host.step(np.zeros(1, np.float32))
        for _ in range(2):
            plain, one = inner.step(plain, np.zeros(1), jax.random.key(0))
            first = one.next_obs
            if one.terminated:
                break
        state, report = device.step(state, jnp.zeros(1), jax.random.key(0))
        expected, done = report.next_obs, any(ends)
    np.testing.assert_array_equal(obs, expected)


class Camera(gymnasium.Env):
    """Observes what its camera and its joints give, and cannot draw itself."""

    observation_space = gymnasium.spaces.Dict(
        {
            "arm": gymnasium.spaces.Dict({"angle": gymnasium.spaces.Box(-9, 9, (2, 1), np.float64)}),
            "camera": gymnasium.spaces.Box(0, 255, (24, 12, 3), np.uint8),
            "time": gymnasium.spaces.Box(0, 99, (1,), np.int64),
        }
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    broken = False

    def __init__(self, render_mode=None):
        assert render_mode is None
        self.time = 0

    def observe(self):
        image = np.full((24, 12, 3), [[[self.time, 50, 100]]], np.uint8)
        angle = np.full((2, 1), np.nan if self.broken else self.time / 2)
        return {"arm": {"angle": angle}, "camera": image, "time": np.array([self.time])}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action):
        self.time += 1
        return self.observe(), 1.0, False, False, {}


def camera(**view):
    return make_env("camera", 10, {}, entry=Camera, view=View(12, stack=2, observed=True, **view))


def test_the_image_of_a_dictionary_is_seen_beside_its_numbers():
    env = camera(proprioception=True)
    spec = describe(env)
    assert (spec.obs_shape, spec.stack, spec.proprioception, spec.layout) == ((2, 13, 12, 3), 2, 3, ())
    env.reset(seed=0)
    obs, *_ = env.step(np.zeros(1, np.float32))
    pictures, rows = split_rows(obs, 3)
    np.testing.assert_array_equal(pictures[:, 5, 5], [[0, 50, 100], [1, 50, 100]])
    np.testing.assert_array_equal(numbers_in(rows, 3), [[0, 0, 0], [0.5, 0.5, 1]])
    assert describe(camera()).obs_shape == (2, 12, 12, 3)


def test_what_is_not_observed_is_refused(monkeypatch):
    with pytest.raises(EnvironmentFault, match=r"'camera' of the observation is an image, .*source = \"observation\""):
        make_env("camera", 10, {}, entry=Camera)
    with pytest.raises(EnvironmentFault, match=r"env.id='Pendulum-v1' .* are: none; expected one"):
        make_env("Pendulum-v1", 10, {}, view=View(12, observed=True))
    env = camera(proprioception=True)
    monkeypatch.setattr(Camera, "broken", True)
    with pytest.raises(EnvironmentFault, match=r"env.id='camera' observes \[nan nan  0.\]: expected finite numbers"):
        env.reset(seed=0)
    monkeypatch.setattr(Camera, "observation_space", gymnasium.spaces.Box(0, 255, (24, 12, 3), np.uint8))
    with pytest.raises(EnvironmentFault, match=r"env.pixels.proprioception: env.id='camera' observes no numbers"):
        camera(proprioception=True)


def test_wrappers_that_change_numbers_have_an_effect():
    table = {"id": "Pendulum-v1", "wrappers": [{"name": "HideVelocities"}], "pixels": {"size": 12}}
    with pytest.raises(ConfigError, match=r"'HideVelocities' has no effect with env\.pixels"):
        load_config(env=table)
    table["pixels"]["proprioception"] = True
    assert describe(env_maker(load_config(env=table).env)()).proprioception == 2


@pytest.mark.parametrize("shared", [True, False])
def test_the_networks_see_the_numbers_of_the_newest_picture(shared):
    """No shift touches them, and the trunk does not either."""
    config = load_config(
        env={"id": "jax:cartpole-swingup", "pixels": {"size": 16, "stack": 2, "proprioception": True}},
        algorithm={"hidden": [4], "encoder": {"kind": "small", "channels": 2, "features": 3, "shared": shared}},
    )
    spec = device_env(config).spec
    agent = make_agent(config, spec)
    state = agent.init(run_keys([0])[0])
    kernel = jax.tree.leaves(state.params.actor["second"], is_leaf=lambda x: getattr(x, "ndim", 0) == 2)
    assert any(leaf.shape == (3 + 5, 4) for leaf in kernel)
    obs = golden_observations(spec, {}, 3)
    policies = jax.jit(jax.vmap(agent.policy, (None, 0)))

    def act(obs):
        return np.asarray(policies(state, obs))

    assert np.isfinite(act(obs)).all()
    older, newest = obs.copy(), obs.copy()
    older[:, 0, 16:], newest[:, 1, 16:] = obs[::-1, 0, 16:], obs[::-1, 1, 16:]
    np.testing.assert_array_equal(act(older), act(obs))
    assert (act(newest) != act(obs))[[0, 2]].all()
    data = Transition(obs[0], jnp.zeros(1), 0.0, 1.0, obs[1])
    shifted = random_shift(3, target_copies=2, numbers=5)(data, jax.random.key(1))
    np.testing.assert_array_equal(shifted.obs[:, 16:], obs[0, :, 16:])
    np.testing.assert_array_equal(shifted.next_obs[:, :, 16:], [obs[1, :, 16:]] * 2)
    assert (shifted.obs[:, :16] != obs[0, :, :16]).any()
