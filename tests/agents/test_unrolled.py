"""MR.Q: updates against NumPy, what is foretold of a window, and in which units values are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_mrq import actor_step, critic_step, encoder_step, nets_of
from numpy_reference import Adam
from smoothed import CLIP, KEY, SIGMA, assert_close, noise_of

from ddpg_jax.agents.unrolled import Units, in_units, take_over
from ddpg_jax.config.load import load_config
from ddpg_jax.errors import ConfigError
from ddpg_jax.replay.windows import StepRows, make_windows
from ddpg_jax.types import Batch, Params, Stats

MRQ = {
    "name": "mrq",
    "hidden": (7, 6),
    "critic_hidden": (6, 5),
    "embedding_size": 4,
    "encoder_hidden": (6,),
    "action_embedding": 3,
    "reward_bins": 5,
    "reward_range": 1.0,
    "n_step": 2,
    "horizon": 3,
}
RATES = {"actor_learning_rate": 3e-3, "critic_learning_rate": 1e-2, "encoder_learning_rate": 5e-3}
WEIGHTS = {"reward": 0.3, "next": 0.8, "done": 0.4, "contrast": 0.2}
DECAY, PENALTY = 1e-2, 0.05


@pytest.fixture(scope="module")
def mrq(make_tiny):
    decays = {f"{name}_weight_decay": DECAY for name in ("actor", "critic", "encoder")}
    weights = {f"{name}_weight": value for name, value in WEIGHTS.items()}
    more = {"target_every": 2, "target_noise": SIGMA, "target_noise_clip": CLIP, "action_penalty": PENALTY}
    return make_tiny(**MRQ, **RATES, **decays, **weights, **more)


def rows_of(updates, seed=0):
    """Windows of 4 steps, of which many end, `[U, 8, 4, ...]`; they say nothing of the row before."""
    rng, shape = np.random.default_rng(seed), (updates, 8, 4)
    return {
        "obs": rng.normal(size=(*shape, 3)),
        "action": rng.uniform(-1, 1, (*shape, 2)),
        "reward": 2 * rng.normal(size=shape),
        "next_obs": rng.normal(size=(*shape, 3)),
        "terminated": rng.random(shape) < 0.2,
        "truncated": rng.random(shape) < 0.15,
    }


def batches_of(rows):
    """As the replay makes them of rows."""

    def column(name, *before):
        x = rows[name] if rows[name].dtype == bool else rows[name].astype(np.float32)
        return np.concatenate([np.zeros_like(x[:, :, :1]), x], 2) if before else x

    stored = StepRows(*(column(name, *(() if "obs" in name else (0,))) for name in StepRows._fields))
    whole = np.full(rows["reward"].shape[:2], 4)
    data = make_windows(stored, whole < 0, whole, n_step=2, gamma=np.float32(0.99))
    weight = jnp.ones(whole.shape)
    return jax.tree.map(jnp.asarray, Batch(data, weight, weight.astype(jnp.int32)))


@pytest.mark.slow
def test_six_updates_equal_numpy_over_two_copies_and_three_scales(mrq):
    """Encoder, critics, actor, AdamW, units and copies; in the last call the encoders are of three ages."""
    state, rows = mrq.init(KEY), rows_of(6)
    nets = target = nets_of(state.params)
    adams = {
        "encoder": Adam([x for part in nets.learned for x in part], 5e-3, decoupled=DECAY),
        "actor": Adam(nets.actor, 3e-3, decoupled=DECAY),
        **{f"critic_{m}": Adam(critic, 1e-2, decoupled=DECAY) for m, critic in enumerate(nets.critics)},
    }
    places = np.sign(np.linspace(-1, 1, 5)) * np.expm1(np.abs(np.linspace(-1, 1, 5)))
    settings = {"weights": WEIGHTS, "places": places, "temperature": 0.1, "horizon": 3, "n_step": 2, "gamma": 0.99}
    units = (2.5, 2.5)
    for first, scale in ((0, 2.5), (2, 1.5), (4, 4.0)):
        state = state._replace(stats=state.stats._replace(reward=jnp.float32(scale)))
        pair = {name: x[first : first + 2] for name, x in rows.items()}
        state, metrics, td_error = mrq.update(state, batches_of(pair), KEY)
        for u in range(2):
            of_one = {name: x[u] for name, x in pair.items()}
            learned, parts = encoder_step(nets, of_one, settings, adams)
            critics, loss, errors = critic_step(nets, target, of_one, noise_of(first + u), settings, units, adams)
            nets = nets._replace(learned=learned, critics=critics)
            actor, actor_loss = actor_step(nets, of_one["obs"][:, 0], PENALTY, adams)
            nets = nets._replace(actor=actor)
            for name, value in parts.items():
                np.testing.assert_allclose(metrics[f"{name}_loss"][u], value, atol=1e-5)
            np.testing.assert_allclose(metrics["critic_loss"][u], loss, atol=1e-5)
            np.testing.assert_allclose(metrics["actor_loss"][u], actor_loss, atol=1e-5)
            np.testing.assert_allclose(td_error[u], errors, atol=1e-5)
        target, nets, units = nets, nets._replace(fixed=nets.learned[:2]), (scale, units[0])
        assert_close(nets_of(state.params), nets)
        assert_close(nets_of(state.target_params)[1:], target[1:])
        np.testing.assert_allclose(state.stats.targets, units)
    assert not metrics["rejected"].any()


@pytest.mark.slow
def test_what_comes_after_an_end_teaches_nothing(mrq):
    """A window that is cut at its second step: of the third, only that it is there for others to be told apart from."""
    state = mrq.init(KEY)
    rows = rows_of(2, seed=1) | {name: np.zeros((2, 8, 4), bool) for name in ("terminated", "truncated")}
    losses = []
    for end in ("terminated", "truncated"):
        ended = rows | {end: np.arange(4) == np.ones((2, 8, 1))}
        for changed in (0.0, 9.0):
            beyond = changed * (np.arange(4) > 1)
            other = (
                ended | {name: ended[name] + beyond for name in ("reward",)} | {"obs": ended["obs"] + beyond[:, None]}
            )
            losses.append(mrq.update(state, batches_of(other), KEY)[1])
        assert losses[-1]["done_loss"][0] == losses[-2]["done_loss"][0]
        assert losses[-1]["reward_loss"][0] == losses[-2]["reward_loss"][0]
    assert losses[0]["done_loss"][0] != losses[2]["done_loss"][0]  # a time limit is no end to foretell
    assert losses[0]["reward_loss"][0] == losses[2]["reward_loss"][0]


def test_the_policy_sees_the_fixed_encoder(mrq):
    state, obs = mrq.init(KEY), jnp.ones(3)
    for copy, same in (("learned", True), ("fixed", False)):
        encoder = state.params.encoder
        other = encoder | {copy: jax.tree.map(lambda x: x + 1.0, encoder[copy])}
        changed = state._replace(params=state.params._replace(encoder=other))
        assert bool((mrq.policy(changed, obs) == mrq.policy(state, obs)).all()) == same


def test_units_by_hand():
    """Rewards over 4, and values that were over 2 halved; a copy takes the scale of the loop, 8."""
    units = Units(now=jnp.float32(4), before=jnp.float32(2))
    assert in_units().reward(units, jnp.float32(6)) == 1.5
    np.testing.assert_array_equal(in_units().clip(units, jnp.array([[3.0], [-5.0]])), [[1.5], [-2.5]])
    after = take_over(Stats((), Params((), (), ()), reward=jnp.float32(8), targets=units)).targets
    assert (after.now, after.before) == (8, 4)


@pytest.mark.slow
def test_values_are_in_the_units_of_the_environment_and_a_reset_keeps_the_scale(mrq):
    state, obs = mrq.init(KEY), jnp.ones(3)
    assert (state.stats.reward, state.stats.targets.now) == (1, 0)
    begun = state._replace(stats=state.stats._replace(reward=jnp.float32(8)))
    value = jax.jit(mrq.agent.value)
    np.testing.assert_allclose(value(begun, obs), 8 * value(state, obs), rtol=1e-6)
    learned, *_ = mrq.update(begun, batches_of(rows_of(2)), KEY)
    assert learned.stats.targets.now == 8
    new = jax.jit(mrq.agent.reset)(learned, KEY)
    assert (new.stats.reward, new.stats.targets.now) == (8, 0)


def test_what_mrq_cannot_be_is_refused():
    for field, value in (("architecture", "simba"), ("memory", {}), ("make_networks", "m:f"), ("action_layer", 1)):
        with pytest.raises(ConfigError, match=f"{field} is not possible with name=.mrq., whose networks see embedd"):
            load_config(algorithm={"name": "mrq", "normalization": "none", field: value})
    with pytest.raises(ConfigError, match=r"scale_rewards has no effect with name=.mrq"):
        load_config(algorithm={"name": "mrq", "scale_rewards": True})
    with pytest.raises(ConfigError, match=r"warmup_steps = 4 .*no window of 5 steps.* or lower algorithm\.horizon"):
        load_config(algorithm={"name": "mrq", "warmup_steps": 4})
    with pytest.raises(ConfigError, match=r"no windows for algorithm\.name=.mrq.: set it to"):
        load_config(algorithm={"name": "mrq"}, replay={"kind": "hindsight"})
