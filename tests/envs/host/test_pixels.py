"""Pictures on the host loop: the same as on the device loop, by any simulator, in any process."""

import ctypes.util
import gc
import re

import gymnasium
import jax
import numpy as np
import pytest
from counted import counted, decisions

from ddpg_jax.config.load import load_config
from ddpg_jax.envs.device.pendulum import pendulum
from ddpg_jax.envs.device.pixels import pixels
from ddpg_jax.envs.factory import drawn_env_maker, env_maker, make_evaluation_envs, make_training_envs
from ddpg_jax.envs.host import offscreen
from ddpg_jax.envs.host.from_device import FromDevice
from ddpg_jax.envs.host.make import describe, make_env
from ddpg_jax.envs.host.painters import resize
from ddpg_jax.envs.host.pixels import see_pixels
from ddpg_jax.envs.pictures import View, draw_pendulum
from ddpg_jax.errors import ConfigError, EnvironmentFault

no_opengl = ctypes.util.find_library("EGL") is None and ctypes.util.find_library("OSMesa") is None
needs_opengl = pytest.mark.skipif(no_opengl, reason="neither EGL nor OSMesa is here")


class Striped(gymnasium.Env):
    """Draws 6 x 4 pixels: the left half black, the right half white."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as gymnasium declares it
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    frame = np.repeat([[[0], [0], [255], [255]]] * 6, 3, -1).astype(np.uint8)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, False, {}

    def render(self):
        return self.frame


def striped(**kwargs):
    return make_env("striped", 10, {}, entry=Striped, **kwargs)


def seen(inner, view):
    return see_pixels(FromDevice(inner, render_mode="rgb_array"), "tested", view)


@pytest.mark.parametrize("draw_each", [False, True])
@pytest.mark.parametrize("repeat", [1, 2, 3])
def test_whole_episodes_equal_those_of_the_device_loop(repeat, draw_each):
    view = View(24, False, 3, repeat, draw_each)
    host, device = seen(pendulum(20), view), pixels(pendulum(20), "jax:pendulum", view)
    assert describe(host) == device.spec
    first = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 0), 0)  # as FromDevice begins with seed 5
    step = jax.jit(device.step)
    state, expected = jax.jit(device.reset)(first)
    obs, _ = host.reset(seed=5)
    rng, done, count = np.random.default_rng(0), False, 0
    while not done:
        assert obs.dtype == np.uint8
        assert np.abs(obs.astype(int) - np.asarray(expected)).max() <= 1
        action = rng.uniform(-1, 1, 1).astype(np.float32)
        state, report = step(state, action, jax.random.key(count))
        obs, reward, terminated, truncated, _ = host.step(2 * action)
        expected = report.next_obs
        np.testing.assert_allclose(reward, report.reward, rtol=1e-5)
        assert (terminated, truncated) == (report.terminated, report.truncated)
        done, count = terminated or truncated, count + 1
    assert np.abs(obs.astype(int) - np.asarray(expected)).max() <= 1
    assert (count, truncated) == (-(-20 // repeat), True)


@pytest.mark.parametrize("draw_each", [False, True])
@pytest.mark.parametrize(("ends", "limit"), [(7, 100), (100, 7), (1, 9)])
def test_an_episode_is_that_of_a_list_of_pictures(draw_each, ends, limit):
    env = seen(counted(ends, limit), View(4, False, 2, 3, draw_each))
    shown = 3 if draw_each else 1
    for _ in range(2):
        obs, _ = env.reset(seed=0)
        history = [[10] * shown] * 2
        rows = decisions(min(ends, limit), 3, draw_each)
        for t, (numbers, expected) in enumerate(rows):
            np.testing.assert_array_equal(obs[:, 0, 0, ::3], history)
            kept, before = obs, obs.copy()
            obs, reward, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
            np.testing.assert_array_equal(kept, before)  # what was given stays as it was
            history = [*history[1:], numbers]
            last = t == len(rows) - 1
            assert (reward, terminated, truncated) == (expected, last and ends < limit, last and limit < ends)
        np.testing.assert_array_equal(obs[:, 0, 0, ::3], history)


def test_pendulum_is_drawn_without_the_torque():
    env = make_env("Pendulum-v1", 5, {}, view=View(32, stack=2))
    obs, _ = env.reset(seed=3)
    angle, _ = env.unwrapped.state
    expected = draw_pendulum(np.array([np.cos(angle), np.sin(angle), 0], np.float32), 32)
    np.testing.assert_array_equal(obs, [expected, expected])
    assert describe(env).obs_shape == (2, 32, 32, 3)
    for torque in (-2.0, 2.0):
        env.step(np.full(1, torque, np.float32))
        env.unwrapped.state = np.array([angle, torque])
        np.testing.assert_array_equal(env._draw(), expected)


def test_other_pictures_are_averaged_by_area():
    obs, _ = striped(view=View(4, stack=1)).reset(seed=0)
    np.testing.assert_array_equal(obs[0, :, :, 0], [[0, 0, 255, 255]] * 4)
    obs, _ = striped(view=View(3, stack=1, gray=True)).reset(seed=0)
    np.testing.assert_array_equal(obs[0, :, :, 0], [[0, 128, 255]] * 3)
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (12, 20, 3)).astype(np.uint8)
    blocks = frame.reshape(4, 3, 4, 5, 3).mean((1, 3))
    assert np.abs(resize(frame, 4) - blocks).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(resize(frame[:, :12], 24), frame[:, :12].repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(resize(np.full((97, 55, 3), 255, np.uint8), 13), 255)


def test_a_scene_stands_beside_what_is_seen():
    env = striped(view=View(50, stack=2, gray=True, repeat=2, draw_each=True))
    obs, _ = env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (480, 930, 3)
    np.testing.assert_array_equal(frame[100, [0, 239, 240, 479]], [[0] * 3, [0] * 3, [255] * 3, [255] * 3])
    np.testing.assert_array_equal(frame[15:465:9, 480::9, 1], obs[-1, ..., -1])
    assert not frame[:15, 480:].any()
    assert env.metadata["render_fps"] == 15  # half as many decisions as steps


@pytest.mark.parametrize(
    ("frame", "said"),
    [(None, "draws nothing"), (np.zeros((4, 4)), r"draws float64\[4, 4\]"), (np.zeros((4, 4, 4), np.uint8), "4, 4, 4")],
)
def test_what_is_no_picture_is_refused(monkeypatch, frame, said):
    monkeypatch.setattr(Striped, "frame", frame)
    with pytest.raises(EnvironmentFault, match=f"env.id='striped' .*{said}.*env.pixels needs pictures uint8"):
        striped(view=View(4)).reset(seed=0)


def test_cameras_and_wrappers_without_effect_are_refused():
    with pytest.raises(EnvironmentFault, match=r"env.pixels.camera=1: env.id='striped' has no cameras: leave it out"):
        striped(view=View(4, camera=1))
    config = load_config(env={"id": "Pendulum-v1", "pixels": {}, "wrappers": ["FlattenObservation"]})
    with pytest.raises(EnvironmentFault, match=r"env.wrappers: FlattenObservation has no effect with env.pixels"):
        env_maker(config.env)()


def test_lanes_in_processes_and_evaluations_see_the_same():
    table = {"id": "Pendulum-v1", "max_episode_steps": 4, "pixels": {"size": 16, "stack": 2, "repeat": 2}}
    reports = []
    for workers in (0, 2):
        config = load_config(seeds=2, env=table | {"workers": workers})
        envs = make_training_envs(config)
        try:
            assert (envs.spec.obs_shape, envs.spec.stack) == ((2, 16, 16, 3), 2)
            first = np.array(envs.reset())
            step = envs.step(np.full((2, 1, 1), 0.5, np.float32))
            end = envs.step(np.full((2, 1, 1), 0.5, np.float32))
            assert end.truncated.all()
            reports.append([first, *map(np.array, step), *map(np.array, end)])
        finally:
            envs.close()
    for one, other in zip(*reports, strict=True):
        np.testing.assert_array_equal(one, other)
    pool = make_evaluation_envs(load_config(seeds=2, env=table), 2, alone=True)
    try:
        assert pool.spec.stack == 2
    finally:
        pool.close()


def test_episodes_of_the_device_loop_can_be_recorded():
    config = load_config(env={"id": "jax:pendulum", "max_episode_steps": 6, "pixels": {"size": 16, "repeat": 2}})
    env = drawn_env_maker(config)()
    obs, _ = env.reset(seed=0)
    assert obs.shape == (3, 16, 16, 3)
    assert env.render().shape == (480, 960, 3)
    assert [env.step(np.zeros(1, np.float32))[3] for _ in range(3)] == [False, False, True]
    plain = drawn_env_maker(load_config(env={"id": "jax:reacher"}))()
    plain.reset(seed=0)
    assert plain.render().shape == (480, 480, 3)
    with pytest.raises(ConfigError, match=r"env.id='jax:recall' cannot draw itself: .*jax:reacher"):
        drawn_env_maker(load_config(env={"id": "jax:recall"}))


def test_osmesa_draws_where_there_is_no_egl(monkeypatch):
    for installed, chosen in (({"EGL", "OSMesa"}, "egl"), ({"OSMesa"}, "osmesa"), (set(), "egl")):
        monkeypatch.setattr(offscreen, "_find", lambda name, there=installed: name if name in there else None)
        offscreen.without_display.cache_clear()
        assert offscreen.without_display() == chosen
    offscreen.without_display.cache_clear()


# MuJoCo


def mujoco(identifier="InvertedPendulum-v5", **view):
    pytest.importorskip("mujoco")
    return make_env(identifier, None, {}, view=View(**({"size": 32, "stack": 1} | view)))


@needs_opengl
def test_mujoco_draws_what_moves():
    env = mujoco(stack=2)
    first, _ = env.reset(seed=0)
    assert first.shape == (2, 32, 32, 3)
    assert np.ptp(first) > 50
    again, _ = env.reset(seed=0)
    np.testing.assert_array_equal(again, first)
    for _ in range(3):
        obs, *_ = env.step(np.full(1, 3.0, np.float32))
    assert not np.array_equal(obs[-1], first[-1])
    assert env.render().shape == (480, 960, 3)
    np.testing.assert_array_equal(env._draw(), obs[-1])  # a large one between changes nothing
    env.close()


@needs_opengl
def test_pictures_stay_whatever_becomes_of_other_environments():
    """MuJoCo frees by number what another context may hold: pictures would be black from then on."""
    env = mujoco()
    obs, _ = env.reset(seed=0)
    others = [mujoco() for _ in range(2)]
    for other in others:
        other.reset(seed=1)
    others.pop().close()
    gc.collect()
    np.testing.assert_array_equal(env._draw(), obs[-1])
    others.clear()
    del other
    gc.collect()
    np.testing.assert_array_equal(env._draw(), obs[-1])
    env.close()


@needs_opengl
def test_cameras_are_chosen_by_number_and_name():
    pictures = {}
    for camera in (None, 0, "track", -1):
        env = mujoco("HalfCheetah-v5", camera=camera)
        pictures[camera] = env.reset(seed=0)[0]
        env.close()
    np.testing.assert_array_equal(pictures[None], pictures["track"])
    np.testing.assert_array_equal(pictures[0], pictures["track"])
    assert not np.array_equal(pictures[-1], pictures[0])
    said = "env.pixels.camera='front' is not in env.id='HalfCheetah-v5': there are track"
    with pytest.raises(EnvironmentFault, match=re.escape(said)):
        mujoco("HalfCheetah-v5", camera="front")


@needs_opengl
def test_dm_control_draws_at_the_size_that_is_seen():
    pytest.importorskip("shimmy")
    pytest.importorskip("dm_control")
    env = mujoco("dm_control/cartpole-swingup-v0", stack=3, repeat=2)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (3, 32, 32, 3)
    assert describe(env).stack == 3
    for _ in range(5):
        obs, *_ = env.step(np.ones(1, np.float32))
    assert not np.array_equal(obs[0], obs[-1])
    env.close()
