"""The heads by hand: three critics of one sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.agents.heads import average, categorical, first, lowest, random_subset, scalar

OUTPUTS = jnp.array([[4.0], [1.0], [-2.0]])  # [M, Z]
NO_KEY = jnp.uint32(0)  # all critics count: nothing is drawn
ATOMS = jnp.array([-1.0, 0.0, 1.0])
LOGITS = jnp.log(jnp.array([[0.2, 0.2, 0.6], [0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))  # means 0.4, -0.25, 0


def test_target_is_bootstrapped_by_the_least_critic(call):
    target = scalar().target
    assert call(target, jnp.float32(1.5), jnp.float32(0.5), OUTPUTS, NO_KEY) == 1.5 + 0.5 * -2.0
    assert call(target, jnp.float32(1.5), jnp.float32(0.0), OUTPUTS, NO_KEY) == 1.5  # terminal


@pytest.mark.parametrize(("join", "expected"), [(first, 4.0), (jnp.min, -2.0), (jnp.mean, 1.0), (jnp.max, 4.0)])
def test_the_join_of_critics_is_a_slot(call, join, expected):
    head = scalar(bootstrap=join, ascend=join)
    assert call(head.target, jnp.float32(0.0), jnp.float32(1.0), OUTPUTS, NO_KEY) == expected
    assert call(head.value, OUTPUTS) == expected


def test_loss_sums_squared_errors_without_a_half(call):
    """y = 2: errors −2, 1, 4; their squares 4 + 1 + 16 are summed, their sizes 2 + 1 + 4 averaged."""
    loss, td_error = call(scalar().loss, OUTPUTS, jnp.float32(2.0))
    assert (loss.shape, td_error.shape) == ((), ())
    assert loss == 21.0
    np.testing.assert_allclose(td_error, 7 / 3, rtol=1e-6)


def test_the_actor_ascends_the_first_critic(call):
    assert call(scalar().value, OUTPUTS) == 4.0


def test_one_critic_makes_all_joins_the_same():
    one = jnp.array([[3.0]])
    for join in (first, jnp.min, jnp.mean):
        head = scalar(bootstrap=join, ascend=join)
        np.testing.assert_array_equal(head.target(jnp.float32(1), jnp.float32(0.5), one, NO_KEY), 2.5)
        np.testing.assert_array_equal(head.value(one), 3.0)


def test_a_random_subset_takes_each_critic_alike():
    choose = jax.vmap(random_subset(2), (None, 0))
    chosen = np.asarray(choose(OUTPUTS, jax.random.split(jax.random.key(0), 3000)))[..., 0]
    assert chosen.shape == (3000, 2)
    assert (chosen[:, 0] != chosen[:, 1]).all()
    for value in (4.0, 1.0, -2.0):
        assert 0.62 < (chosen == value).any(1).mean() < 0.71


@pytest.mark.parametrize(
    ("bootstrap", "expected"),
    [(lowest, [0.5, 0.25, 0.25]), (average, [0.8 / 3, 1.25 / 3, 0.95 / 3])],
)
def test_the_target_of_categorical_critics_is_a_whole_distribution(call, bootstrap, expected):
    """With reward 0 and discount 1 nothing moves; the lowest takes all of the critic with the lowest mean."""
    target = categorical(ATOMS, bootstrap).target
    np.testing.assert_allclose(call(target, jnp.float32(0), jnp.float32(1), LOGITS, NO_KEY), expected, rtol=1e-5)
    np.testing.assert_allclose(
        call(target, jnp.float32(0.25), jnp.float32(0), LOGITS, NO_KEY), [0.0, 0.75, 0.25], atol=1e-6
    )


def test_the_lowest_critic_is_the_lowest_after_the_projection(call):
    """Means -0.1 and 0 before; a reward of 1 moves atoms to 0, 1 and 1, whose means are 0.6 and 0.5."""
    logits = jnp.log(jnp.array([[0.4, 0.3, 0.3], [0.5, 1e-9, 0.5]]))
    found = call(categorical(ATOMS).target, jnp.float32(1), jnp.float32(1), logits, NO_KEY)
    np.testing.assert_allclose(found, [0.0, 0.5, 0.5], atol=1e-6)


def test_the_loss_of_categorical_critics_sums_cross_entropies(call):
    """y = [0, 0.5, 0.5]: −(ln 0.2 + ln 0.6)/2 − (ln 0.25 + ln 0.25)/2 − (ln 0.8 + ln 0.1)/2; mean 0.5 against 0.05."""
    loss, td_error = call(categorical(ATOMS).loss, LOGITS, jnp.array([0.0, 0.5, 0.5]))
    np.testing.assert_allclose(loss, -np.log([0.2, 0.6, 0.25, 0.25, 0.8, 0.1]).sum() / 2, rtol=1e-6)
    np.testing.assert_allclose(td_error, 0.5 - 0.05, rtol=1e-5)


@pytest.mark.parametrize(("join", "expected"), [(first, 0.4), (jnp.min, -0.25), (jnp.mean, 0.05)])
def test_the_actor_ascends_the_means_of_categorical_critics(call, join, expected):
    np.testing.assert_allclose(call(categorical(ATOMS, ascend=join).value, LOGITS), expected, rtol=1e-5)
