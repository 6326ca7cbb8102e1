"""TD3, D4PG and FastTD3 against NumPy, and as neighbours of DDPG."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_reference import Adam, Learned, d4pg_step, fasttd3_round, in_numpy, td3_round

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.config.load import load_config
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


@pytest.mark.parametrize("join", ["min", "mean"])
def test_two_rounds_of_fasttd3_equal_numpy(make_tiny, make_batches, join):
    settings = {"v_min": -2.0, "v_max": 3.0, "num_atoms": 11, "critic_hidden": (12, 10), "bootstrap": join}
    decay = {"weight_decay": "decoupled", "critic_weight_decay": 0.1, "actor_weight_decay": 0.2}
    tiny = make_tiny(name="fasttd3", target_noise=0.3, target_noise_clip=0.4, **settings, **decay, **RATES)
    state, batches, atoms = tiny.init(KEY), make_batches(4), np.linspace(-2, 3, 11)
    state = tiny.observe(state, batches.data.obs[0])
    actor, critics = in_numpy(state.params).actor, [in_numpy(state.params, m).critic for m in range(2)]
    targets = list(critics)
    adams = Learned(Adam(actor, 3e-3, decoupled=0.2), [Adam(critic, 1e-2, decoupled=0.1) for critic in critics])
    seen = np.asarray(batches.data.obs[0], np.float64)
    for first in (0, 2):
        pair = jax.tree.map(lambda x, first=first: x[first : first + 2], batches)
        state, metrics, _ = tiny.update(state, pair, KEY)
        scaled = pair.data._replace(
            **{
                name: (np.asarray(getattr(pair.data, name), np.float64) - seen.mean(0)) / (seen.std(0) + 1e-2)
                for name in ("obs", "next_obs")
            }
        )
        data, noises = [[x[u] for x in scaled[:5]] for u in range(2)], [smoothing(first + u) for u in range(2)]
        actor, losses = fasttd3_round(actor, critics, targets, data, noises, atoms, adams, 0.1, join=join)
        np.testing.assert_allclose(metrics["critic_loss"], losses, atol=1e-5, rtol=1e-5)
        close(in_numpy(state.params).actor, actor)
        for m in range(2):
            close(in_numpy(state.params, m).critic, critics[m])
            close(in_numpy(state.target_params, m).critic, targets[m])


@pytest.mark.parametrize(
    ("kind", "end", "share"),
    [
        ("linear", 0.2, lambda done: 1 - 0.8 * done),
        ("cosine", 0.2, lambda done: 0.2 + 0.8 * (1 + np.cos(np.pi * done)) / 2),
        ("exponential", 0.01, lambda done: 0.01**done),
    ],
)
def test_rates_go_to_their_ends_over_the_updates_of_the_run(make_batches, spec, kind, end, share):
    """Four updates are due of 504 steps; the actor of TD3 makes two. What comes after has the rate of the end."""
    settings = {"hidden": [8], "learning_rate_schedule": kind, "learning_rate_end": end, "target_noise": 0.0, **RATES}
    config = load_config(total_steps=504, algorithm={"name": "td3", "num_critics": 1, "batch_size": 8, **settings})
    agent = make_agent(config, spec)
    state, update = agent.init(KEY), jax.jit(agent.update)
    actor, critic = in_numpy(state.params)
    target_actor, target_critics, critics = actor, [critic], [critic]
    adams = Learned(
        Adam(actor, lambda t: 3e-3 * share(min(1.0, t / 2))), [Adam(critic, lambda t: 1e-2 * share(min(1.0, t / 4)))]
    )
    for pair in (make_batches(2, seed) for seed in range(3)):
        state, _, _ = update(state, pair, KEY)
        data = [[x[u] for x in pair.data[:5]] for u in range(2)]
        actor, critics, target_actor, target_critics, _ = td3_round(
            actor, critics, target_actor, target_critics, data, [0.0, 0.0], adams, 0.1
        )
        close(in_numpy(state.params).actor, actor)
        close(in_numpy(state.params).critic, critics[0])


def test_a_reset_begins_anew_but_keeps_what_was_seen(make_tiny, make_batches):
    tiny = make_tiny(normalize_observations=True, normalization="batch")
    first = tiny.observe(tiny.init(KEY), jnp.ones((4, 3)))
    learned, _, _ = tiny.update(first, make_batches(3), KEY)
    new = jax.jit(tiny.agent.reset)(learned, KEY)
    expected = tiny.init(stream_key(KEY, "reset networks", 3))
    for name in ("params", "target_params", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(new, name), getattr(expected, name))
    jax.tree.map(np.testing.assert_array_equal, new.stats.networks, first.stats.networks)
    jax.tree.map(np.testing.assert_array_equal, new.stats.obs, learned.stats.obs)
    assert int(new.step) == 3
    kernels = [state.params.actor["params"]["Dense_0"]["kernel"] for state in (first, learned, new)]
    assert all((a != b).all() for a, b in zip(kernels, [*kernels[1:], kernels[0]], strict=True))


def test_batch_normalisation_moves_its_moments_in_each_step_and_acts_by_them(make_tiny, make_batches):
    """The actor's once a round, the critics' in each critic step; targets judge by the batch they are given."""
    tiny = make_tiny(name="td3", normalization="batch", action_layer=1)
    state, batches = tiny.init(KEY), make_batches(2)
    after, metrics, _ = tiny.update(state, batches, KEY)
    means = batches.data.obs.mean(1)
    of_actor, of_critic = (after.stats.networks.actor, after.stats.networks.critic)
    np.testing.assert_allclose(of_actor["BatchNorm_0"]["mean"], 0.01 * means[1], atol=1e-6)
    twice = 0.99 * 0.01 * means[0] + 0.01 * means[1]
    np.testing.assert_allclose(of_critic["BatchNorm_0"]["mean"], np.stack([twice, twice]), atol=1e-6)
    assert sorted(of_critic) == ["BatchNorm_0", "BatchNorm_1"]
    moved = after._replace(stats=state.stats)
    assert (np.abs(tiny.policy(after, jnp.ones(3)) - tiny.policy(moved, jnp.ones(3))) > 1e-4).all()
    assert np.isfinite(metrics["critic_loss"]).all()


def test_fasttd3_draws_the_last_layer_of_the_actor_small(make_tiny):
    params = make_tiny(name="fasttd3", v_min=-1, v_max=1, hidden=(400,), critic_hidden=(30,)).init(KEY).params
    last = params.actor["params"]["Dense_1"]
    np.testing.assert_allclose(np.std(last["kernel"]), 0.01, rtol=0.1)
    assert not last["bias"].any()
    assert params.critic["params"]["Dense_0"]["kernel"].shape == (2, 5, 30)


@pytest.mark.slow
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
