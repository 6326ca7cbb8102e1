"""Running moments of observations: against NumPy, in every grouping, and apart from seed to seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.agents.normalizers import UNCHANGED, running

RNG = np.random.default_rng(5)
SEEN = (RNG.normal(size=(60, 3)) * [0.1, 5.0, 300.0] + [0.0, -40.0, 2000.0]).astype(np.float32)


def after(groups):
    """The moments after groups of observations, each `[E, 3]`."""
    normalizer = running((3,))
    moments = normalizer.init()
    for obs in groups:
        moments = normalizer.observe(moments, jnp.asarray(obs))
    return moments


def test_by_hand(call):
    """1, 3 and then 5: mean 2 and variance 1, then mean 3 and variance 8/3."""
    normalizer = running((1,), epsilon=0.5)
    moments = call(normalizer.observe, normalizer.init(), jnp.array([[1.0], [3.0]]))
    assert [float(x.squeeze()) for x in moments] == [2.0, 2.0, 1.0]
    assert float(call(normalizer.apply, moments, jnp.array([5.0]))[0]) == 2.0  # (5 - 2) / (1 + 0.5)
    moments = call(normalizer.observe, moments, jnp.array([[5.0]]))
    np.testing.assert_allclose([float(x.squeeze()) for x in moments], [3.0, 3.0, 8 / 3], rtol=1e-6)


@pytest.mark.parametrize("size", [1, 4, 60])
def test_moments_do_not_depend_on_how_many_come_at_once(size):
    moments = after(SEEN.reshape(-1, size, 3))
    assert moments.size == 60
    np.testing.assert_allclose(moments.mean, SEEN.mean(0, np.float64), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments.variance, SEEN.astype(np.float64).var(0), rtol=1e-4)


def test_the_first_observation_alone_is_no_division_by_zero():
    moments = after([SEEN[:1]])
    np.testing.assert_array_equal(running((3,)).apply(moments, jnp.asarray(SEEN[0])), np.zeros(3))


def test_after_many_observations_one_more_still_does_no_harm():
    """Where float32 cannot count further, the moments move by a share of 2^-24 and stay finite."""
    normalizer = running((1,))
    moments = normalizer.init()._replace(size=jnp.float32(2.0**24), mean=jnp.ones(1), variance=jnp.full(1, 4.0))
    moments = normalizer.observe(moments, jnp.array([[7.0]]))
    np.testing.assert_allclose([float(x.squeeze()) for x in moments], [2.0**24, 1.0, 4.0], rtol=1e-6)


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
    scaled = batches.data._replace(obs=(batches.data.obs - 2.0) / 3.01, next_obs=(batches.data.next_obs - 2.0) / 3.01)
    theirs = plain.update(plain.init(key), batches._replace(data=scaled), key)
    ours = tiny.update(state, batches, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours[0].params, theirs[0].params)
    np.testing.assert_allclose(ours[2], theirs[2], atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, ours[0].stats.obs, state.stats.obs)  # batches are not observed
    one = tiny.policy(state, obs[0])
    np.testing.assert_allclose(one, plain.policy(plain.init(key), (obs[0] - 2.0) / 3.01), atol=1e-6)
