"""TD7: updates against NumPy over a copy of everything, the range of targets, and what learns from what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_reference import Adam
from numpy_td7 import actor_step, critic_step, encoder_step, nets_of
from smoothed import CLIP, KEY, SIGMA, assert_close, noise_of

from ddpg_jax.agents.heads import robust
from ddpg_jax.agents.targets import seen_range
from ddpg_jax.config.load import load_config
from ddpg_jax.errors import ConfigError

TD7 = {"name": "td7", "hidden": (7, 6), "input_width": 5, "embedding_size": 4, "encoder_hidden": (6, 5)}
RATES = {"actor_learning_rate": 3e-3, "critic_learning_rate": 1e-2, "encoder_learning_rate": 5e-3}


@pytest.fixture(scope="module")
def td7(make_tiny):
    return make_tiny(**TD7, **RATES, target_every=4, target_noise=SIGMA, target_noise_clip=CLIP)


@pytest.mark.slow
def test_five_rounds_equal_numpy_over_two_copies_of_everything(td7, make_batches):
    """Encoder, critics, actor, Adam, range and copies; in the last round the encoders are of three ages."""
    state, batches = td7.init(KEY), make_batches(10)
    nets = target = nets_of(state.params)
    adams = {
        "encoder": Adam([*nets.learned[0], *nets.learned[1]], 5e-3),
        "actor": Adam(nets.actor, 3e-3),
        **{f"critic_{m}": Adam(critic, 1e-2) for m, critic in enumerate(nets.critics)},
    }
    bounds, seen = (0.0, 0.0), (np.inf, -np.inf)
    for first in range(0, 10, 2):
        pair = jax.tree.map(lambda x, first=first: x[first : first + 2], batches)
        state, metrics, td_error = td7.update(state, pair, KEY)
        for u in range(2):
            data = [np.asarray(x[u], np.float64) for x in pair.data[:5]]
            learned, encoder_loss = encoder_step(nets, data, adams)
            critics, y, loss, errors = critic_step(nets, target, data, noise_of(first + u), bounds, adams)
            nets = nets._replace(learned=learned, critics=critics)
            seen = min(seen[0], y.min()), max(seen[1], y.max())
            np.testing.assert_allclose(metrics["encoder_loss"][u], encoder_loss, atol=1e-5)
            np.testing.assert_allclose(metrics["critic_loss"][u], loss, atol=1e-5)
            np.testing.assert_allclose(td_error[u], errors, atol=1e-5)
        actor, actor_loss = actor_step(nets, data[0], adams)
        np.testing.assert_allclose(metrics["actor_loss"][1], actor_loss, atol=1e-5)
        nets = nets._replace(actor=actor)
        if first in (2, 6):  # after four updates and after eight
            target, nets, bounds = nets, nets._replace(fixed=nets.learned), seen
        assert_close(nets_of(state.params), nets)
        assert_close(nets_of(state.target_params), target)
        np.testing.assert_allclose(state.stats.targets[:2], bounds, atol=1e-5)
    assert not metrics["rejected"].any()


def test_between_copies_all_that_is_fixed_stands_still(td7, make_batches):
    before = td7.init(KEY)
    state, *_ = td7.update(before, make_batches(2), KEY)
    for fixed in (
        lambda s: s.target_params,
        lambda s: s.params.encoder["fixed"],
        lambda s: s.stats.targets[:2],
    ):
        jax.tree.map(np.testing.assert_array_equal, fixed(state), fixed(before))
    for learned in (lambda s: s.params.encoder["learned"], lambda s: s.params.actor, lambda s: s.params.critic):
        moved = jax.tree.map(lambda a, b: (a != b).any(), learned(state), learned(before))
        assert all(jax.tree.leaves(moved))
    new, *_ = td7.update(state, make_batches(2, 1), KEY)
    assert_close(new.params.encoder["fixed"], new.params.encoder["learned"])
    assert_close(new.target_params.encoder["fixed"], before.params.encoder["fixed"])
    assert_close((new.target_params.critic, new.target_params.actor), (new.params.critic, new.params.actor))


def test_the_range_by_hand():
    """Zero until the first refresh; then the lowest and highest of all targets seen before it."""
    bounds = seen_range()
    seen, outputs = bounds.init(), jnp.array([[-9.0], [0.5], [9.0]])
    np.testing.assert_array_equal(bounds.clip(seen, outputs), [[0], [0], [0]])
    for y in ([1.0, -2.0], [3.0, 0.0]):
        seen = bounds.observe(seen, jnp.array(y))
    np.testing.assert_array_equal(bounds.clip(seen, outputs), [[0], [0], [0]])
    seen = bounds.observe(seen.refresh(), jnp.array([7.0]))
    np.testing.assert_array_equal(bounds.clip(seen, outputs), [[-2], [0.5], [3]])
    np.testing.assert_array_equal(bounds.clip(seen.refresh(), outputs), [[-2], [0.5], [7]])


def test_the_robust_head_by_hand():
    """Targets 3, values 2.5 and 0: 0.125 + (3 - 0.5); below the threshold priorities are all alike."""
    head = robust()
    outputs = jnp.array([[2.5], [0.0]])
    assert head.target(jnp.float32(1), jnp.float32(0.5), jnp.array([[4.0], [6.0]]), KEY) == 3
    loss, error = head.loss(outputs, jnp.float32(3))
    assert (loss, error) == (2.625, 3)
    assert head.loss(jnp.array([[2.5], [3.1]]), jnp.float32(3))[1] == 1
    assert head.value(outputs) == 1.25


def test_the_policy_sees_the_fixed_encoder(td7):
    state = td7.init(KEY)
    learned = state.params.encoder["learned"]
    obs = jnp.ones(3)
    for copy, same in (("learned", True), ("fixed", False)):
        other = state.params.encoder | {copy: jax.tree.map(lambda x: x + 1.0, learned)}
        changed = state._replace(params=state.params._replace(encoder=other))
        assert bool((td7.policy(changed, obs) == td7.policy(state, obs)).all()) == same


def test_what_td7_cannot_be_is_refused():
    for field, value in (("architecture", "simba"), ("memory", {}), ("make_networks", "m:f"), ("action_layer", 1)):
        with pytest.raises(ConfigError, match=f"{field} is not possible with name=.td7., whose networks see embedd"):
            load_config(algorithm={"name": "td7", field: value})
    with pytest.raises(ConfigError, match="target_every=5 is not a multiple of policy_delay=2"):
        load_config(algorithm={"name": "td7", "target_every": 5})
    with pytest.raises(ConfigError, match=r"encoder is not possible with name=.td7"):
        load_config(algorithm={"name": "td7"}, env={"pixels": {}})
