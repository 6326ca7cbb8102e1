"""TD3 and D4PG against NumPy, and as neighbours of DDPG."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_reference import Adam, Learned, d4pg_step, in_numpy, td3_round

from ddpg_jax.rng import run_keys, stream_key

KEY = run_keys([3])[0]
RATES: dict[str, Any] = {"actor_learning_rate": 3e-3, "critic_learning_rate": 1e-2, "tau": 0.1}


def close(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)


def smoothing(step, sigma=0.3, clip=0.4):
    """The noise `[B, A]` of the critic update number `step`."""
    keys = jax.random.split(stream_key(KEY, "critic", step), 8)
    return np.clip(
        sigma * np.asarray(jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys), np.float64), -clip, clip
    )


def test_two_rounds_of_td3_equal_numpy(make_tiny, make_batches):
    tiny = make_tiny(name="td3", target_noise=0.3, target_noise_clip=0.4, **RATES)
    state, batches = tiny.init(KEY), make_batches(4)
    actor, critics = in_numpy(state.params).actor, [in_numpy(state.params, m).critic for m in range(2)]
    target_actor, target_critics = actor, list(critics)
    adams = Learned(Adam(actor, 3e-3), [Adam(critic, 1e-2) for critic in critics])
    for first in (0, 2):
        pair = jax.tree.map(lambda x, first=first: x[first : first + 2], batches)
        state, _, td_error = tiny.update(state, pair, KEY)
        data = [[x[u] for x in pair.data[:5]] for u in range(2)]
        noises = [smoothing(first + u) for u in range(2)]
        actor, critics, target_actor, target_critics, errors = td3_round(
            actor, critics, target_actor, target_critics, data, noises, adams, 0.1
        )
        np.testing.assert_allclose(td_error, errors, atol=1e-5)
        close(in_numpy(state.params).actor, actor)
        close(in_numpy(state.target_params).actor, target_actor)
        for m in range(2):
            close(in_numpy(state.params, m).critic, critics[m])
            close(in_numpy(state.target_params, m).critic, target_critics[m])
    assert np.abs(smoothing(0)).max() == pytest.approx(0.4)  # some noise was clipped
    assert int(state.step) == 4


def test_three_updates_of_d4pg_equal_numpy(make_tiny, make_batches):
    tiny = make_tiny(name="d4pg", v_min=-2.0, v_max=3.0, num_atoms=11, **RATES)
    state, batches = tiny.init(KEY), make_batches(3)
    online = target = in_numpy(state.params)
    adams = Learned(Adam(online.actor, 3e-3), Adam(online.critic, 1e-2))
    for u in range(3):
        batch = jax.tree.map(lambda x, u=u: x[u : u + 1], batches)
        state, metrics, _ = tiny.update(state, batch, KEY)
        data = [x[0] for x in batch.data[:5]]
        online, target, losses = d4pg_step(online, target, data, np.linspace(-2, 3, 11), adams, 0.1)
        np.testing.assert_allclose(metrics["critic_loss"], [losses.mean()], atol=1e-5)
        close([*in_numpy(state.params).actor, *in_numpy(state.params).critic], [*online.actor, *online.critic])
        close(
            [*in_numpy(state.target_params).actor, *in_numpy(state.target_params).critic],
            [*target.actor, *target.critic],
        )


def test_td3_reduced_to_ddpg_is_ddpg_bit_for_bit(make_tiny, make_batches):
    reduced = make_tiny(name="td3", num_critics=1, policy_delay=1, target_noise=0.0)
    plain, batches = make_tiny(), make_batches(4)
    ours = reduced.update(reduced.init(KEY), batches, KEY)
    theirs = plain.update(plain.init(KEY), batches, KEY)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_actor_and_targets_wait_for_the_end_of_a_round(make_tiny, make_batches):
    tiny = make_tiny(name="td3", policy_delay=3)
    before = tiny.init(KEY)
    state, metrics, _ = tiny.update(before, make_batches(3), KEY)
    assert len(set(np.asarray(metrics["actor_loss"]).tolist())) == 1
    assert len(set(np.asarray(metrics["critic_loss"]).tolist())) == 3
    moved = jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), state.target_params, before.target_params))
    assert min(moved) > 0


def test_a_random_subset_changes_from_update_to_update(make_tiny, make_batches):
    """One of ten critics in each target: with the batch the same, the errors differ between two updates' draws."""
    tiny = make_tiny(name="td3", num_critics=10, target_subset=1, target_noise=0.0, policy_delay=1)
    state, batch = tiny.init(KEY), make_batches(1)
    errors = [tiny.update(state._replace(step=jnp.int32(step)), batch, KEY)[2] for step in range(8)]
    assert len({np.asarray(each).tobytes() for each in errors}) > 2
