"""Exploration noise against its recursion and its stationary law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ddpg_jax.agents.noise import (
    Counted,
    exponential,
    gaussian,
    gaussian_per_env,
    held,
    inverse_episode,
    linear,
    ornstein_uhlenbeck,
    scheduled,
    zero,
)
from ddpg_jax.agents.slots import Noise

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


@pytest.mark.parametrize(
    "make",
    [
        lambda s: gaussian(2, s),
        lambda s: ornstein_uhlenbeck(2, s, s, s),
        lambda s: gaussian_per_env(2, s, 2 * s),
        lambda s: scheduled(gaussian(2, 1.0), linear(s, 0.0, 10)),
        lambda s: scheduled(gaussian(2, 1.0), exponential(s, 0.01, 10)),
        lambda s: scheduled(gaussian(2, 1.0), inverse_episode(s)),
    ],
)
def test_scales_are_vmapped_like_seeds(make):
    def sample(scale):
        noise = make(scale)
        return noise.sample(noise.init(), jax.random.key(0), START)[0]

    scales = jnp.array([0.1, 0.5])
    together = jax.vmap(sample)(scales)
    np.testing.assert_allclose(together, jnp.stack([sample(s) for s in scales]), rtol=1e-6)
    assert (together[0] != together[1]).all()


# --- Schedules

ONE = Noise(init=lambda: (), sample=lambda state, key, first: (jnp.ones(1), state))
"""Noise that shows its scale."""

TOP = 2**31 - 1


def _scales(scale, firsts):
    """The scale at each step of one environment, and the counters after the last."""
    noise = scheduled(ONE, scale)
    state, found = noise.init(), []
    for first in firsts:
        drawn, state = jax.jit(noise.sample)(state, jax.random.key(0), jnp.array(first))
        found.append(float(drawn[0]))
    return found, state


def test_linear_by_hand():
    found, _ = _scales(linear(0.4, 0.1, 4), [True] + [False] * 6)
    np.testing.assert_allclose(found, [0.4, 0.325, 0.25, 0.175, 0.1, 0.1, 0.1], rtol=1e-6)


def test_exponential_by_hand():
    found, _ = _scales(exponential(0.8, 0.05, 4), [True] + [False] * 5)
    np.testing.assert_allclose(found, [0.8, 0.4, 0.2, 0.1, 0.05, 0.05], rtol=1e-6)


def test_schedules_may_rise_and_take_parts_of_a_step():
    np.testing.assert_allclose(_scales(linear(0.1, 0.4, 1.5), [False] * 3)[0], [0.1, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(_scales(exponential(0.1, 0.4, 0.5), [False] * 2)[0], [0.1, 0.4], rtol=1e-6)


@pytest.mark.parametrize("begins", [True, False])
def test_inverse_episode_by_hand(begins):
    """Whether an episode begins with the first step or in the middle of a warm-up, it is number 0."""
    firsts = [begins, False, True, True, False, False, True]
    found, state = _scales(inverse_episode(0.6), firsts)
    np.testing.assert_allclose(found, [0.6, 0.6, 0.3, 0.2, 0.2, 0.2, 0.15], rtol=1e-6)
    assert (int(state.steps), int(state.episodes)) == (7, 3)


def test_counters_stop_before_they_overflow():
    noise, top = scheduled(ONE, linear(0.4, 0.1, 4)), jnp.int32(TOP)
    _, state = noise.sample(Counted((), top - 1, top - 1), jax.random.key(0), START)
    drawn, state = noise.sample(state, jax.random.key(0), START)
    assert (int(state.steps), 0 < int(state.episodes) <= TOP) == (TOP, True)
    np.testing.assert_allclose(drawn, [0.1], rtol=1e-6)


def test_a_schedule_scales_the_noise_and_leaves_its_path(call):
    """Ornstein-Uhlenbeck noise of sigma 1 times 0.3 is that of sigma 0.3, and is forgotten at an episode's start."""
    ready = scheduled(ornstein_uhlenbeck(2, 0.15, 1.0, 1.0), linear(0.3, 0.3, 10))
    plain = ornstein_uhlenbeck(2, 0.15, 0.3, 1.0)

    def path(noise, firsts):
        keys = jax.random.split(jax.random.key(1), 6)
        _, drawn = jax.lax.scan(lambda state, x: noise.sample(state, *x)[::-1], noise.init(), (keys, firsts))
        return drawn

    firsts = jnp.array([True, False, False, True, False, False])
    np.testing.assert_allclose(
        call(lambda firsts: path(ready, firsts), firsts), path(plain, firsts), rtol=1e-5, atol=1e-7
    )


