"""Exploration noise against its recursion and its stationary law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.agents.noise import gaussian, ornstein_uhlenbeck, zero

START, GOING_ON = jnp.array(True), jnp.array(False)


def _normal(seed, size):
    return np.asarray(jax.random.normal(jax.random.key(seed), (size,)))


def _path(noise, steps, seed=0):
    """`[T, A]`, one episode without end."""

    def step(state, key):
        x, state = noise.sample(state, key, GOING_ON)
        return state, x

    return np.asarray(
        jax.jit(lambda keys: jax.lax.scan(step, noise.init(), keys)[1])(jax.random.split(jax.random.key(seed), steps))
    )


def test_zero_is_no_noise(call):
    noise = zero(3)
    sample, state = call(lambda first: noise.sample(noise.init(), jax.random.key(0), first), START)
    np.testing.assert_array_equal(sample, np.zeros(3, np.float32))
    assert state == ()


def test_gaussian_scales_a_normal_number(call):
    noise = gaussian(3, 0.1)
    sample, state = call(lambda first: noise.sample(noise.init(), jax.random.key(7), first), GOING_ON)
    np.testing.assert_allclose(sample, 0.1 * _normal(7, 3), rtol=1e-6)
    assert state == ()


def test_ornstein_uhlenbeck_by_hand(call):
    """theta = 1/2, dt = 1/4: an eighth of x is lost at each step; sigma·sqrt(dt) = 0.3·0.5."""
    noise = ornstein_uhlenbeck(2, theta=0.5, sigma=0.3, dt=0.25)
    x = jnp.array([1.0, -2.0])
    sample, state = call(lambda x, first: noise.sample(x, jax.random.key(7), first), x, GOING_ON)
    np.testing.assert_allclose(sample, [0.875 + 0.15 * _normal(7, 2)[0], -1.75 + 0.15 * _normal(7, 2)[1]], rtol=1e-6)
    np.testing.assert_array_equal(state, sample)


def test_ornstein_uhlenbeck_forgets_at_an_episodes_start(call):
    noise = ornstein_uhlenbeck(2, theta=0.5, sigma=0.3, dt=0.25)
    samples = [
        call(lambda x, first: noise.sample(x, jax.random.key(7), first)[0], x, START)
        for x in (jnp.array([1.0, -2.0]), noise.init())
    ]
    np.testing.assert_array_equal(*samples)
    np.testing.assert_allclose(samples[0], 0.15 * _normal(7, 2), rtol=1e-6)
    np.testing.assert_array_equal(noise.init(), np.zeros(2, np.float32))


@pytest.mark.parametrize(("theta", "dt"), [(0.15, 1.0), (0.15, 0.1), (1.0, 0.05)])
def test_ornstein_uhlenbeck_is_stationary(theta, dt):
    """An AR(1) process of coefficient c = 1 − theta·dt has deviation sigma·sqrt(dt / (1 − c²))."""
    sigma, c = 0.2, 1 - theta * dt
    path = _path(ornstein_uhlenbeck(256, theta, sigma, dt), 2000)[500:]
    np.testing.assert_allclose(path.std(), sigma * np.sqrt(dt / (1 - c**2)), rtol=0.03)
    np.testing.assert_allclose(path.std(), sigma / np.sqrt(2 * theta), rtol=0.06)  # as the docstring says
    np.testing.assert_allclose((path[1:] * path[:-1]).mean() / path.var(), c, atol=0.02)
    assert abs(path.mean()) < 0.1 * sigma / np.sqrt(2 * theta)


def test_ornstein_uhlenbeck_that_returns_at_once_is_gaussian():
    np.testing.assert_allclose(
        _path(ornstein_uhlenbeck(4, theta=1.0, sigma=0.2, dt=1.0), 50), _path(gaussian(4, 0.2), 50), rtol=1e-6
    )


@pytest.mark.parametrize("make", [lambda s: gaussian(2, s), lambda s: ornstein_uhlenbeck(2, s, s, s)])
def test_scales_are_vmapped_like_seeds(make):
    def sample(scale):
        noise = make(scale)
        return noise.sample(noise.init(), jax.random.key(0), START)[0]

    scales = jnp.array([0.1, 0.5])
    together = jax.vmap(sample)(scales)
    np.testing.assert_allclose(together, jnp.stack([sample(s) for s in scales]), rtol=1e-6)
    assert (together[0] != together[1]).all()
