"""The scalar head by hand: three critics of one sample."""

import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.agents.heads import first, scalar

OUTPUTS = jnp.array([[4.0], [1.0], [-2.0]])  # [M, Z]


def test_target_is_bootstrapped_by_the_least_critic(call):
    target = scalar().target
    assert call(target, jnp.float32(1.5), jnp.float32(0.5), OUTPUTS) == 1.5 + 0.5 * -2.0
    assert call(target, jnp.float32(1.5), jnp.float32(0.0), OUTPUTS) == 1.5  # terminal


@pytest.mark.parametrize(("join", "expected"), [(first, 4.0), (jnp.min, -2.0), (jnp.mean, 1.0), (jnp.max, 4.0)])
def test_the_join_of_critics_is_a_slot(call, join, expected):
    head = scalar(bootstrap=join, ascend=join)
    assert call(head.target, jnp.float32(0.0), jnp.float32(1.0), OUTPUTS) == expected
    assert call(head.value, OUTPUTS) == expected


def test_loss_sums_squared_errors_without_a_half(call):
    """y = 2: errors −2, 1, 4; their squares 4 + 1 + 16 are summed, the errors themselves are averaged."""
    loss, td_error = call(scalar().loss, OUTPUTS, jnp.float32(2.0))
    assert (loss.shape, td_error.shape) == ((), ())
    assert (loss, td_error) == (21.0, 1.0)


def test_the_actor_ascends_the_first_critic(call):
    assert call(scalar().value, OUTPUTS) == 4.0


def test_one_critic_makes_all_joins_the_same():
    one = jnp.array([[3.0]])
    for join in (first, jnp.min, jnp.mean):
        head = scalar(bootstrap=join, ascend=join)
        np.testing.assert_array_equal(head.target(jnp.float32(1), jnp.float32(0.5), one), 2.5)
        np.testing.assert_array_equal(head.value(one), 3.0)
