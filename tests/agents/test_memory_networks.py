"""Networks that remember: what they see at a step, in a window and after it, and what the gradient passes."""

from typing import NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from ddpg_jax.agents.memory_networks import MemoryEncoder, Next, Now, memory_encoder, with_memory
from ddpg_jax.agents.modules import Architecture
from ddpg_jax.agents.networks import ensemble, mlp_actor, mlp_critic
from ddpg_jax.agents.slots import LearnAux
from ddpg_jax.types import BATCH, Recalled, Seen, Window

OBS, ACTION, H, E = 3, 2, 4, 5
N, W, BURN_IN = 8, 6, 2
CELL_NAMES = ("lstm", "gru", "lru")


class Settings(NamedTuple):
    """As the configuration has them."""

    cell: str = "lstm"
    hidden: int = H
    obs_embedding: int = E
    action_embedding: int = 3
    reward_embedding: int = 2


ENCODERS = {name: memory_encoder(OBS, ACTION, Settings(name)) for name in CELL_NAMES}
PARAMS = {name: jax.jit(encoder.init)(jax.random.key(0)) for name, encoder in ENCODERS.items()}
STEPS = {name: jax.jit(encoder.step) for name, encoder in ENCODERS.items()}
LOOKS = {name: jax.jit(encoder.look) for name, encoder in ENCODERS.items()}
UNROLLS = {name: jax.jit(encoder.unroll, static_argnums=(2, 3)) for name, encoder in ENCODERS.items()}
AHEADS = {name: jax.jit(encoder.ahead) for name, encoder in ENCODERS.items()}


