"""A learner of scaled rewards is a learner of rewards that were divided before."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny_run import assert_bit_equal

from ddpg_jax.rng import run_keys

KEY = run_keys([3])[0]


def test_it_learns_from_rewards_over_their_scale_and_predicts_in_their_units(tiny, make_tiny, make_batches):
    scaled, batches, obs = make_tiny(scale_rewards=True), make_batches(4), jnp.ones(3)
    plain_state, state = tiny.init(KEY), scaled.init(KEY)
    assert state.stats.reward == 1
    state = state._replace(stats=state.stats._replace(reward=jnp.float32(4.0)))
    divided = batches._replace(data=batches.data._replace(reward=batches.data.reward / 4.0))
    mine, *rest = scaled.update(state, batches, KEY)
    theirs, *others = tiny.update(plain_state, divided, KEY)
    assert_bit_equal((mine.params, rest), (theirs.params, others))
    assert mine.stats.reward == 4
    np.testing.assert_array_equal(scaled.agent.value(mine, obs), 4 * tiny.agent.value(theirs, obs))
    renewed = jax.jit(scaled.agent.reset)(mine, KEY)
    assert_bit_equal(renewed.params, jax.jit(tiny.agent.reset)(theirs, KEY).params)
    assert renewed.stats.reward == 4
