"""Pictures by hand, of positions alone, and the same from NumPy and from JAX."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.envs.pictures import Canvas, draw_cartpole, draw_pendulum, draw_reacher, to_gray

WHITE = 255
BLACK = (0.0, 0.0, 0.0)


def pendulum_obs(rng):
    angle = rng.uniform(-np.pi, np.pi)
    return [np.cos(angle), np.sin(angle), rng.uniform(-8, 8)]


def cartpole_obs(rng):
    angle = rng.uniform(-np.pi, np.pi)
    return [rng.uniform(-1.8, 1.8), np.cos(angle), np.sin(angle), *rng.normal(size=2)]


def reacher_obs(rng):
    first, second = rng.uniform(-np.pi, np.pi, 2)
    angles = [np.cos(first), np.sin(first), np.cos(second), np.sin(second)]
    return [*angles, *rng.normal(size=2), *rng.uniform(-0.6, 0.6, 2)]


TASKS = {
    draw_pendulum: (pendulum_obs, [2]),
    draw_cartpole: (cartpole_obs, [3, 4]),
    draw_reacher: (reacher_obs, [4, 5]),
}
"""Of each function: observations of its task, and which of their components are velocities."""


def observations(draw, count, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([TASKS[draw][0](rng) for _ in range(count)], np.float32)


def test_a_disc_covers_pixels_by_their_distance():
    canvas = Canvas(np.zeros(1, np.float32), 10, reach=5)  # a pixel is 1 wide, and (0.5, 0.5) the centre of one
    canvas.disc((np.float32(0.5), np.float32(0.5)), 1.0, BLACK)
    expected = np.full((10, 10), WHITE)
    expected[3:6, 4:7] = 233  # 255·(1 − (1.5 − √2))
    expected[4, 4:7] = expected[3:6, 5] = 128  # half covered; rows count from above
    expected[4, 5] = 0
    np.testing.assert_allclose(canvas.picture(), np.repeat(expected[..., None], 3, -1), rtol=0, atol=1)


def test_a_line_has_a_width_and_ends():
    canvas = Canvas(np.zeros(1, np.float32), 8, reach=4)
    canvas.segment((np.float32(-1.5), 0.5), (np.float32(1.5), 0.5), 2.0, (55.0, 155.0, 255.0))
    expected = np.full((8, 8, 3), WHITE)
    expected[3, 2:6] = 55, 155, 255
    half = 155, 205, 255
    expected[2, 2:6] = expected[4, 2:6] = expected[3, 1] = expected[3, 6] = half
    corner = 255 - np.floor((1.5 - 2**0.5) * np.array([200, 100, 0]))
    expected[[2, 2, 4, 4], [1, 6, 1, 6]] = corner
    np.testing.assert_allclose(canvas.picture(), expected, rtol=0, atol=1)


def test_an_upright_pendulum_and_one_to_the_left():
    up = draw_pendulum(np.array([1, 0, 0], np.float32), 48)
    red = up[..., 1] < 160
    assert red[:24].sum() > 5 * red[24:].sum() > 0  # the pivot and its end are round
    np.testing.assert_array_equal(up, up[:, ::-1])
    left = draw_pendulum(np.array([0, 1, 0], np.float32), 48)
    np.testing.assert_array_equal(left, np.rot90(up))
    np.testing.assert_array_equal(up[14, 24], (204, 77, 77))


def test_a_cart_stands_on_its_rail_and_the_pole_leans_to_the_right():
    picture = draw_cartpole(np.array([1, 0, 1, 0, 0], np.float32), 80).astype(int)  # 20 pixels a unit
    blue, red = picture[..., 2] - picture[..., 0] > 60, picture[..., 0] - picture[..., 2] > 60
    rows, columns = np.nonzero(blue)
    assert rows.mean() == pytest.approx(40 + 0.3 * 20 - 0.5, abs=1)
    assert columns.min() == pytest.approx(40 + (1 - 0.3) * 20, abs=1)
    assert np.argwhere(red)[:, 1].max() in (79, 78)
    assert np.ptp(np.argwhere(red)[:, 0]) < 5


def test_the_tip_of_an_arm_lies_where_its_angles_say():
    angles = 0.4, 1.1
    obs = [np.cos(0.4), np.sin(0.4), np.cos(1.1), np.sin(1.1), 0, 0, -0.5, -0.5]
    picture = draw_reacher(np.array(obs, np.float32), 110).astype(int)  # 50 pixels a unit
    tip = 0.5 * np.cos(angles[0]) + 0.5 * np.cos(sum(angles)), 0.5 * np.sin(angles[0]) + 0.5 * np.sin(sum(angles))
    black = np.argwhere(picture.sum(-1) < 60).mean(0)
    np.testing.assert_allclose(black, [55 - 50 * tip[1] - 0.5, 55 + 50 * tip[0] - 0.5], atol=0.5)
    red = np.argwhere((picture[..., 0] - picture[..., 2]) > 100).mean(0)
    np.testing.assert_allclose(red, [55 + 25 - 0.5, 55 - 25 - 0.5], atol=0.5)


@pytest.mark.parametrize("draw", TASKS)
@pytest.mark.parametrize("size", [31, 48, 84])
def test_numpy_and_jax_draw_alike(draw, size):
    obs = observations(draw, 8)
    by_numpy = np.stack([draw(each, size) for each in obs])
    by_jax = np.asarray(jax.jit(jax.vmap(partial(draw, size=size)))(jnp.asarray(obs)))
    assert by_numpy.dtype == by_jax.dtype == np.uint8
    assert by_numpy.shape == by_jax.shape == (8, size, size, 3)
    assert np.abs(by_numpy.astype(int) - by_jax).max() <= 1
    np.testing.assert_array_equal(to_gray(by_numpy), jax.jit(to_gray)(by_numpy))


@pytest.mark.parametrize("draw", TASKS)
def test_positions_are_seen_and_velocities_are_not(draw):
    obs = observations(draw, 1)[0]
    velocities, picture = TASKS[draw][1], draw(obs, 48)
    for i in range(len(obs)):
        moved = obs.copy()
        moved[i] += np.float32(0.05)
        assert np.array_equal(draw(moved, 48), picture) == (i in velocities), i


def test_brightness_is_that_of_the_standard():
    colours = np.array([[[204, 77, 77], [255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_array_equal(to_gray(colours)[..., 0], [[115, 255, 0, 76, 150, 29]])