def _window(seed, encoder: MemoryEncoder, begins=None) -> Window:
    """N steps with random ends, where `next_obs` is not the next observation; it begins from a carry that is not 0."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    first = rng.random(N) < 0.3 if begins is None else np.isin(np.arange(N), begins)
    obs, end = normal(N, OBS), jnp.asarray(np.append(first[1:], True))
    next_obs = jnp.where(end[:, None], normal(N, OBS), jnp.roll(obs, -1, 0))
    last = jnp.asarray([min(t + 2, N - 1) for t in range(W)], jnp.int32)
    before = normal(ACTION), normal()
    return Window(
        obs, normal(N, ACTION), normal(N), next_obs, jnp.asarray(first), *before, last, normal(encoder.carry_size)
    )


def _recalled(window: Window, i: int, carry) -> Recalled:
    """Step i as an acting agent would be told of it."""
    action, reward = (
        (window.action_before, window.reward_before) if i == 0 else (window.action[i - 1], window.reward[i - 1])
    )
    return Recalled(Seen(window.obs[i], action, reward, window.first[i]), carry)


def _acted(name, window: Window, steps=N):
    """Carries after and features at each step, by single steps."""
    carry, carries, features = ENCODERS[name].unflatten(window.carry), [], []
    for i in range(steps):
        recalled = _recalled(window, i, carry)
        features.append(LOOKS[name](PARAMS[name], recalled))
        carry = STEPS[name](PARAMS[name], recalled)
        carries.append(carry)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *carries), jnp.stack(features)


def _assert_close(found, expected, atol=5e-6):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


@pytest.mark.parametrize("name", CELL_NAMES)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**16), burn_in=st.sampled_from([0, BURN_IN]))
def test_a_window_shows_what_acting_showed(name, seed, burn_in):
    window = _window(seed, ENCODERS[name])
    carries, features = UNROLLS[name](PARAMS[name], window, N, burn_in)
    assert features.shape == (N, ENCODERS[name].features)
    _assert_close((carries, features), _acted(name, window))


@pytest.mark.parametrize("name", CELL_NAMES)
def test_the_first_steps_alone_are_those_of_the_whole_window(name):
    window = _window(1, ENCODERS[name])
    whole, part = (UNROLLS[name](PARAMS[name], window, steps, 0) for steps in (N, W))
    _assert_close(part, jax.tree.map(lambda leaf: leaf[:W], whole))


@pytest.mark.parametrize("name", CELL_NAMES)
def test_without_a_carry_a_window_begins_from_zeros(name):
    window = _window(1, ENCODERS[name], begins=[4])
    zeros = window._replace(carry=jnp.zeros(ENCODERS[name].carry_size))
    found, expected, other = (
        UNROLLS[name](PARAMS[name], each, N, 0) for each in (window._replace(carry=()), zeros, window)
    )
    _assert_close(found, expected, 0)
    assert (other[1][:4] != found[1][:4]).any()


@pytest.mark.parametrize("name", CELL_NAMES)
def test_nothing_passes_an_end_backward_or_forward(name):
    """Carry, observations, actions and rewards of the episode before leave no bit in the features of the next."""
    window = _window(1, ENCODERS[name], begins=[4])
    changed = window._replace(
        obs=window.obs.at[:4].add(1.0),
        action=window.action.at[:4].add(1.0),
        reward=window.reward.at[:4].add(1.0),
        carry=window.carry + 1.0,
    )
    features, others = (UNROLLS[name](PARAMS[name], each, N, 0)[1] for each in (window, changed))
    np.testing.assert_array_equal(features[4:], others[4:])
    assert (features[:4] != others[:4]).any(1).all()

    def later(obs):
        return jnp.sum(UNROLLS[name](PARAMS[name], window._replace(obs=obs), N, 0)[1][4:] ** 2)

    gradient = jax.grad(later)(window.obs)
    assert not gradient[:4].any()
    assert gradient[4:].any()


@pytest.mark.parametrize("name", CELL_NAMES)
def test_where_an_episode_goes_on_the_view_ahead_is_that_of_the_next_step(name):
    window = _window(1, ENCODERS[name], begins=[3, 6])
    carries, features = UNROLLS[name](PARAMS[name], window, N, 0)
    ahead = AHEADS[name](PARAMS[name], window, carries)
    goes_on = ~np.asarray(window.first[1:])
    _assert_close(ahead[:-1][goes_on], features[1:][goes_on])
    assert (np.abs(ahead[:-1] - features[1:])[~goes_on] > 1e-3).any(1).all()


@pytest.mark.parametrize("name", CELL_NAMES)
def test_the_view_ahead_of_an_end_still_remembers_the_episode(name):
    """The true successor at an end is seen with the memory of the episode that it belongs to."""
    window = _window(1, ENCODERS[name], begins=[3])
    carries = UNROLLS[name](PARAMS[name], window, N, 0)[0]
    ahead = AHEADS[name](PARAMS[name], window, carries)
    carry = jax.tree.map(lambda leaf: leaf[2], carries)
    successor = Seen(window.next_obs[2], window.action[2], window.reward[2], jnp.bool_(False))
    _assert_close(ahead[2], LOOKS[name](PARAMS[name], Recalled(successor, carry)))


@pytest.mark.parametrize("name", CELL_NAMES)
def test_no_gradient_passes_the_carry_after_the_burn_in(name):
    """The features stay; those after it depend on nothing before, those of the burn-in on the observation alone."""
    window = _window(1, ENCODERS[name], begins=[])

    def gradient(burn_in, rows):
        def loss(obs):
            return jnp.sum(UNROLLS[name](PARAMS[name], window._replace(obs=obs), W, burn_in)[1][rows] ** 2)

        return jax.grad(loss)(window.obs)

    after = slice(BURN_IN, W)
    assert gradient(0, after)[:BURN_IN].any()
    assert not gradient(BURN_IN, after)[:BURN_IN].any()
    assert gradient(BURN_IN, after)[after].any()
    features = [UNROLLS[name](PARAMS[name], window, W, burn_in)[1] for burn_in in (0, BURN_IN)]
    _assert_close(*features)


def test_inputs_of_width_zero_are_left_out():
    encoder = memory_encoder(OBS, ACTION, Settings(action_embedding=0, reward_embedding=0))
    params = jax.jit(encoder.init)(jax.random.key(0))
    assert params.keys() == {"obs", "shortcut", "cell"}
    assert params["cell"]["input"].shape == (E, 4 * H)
    window = _window(1, encoder, begins=[])
    unroll = jax.jit(encoder.unroll, static_argnums=(2, 3))
    features, others = (
        unroll(params, each, N, 0)[1]
        for each in (window, window._replace(action=window.action + 1.0, reward=window.reward + 1.0))
    )
    np.testing.assert_array_equal(features, others)
    whole = PARAMS["lstm"]
    assert whole.keys() == {"obs", "action", "reward", "shortcut", "cell"}
    assert whole["cell"]["input"].shape == (E + 3 + 2, 4 * H)
    np.testing.assert_array_equal(params["shortcut"]["kernel"], whole["shortcut"]["kernel"])


@pytest.mark.parametrize("name", CELL_NAMES)
def test_a_carry_is_flat_and_back_without_a_change(name):
    encoder = ENCODERS[name]
    flat = jnp.arange(1.0, encoder.carry_size + 1)
    carry = encoder.unflatten(flat)
    assert jax.tree.structure(carry) == jax.tree.structure(encoder.carry())
    assert encoder.carry_size == (H if name == "gru" else 2 * H)
    np.testing.assert_array_equal(encoder.flatten(carry), flat)


BODY = Architecture((6,))
ENCODER = ENCODERS["lstm"]
ACTOR = with_memory(ENCODER, mlp_actor(ENCODER.features, ACTION, BODY), BURN_IN)
CRITICS = with_memory(ENCODER, ensemble(mlp_critic(ENCODER.features, ACTION, BODY), 3), BURN_IN)


def _made(network):
    return jax.jit(network.init)(jax.random.key(2)), network.moments()


def test_the_actor_acts_alike_on_a_window_and_on_its_steps(call):
    params, moments = _made(ACTOR)
    window = _window(3, ENCODER)
    actions = call(ACTOR.apply, params, moments, Now(window))
    assert actions.shape == (W - BURN_IN, ACTION)
    carry, act = ENCODER.unflatten(window.carry), jax.jit(ACTOR.apply)
    for i in range(W):
        recalled = _recalled(window, i, carry)
        if i >= BURN_IN:
            np.testing.assert_allclose(act(params, moments, recalled), actions[i - BURN_IN], atol=1e-5)
        carry = STEPS["lstm"](params["memory"], recalled)


def test_next_is_the_view_at_the_true_successors_of_the_last_steps():
    params, moments = _made(CRITICS)
    window = _window(3, ENCODER)
    action = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (W - BURN_IN, ACTION)), jnp.float32)
    carries, _ = UNROLLS["lstm"](params["memory"], window, N, 0)
    ahead = AHEADS["lstm"](params["memory"], window, carries)
    body = ensemble(mlp_critic(ENCODER.features, ACTION, BODY), 3)
    found = jax.jit(CRITICS.apply)(params, moments, Next(window), action)
    assert found.shape == (W - BURN_IN, 3, 1)
    judge = jax.jit(lambda features, action: body.apply(params["body"], (), features, action))
    for t in range(W - BURN_IN):
        np.testing.assert_allclose(found[t], judge(ahead[window.last[BURN_IN + t]], action[t]), atol=1e-5)


def test_learning_gives_what_applying_gives_and_which_units_answer_in_any_step():
    params, moments = _made(CRITICS)
    windows = [_window(seed, ENCODER) for seed in range(4)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *windows)

    def learn(window):
        return CRITICS.learn(params, moments, Now(window), window.action[BURN_IN:W])

    outputs, aux = jax.jit(jax.vmap(learn, out_axes=(0, LearnAux(None, 0)), axis_name=BATCH))(batch)
    assert outputs.shape == (4, W - BURN_IN, 3, 1)
    assert aux.moments == {"memory": (), "body": ()} == moments
    body = ensemble(mlp_critic(ENCODER.features, ACTION, BODY), 3)
    apply = jax.jit(CRITICS.apply)
    one = jax.jit(lambda x, a: body.learn(params["body"], (), x, a)[1].active)
    for b, window in enumerate(windows):
        np.testing.assert_allclose(apply(params, moments, Now(window), window.action[BURN_IN:W]), outputs[b], atol=1e-5)
        features = UNROLLS["lstm"](params["memory"], window, W, BURN_IN)[1]
        each = [one(x, a) for x, a in zip(features[BURN_IN:], window.action[BURN_IN:W], strict=True)]
        np.testing.assert_array_equal(aux.active[b], np.any(each, 0))
    assert 0 < np.mean(aux.active) < 1


def test_batch_norm_of_the_body_keeps_its_moments_over_all_steps():
    body = mlp_actor(ENCODER.features, ACTION, BODY._replace(normalization="batch"))
    network = with_memory(ENCODER, body)
    params, moments = _made(network)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[_window(seed, ENCODER) for seed in range(4)])
    learn = jax.vmap(lambda w: network.learn(params, moments, Now(w)), out_axes=(0, LearnAux(None, 0)), axis_name=BATCH)
    aux = jax.jit(learn)(batch)[1]
    features = jax.jit(jax.vmap(lambda w: ENCODER.unroll(params["memory"], w, W, 0)[1]))(batch)
    mean = 0.01 * np.mean(features, (0, 1))
    np.testing.assert_allclose(aux.moments["body"]["BatchNorm_0"]["mean"], mean, atol=1e-5)


def test_the_memory_of_a_critic_does_not_see_the_action_that_it_judges():
    params, moments = _made(CRITICS)
    window = _window(3, ENCODER)

    def judged(action):
        return CRITICS.apply(params, moments, Now(window), action)

    jacobian = jax.jit(jax.jacrev(lambda action: judged(action)[..., 0].sum(1)))(window.action[BURN_IN:W])
    across = np.abs(jacobian).max(-1)
    assert (np.diag(across) > 0).all()
    assert not (across - np.diag(np.diag(across))).any()


@pytest.mark.parametrize("name", CELL_NAMES)
def test_products_in_bfloat16_are_close_and_results_are_float32(name):
    rough = memory_encoder(OBS, ACTION, Settings(name), "bfloat16")
    window = _window(1, rough)
    found = jax.jit(rough.unroll, static_argnums=(2, 3))(PARAMS[name], window, N, 0)
    expected = UNROLLS[name](PARAMS[name], window, N, 0)
    _assert_close(found, expected, 0.1)
    assert (found[1] != expected[1]).any()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
