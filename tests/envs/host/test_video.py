"""Videos are written, and can be read."""

import ctypes.util
import os
import re
import subprocess
from functools import partial

import custom_envs as custom  # noqa: F401 - registers its environments
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv

from ddpg_jax.envs.host.make import make_env
from ddpg_jax.envs.host.offscreen import offscreen
from ddpg_jax.envs.host.painters import follow
from ddpg_jax.envs.host.vector import evaluation_seeds
from ddpg_jax.envs.host.video import draw_frame, record_episode
from ddpg_jax.errors import EnvironmentFault


def test_an_episode_of_pendulum_becomes_a_video_that_moves(tmp_path):
    pytest.importorskip("moviepy")
    pytest.importorskip("pygame")
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    seen = []

    def policy(obs, reward):
        seen.append(obs.copy())
        return np.full(1, 2.0, np.float32)

    path = record_episode(
        lambda: make_env("Pendulum-v1", 5, {}, render_mode="rgb_array"),
        policy,
        tmp_path / "videos",
        "best",
        "Pendulum-v1",
    )
    assert path == tmp_path / "videos" / "best.mp4"
    assert [p.name for p in path.parent.iterdir()] == ["best.mp4"]
    command = [ffmpeg, "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    read = subprocess.run(command, capture_output=True, check=True, timeout=60)
    frames = np.frombuffer(read.stdout, np.uint8).reshape(-1, 500, 500).astype(int)
    assert read.stderr == b""
    assert len(frames) in (5, 6)  # five steps; encoders may drop the last
    assert np.abs(frames[-1] - frames[0]).max() > 100

    bare = PendulumEnv()
    expected = [bare.reset(seed=evaluation_seeds(1)(0, 0))[0]]
    expected += [bare.step(np.full(1, 2.0, np.float32))[0] for _ in range(4)]
    assert {(x.shape, x.dtype.name) for x in seen} == {((3,), "float32")}
    np.testing.assert_array_equal(seen, expected)


def test_mujoco_draws_without_a_display_by_egl_and_follows_the_body(monkeypatch):
    pytest.importorskip("mujoco")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    with offscreen():
        assert os.environ["MUJOCO_GL"] == "egl"
    assert "MUJOCO_GL" not in os.environ
    for kwargs, follows in (({}, True), ({"camera_id": -1}, False)):
        env = make_env("HalfCheetah-v5", None, kwargs, render_mode="rgb_array")
        assert follow(env) == follows
        assert env.unwrapped.mujoco_renderer.camera_id == (0 if follows else -1)
        env.close()
    assert not follow(make_env("Pendulum-v1", None, {}))
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with offscreen():
        assert os.environ["MUJOCO_GL"] == "osmesa"


@pytest.mark.skipif(ctypes.util.find_library("EGL") is None, reason="no libEGL here")
def test_a_frame_of_mujoco_is_drawn_without_a_display(monkeypatch):
    pytest.importorskip("mujoco")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    assert re.fullmatch(
        r"480 x 480 by egl( \(.+\))?, \d+ pictures of 84 x 84 a second", draw_frame("InvertedPendulum-v5")
    )


def test_what_draws_nothing_is_told():
    with pytest.raises(EnvironmentFault, match=r"Headless-v0' cannot be drawn: no OpenGL context"):
        draw_frame("Headless-v0")


@pytest.mark.filterwarnings("ignore::UserWarning")  # gymnasium also says that there is no such render mode
@pytest.mark.parametrize("identifier", ["Blind-v0", "Headless-v0"])
def test_an_environment_that_cannot_draw_itself_is_refused(tmp_path, identifier):
    pytest.importorskip("moviepy")
    make = partial(make_env, identifier, 5, {}, render_mode="rgb_array")
    with pytest.raises(EnvironmentFault, match=rf"{identifier}.* cannot be drawn"):
        record_episode(make, lambda obs, reward: np.zeros((1, 2), np.float32), tmp_path, "x", identifier)
