"""Running moments of observations: against NumPy, in every grouping, and apart from seed to seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.agents.normalizers import UNCHANGED, running

RNG = np.random.default_rng(5)
SEEN = (RNG.normal(size=(60, 3)) * [0.1, 5.0, 300.0] + [0.0, -40.0, 2000.0]).astype(np.float32)


def after(groups, **settings):
    """The moments after groups of observations, each `[E, 3]`."""
    normalizer = running((3,), **settings)
    moments = normalizer.init()
    for obs in groups:
        moments = normalizer.observe(moments, jnp.asarray(obs))
    return moments


def numbers(moments):
    """Size, mean and variance of one component."""
    return [float(x.squeeze()) for x in moments[:3]]


@pytest.mark.parametrize("plain", [False, True])
def test_by_hand(call, plain):
    """1, 3 and then 5: mean 2 and variance 1, then mean 3 and variance 8/3."""
    normalizer = running((1,), epsilon=0.5, plain=plain)
    moments = call(normalizer.observe, normalizer.init(), jnp.array([[1.0], [3.0]]))
    assert numbers(moments) == [2.0, 2.0, 1.0]
    assert float(call(normalizer.apply, moments, jnp.array([5.0]))[0]) == 2.0  # (5 - 2) / (1 + 0.5)
    moments = call(normalizer.observe, moments, jnp.array([[5.0]]))
    np.testing.assert_allclose(numbers(moments), [3.0, 3.0, 8 / 3], rtol=1e-6)


def test_what_is_far_away_is_clipped_and_what_varies_little_is_still_seen():
    """Deviations of 1e-4 beside 100: with an epsilon of 0.01 the first were 100 times too small."""
    seen = jnp.array([[1e-4, 100.0, 0.0], [-1e-4, -100.0, 0.0]])
    moments = after([seen])
    far = jnp.array([1.0, -1e4, 1e-3])
    np.testing.assert_allclose(running((3,)).apply(moments, seen[0]), [1.0, 1.0, 0.0], rtol=1e-3)
    np.testing.assert_array_equal(running((3,)).apply(moments, far), [10.0, -10.0, 10.0])
    np.testing.assert_array_equal(running((3,), clip=2.0).apply(moments, far), [2.0, -2.0, 2.0])
    np.testing.assert_allclose(
        running((3,), 1e-2, 0.0).apply(moments, far), [1 / 0.0101, -1e4 / 100.01, 0.1], rtol=1e-5
    )


def test_moments_far_from_0_do_not_stall_when_one_comes_at_a_time():
    """A mean of 1000 deviations that drifts: what float32 rounds away is 0.3 deviations after 200,000 of them."""
    count = 200_000
    rng = np.random.default_rng(1)
    seen = (1000.0 + np.linspace(0, 5, count) + rng.normal(size=count)).astype(np.float32)
    expected = seen.astype(np.float64).mean(), seen.astype(np.float64).var()

    def moments(plain):
        normalizer = running((1,), plain=plain)
        take = jax.jit(
            lambda begun, obs: jax.lax.scan(lambda m, x: (normalizer.observe(m, x[None, None]), None), begun, obs)
        )
        return take(normalizer.init(), jnp.asarray(seen))[0]

    held, stalled = moments(False), moments(True)
    np.testing.assert_allclose(held.mean, expected[0], rtol=1e-7)
    np.testing.assert_allclose(held.variance, expected[1], rtol=1e-5)
    assert abs(stalled.mean - expected[0]) > 0.1


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("size", [1, 4, 60])
def test_moments_do_not_depend_on_how_many_come_at_once(size, plain):
    moments = after(SEEN.reshape(-1, size, 3), plain=plain)
    assert moments.size == 60
    np.testing.assert_allclose(moments.mean, SEEN.mean(0, np.float64), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments.variance, SEEN.astype(np.float64).var(0), rtol=1e-4)


def test_the_first_observation_alone_is_no_division_by_zero():
    moments = after([SEEN[:1]])
    np.testing.assert_array_equal(running((3,)).apply(moments, jnp.asarray(SEEN[0])), np.zeros(3))
    np.testing.assert_array_equal(running((3,)).apply(moments, jnp.asarray(SEEN[0] + 1.0)), np.full(3, 10.0))


def test_more_than_float32_can_count_are_counted():
    """At 2^24 float32 takes no further 1; plain moments then move by a share of 2^-24 and stay finite."""
    for plain, size in ((False, 2.0**24 + 4), (True, 2.0**24)):
        normalizer = running((1,), plain=plain)
        moments = normalizer.init()._replace(size=jnp.float32(2.0**24), mean=jnp.ones(1), variance=jnp.full(1, 4.0))
        for _ in range(4):
            moments = normalizer.observe(moments, jnp.array([[7.0]]))
        np.testing.assert_allclose(numbers(moments), [size, 1.0, 4.0], rtol=5e-6)
        assert moments.size + (0.0 if plain else moments.rest.size) == size


def test_seeds_are_never_merged():
    normalizer = running((3,))
    moments = jax.vmap(lambda _: normalizer.init())(jnp.arange(2))
    moments = jax.vmap(normalizer.observe)(moments, jnp.asarray(SEEN.reshape(2, 30, 3)))
    for s, seen in enumerate(np.split(SEEN, 2)):
        np.testing.assert_allclose(moments.mean[s], seen.mean(0, np.float64), rtol=1e-5, atol=1e-5)


def test_unchanged_has_no_moments():
    assert UNCHANGED.init() == ()
    assert UNCHANGED.observe((), SEEN) == ()
    assert UNCHANGED.apply((), SEEN) is SEEN


def test_acting_and_learning_see_what_is_normalised(make_tiny, make_batches):
    """An agent that normalises, and has seen mean 2 and deviation 3, is the plain agent on normalised observations."""
    key = jax.random.key(0)
    plain, tiny = make_tiny(), make_tiny(normalize_observations=True)
    obs = 2.0 + 3.0 * jnp.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    state, batches = tiny.observe(tiny.init(key), obs), make_batches(2)
    np.testing.assert_allclose(state.stats.obs.mean, [2.0] * 3, rtol=1e-6)
    scaled = batches.data._replace(obs=(batches.data.obs - 2.0) / 3.0, next_obs=(batches.data.next_obs - 2.0) / 3.0)
    theirs = plain.update(plain.init(key), batches._replace(data=scaled), key)
    ours = tiny.update(state, batches, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours[0].params, theirs[0].params)
    np.testing.assert_allclose(ours[2], theirs[2], atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, ours[0].stats.obs, state.stats.obs)  # batches are not observed
    one = tiny.policy(state, obs[0])
    np.testing.assert_allclose(one, plain.policy(plain.init(key), (obs[0] - 2.0) / 3.0), atol=1e-6)
