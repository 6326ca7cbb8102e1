"""The scale of rewards is that of gymnasium and stable-baselines3, or the mean of their sizes."""

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.wrappers import NormalizeReward
from gymnasium.wrappers.utils import RunningMeanStd

from ddpg_jax.equations.rewards import (
    EPSILON,
    PRIOR_SIZE,
    ReturnMoments,
    observe_rewards,
    reward_measure,
    reward_scale,
)

GAMMA = 0.9


def begin(*shape):
    return ReturnMoments(np.zeros(shape), np.full(shape[:-1], PRIOR_SIZE), np.zeros(shape[:-1]), np.ones(shape[:-1]))


def test_it_is_the_deviation_of_the_discounted_return_by_hand():
    moments = begin(1)._replace(size=np.float64(0))
    for reward in (1.0, 2.0):
        moments = observe_rewards(moments, np.array([reward]), 0.5)
    np.testing.assert_allclose(moments.returns, [2.5])  # 0.5 * 1 + 2
    np.testing.assert_allclose((moments.mean, moments.variance), (1.75, 0.5625))  # of 1 and 2.5
    np.testing.assert_allclose(reward_scale(moments), 0.75, rtol=1e-7)


def test_it_is_that_of_gymnasium_and_each_seed_has_its_own():
    rewards = np.random.default_rng(0).normal(3, 5, (50, 2, 4))
    moments, theirs, returns = begin(2, 4), [RunningMeanStd(), RunningMeanStd()], np.zeros((2, 4))
    for reward in rewards:
        moments, returns = observe_rewards(moments, reward, GAMMA), GAMMA * returns + reward
        for each, seen in zip(theirs, returns, strict=True):
            each.update(seen)
    np.testing.assert_allclose(reward_scale(moments), [np.sqrt(each.var + EPSILON) for each in theirs], rtol=1e-12)
    assert NormalizeReward.__init__.__defaults__[-1] == EPSILON


def test_it_is_the_same_in_jax():
    rewards = np.random.default_rng(1).normal(0, 2, (200, 3)).astype(np.float32)
    moments, traced = begin(3), jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), begin(3))
    step = jax.jit(observe_rewards)
    for reward in rewards:
        moments, traced = (
            observe_rewards(moments, reward.astype(np.float64), GAMMA),
            step(traced, reward, jnp.float32(GAMMA)),
        )
    assert {x.dtype for x in jax.tree.leaves(traced)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(reward_scale(traced), reward_scale(moments), rtol=1e-4)


def test_limited_returns_by_hand(call):
    """Returns of 1 and 2.5, of deviation 0.75; the largest in size comes to 2 at most, later to 2 exactly."""
    for limit, expected in ((2.0, 1.25), (5.0, 0.75)):
        measure = reward_measure("deviation", 0.5, limit)
        moments = begin(1)._replace(size=np.zeros(()), largest=measure.begin(np.zeros(())))
        for reward in (1.0, 2.0):
            moments = measure.observe(moments, np.array([reward]))
        np.testing.assert_allclose(moments.largest, 2.5)
        np.testing.assert_allclose(measure.scale(moments), expected, rtol=1e-7)
    moments = measure.observe(moments._replace(returns=np.array([-9.0])), np.array([0.5]))
    assert moments.largest == 4.0
    traced = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), moments)
    np.testing.assert_allclose(call(measure.scale, traced), measure.scale(moments), rtol=1e-6)
    assert reward_measure("deviation", 0.5).observe(begin(1), np.ones(1)).largest == ()


def test_seeds_have_largest_returns_of_their_own():
    measure = reward_measure("deviation", GAMMA, 1.0)
    moments = begin(2, 3)._replace(largest=measure.begin(np.zeros(2)))
    moments = measure.observe(moments, np.array([[1.0, -4.0, 2.0], [0.5, 0.0, 0.0]]))
    np.testing.assert_allclose(moments.largest, [4, 0.5])


def test_the_mean_size_by_hand(call):
    """Of rewards -2, 4 and 0, 2; before any reward, and while all are 0, it is 1."""
    measure = reward_measure("mean_size", 0.9)
    moments = begin(2)
    for reward, expected in (([0.0, 0.0], 1), ([-2.0, 4.0], 1.5), ([0.0, 0.0], 1)):
        moments = measure.observe(moments, np.array(reward))
        np.testing.assert_allclose(measure.scale(moments), expected, rtol=1e-4)
    assert call(measure.scale, jax.tree.map(jnp.float32, moments._replace(mean=np.zeros(())))) == 1