# --- A scale for each environment


def test_a_scale_is_drawn_at_episode_starts_and_the_first_time_only():
    noise = gaussian_per_env(2000, 0.1, 0.3)
    state, scales, deviations = noise.init(), [], []
    for t, first in enumerate([False, False, True, False, True]):
        drawn, state = jax.jit(noise.sample)(state, jax.random.key(t), jnp.array(first))
        scales.append(float(state))
        deviations.append(float(drawn.std()))
    assert scales[0] == scales[1] != scales[2] == scales[3] != scales[4]
    np.testing.assert_allclose(deviations, scales, rtol=0.1)  # 2000 numbers: 1.6% is one deviation


def test_scales_are_uniform_and_each_environment_has_its_own():
    noise = gaussian_per_env(1, 0.1, 0.3)
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn, scales = jax.vmap(noise.sample)(jax.vmap(lambda _: noise.init())(keys), keys, jnp.zeros(4000, bool))
    assert len(np.unique(scales)) > 3900
    assert ((scales >= 0.1) & (scales < 0.3)).all()
    assert stats.kstest(scales, "uniform", (0.1, 0.2)).pvalue > 1e-3
    assert stats.kstest(np.ravel(drawn) / scales, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(np.ravel(drawn), scales)[0, 1]) < 0.06


def _holds(path):
    """Lengths of the stretches over which a path `[T, A]` stands still, the last left out, as it may be cut."""
    begins = np.flatnonzero(np.r_[True, (path[1:] != path[:-1]).any(1)])
    return np.diff(begins)


@pytest.mark.parametrize("longest", [3, 16])
def test_noise_is_held_by_the_zeta_law(longest):
    """Of 40,000 steps: k with probability in proportion to 1/k², and each value is a draw of its own."""
    path = _path(held(gaussian(2, 0.5), 2, longest), 40_000)
    lengths = _holds(path)
    shares = 1.0 / np.arange(1, longest + 1) ** 2
    expected = len(lengths) * shares / shares.sum()
    assert lengths.max() == longest
    assert stats.chisquare(np.bincount(lengths, minlength=longest + 1)[1:], expected).pvalue > 1e-3
    values = path[np.cumsum(np.r_[0, lengths])]
    assert stats.kstest(values.ravel() / 0.5, "norm").pvalue > 1e-3


def test_the_shares_of_the_law_by_hand():
    """At most three steps: 1, 1/4 and 1/9 are in proportion as 36, 9 and 4, of 49."""
    lengths = _holds(_path(held(gaussian(1, 1.0), 1, 3), 20_000, seed=1))
    np.testing.assert_allclose(np.bincount(lengths)[1:] / len(lengths), np.array([36, 9, 4]) / 49, atol=0.02)


def test_noise_held_for_one_step_is_the_noise():
    np.testing.assert_array_equal(_path(held(gaussian(2, 0.5), 2, 1), 50), _path(gaussian(2, 0.5), 50))
    walk = ornstein_uhlenbeck(2, 0.15, 0.2, 1.0)
    np.testing.assert_allclose(_path(held(walk, 2, 1), 50), _path(walk, 50), atol=1e-6)  # compiled in another way


def test_an_episode_begins_with_a_draw(call):
    noise = held(gaussian(2, 0.5), 2, 16)
    state = noise.init()._replace(value=jnp.array([7.0, 8.0]), left=jnp.int32(5))
    on, after = call(lambda first: noise.sample(state, jax.random.key(7), first), GOING_ON)
    np.testing.assert_array_equal(on, [7, 8])
    assert after.left == 4
    new, after = call(lambda first: noise.sample(state, jax.random.key(7), first), START)
    np.testing.assert_allclose(new, 0.5 * _normal(7, 2), rtol=1e-6)
    assert 0 <= after.left < 16
