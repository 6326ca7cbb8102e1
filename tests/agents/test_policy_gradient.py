"""The assembly against Algorithm 1 in plain NumPy, and the promises of `Agent`."""

from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy_reference import Adam, Learned, algorithm_1, diagnosed, forward, in_numpy

from ddpg_jax.agents import modules, networks, noise
from ddpg_jax.agents.exploration import additive
from ddpg_jax.agents.heads import scalar
from ddpg_jax.agents.networks import stateless
from ddpg_jax.agents.policy_gradient import policy_gradient
from ddpg_jax.agents.targets import polyak
from ddpg_jax.equations.priorities import Prioritization
from ddpg_jax.replay.host.prioritized import PrioritizedRing
from ddpg_jax.rng import HostStream, explore_keys, run_keys
from ddpg_jax.types import Batch, EnvSpec, Params, Step, Transition

FROZEN = optax.set_to_zero()
STAY = polyak(0.0)
SHAPE = modules.Architecture((8,))


def run_key(seed):
    return run_keys([seed])[0]


def assemble(*, actor=FROZEN, critic=FROZEN, exploration=None, update_targets=STAY, **slots):
    """A small DDPG of which only what is named learns."""
    return policy_gradient(
        networks=Params(
            networks.identity(),
            networks.mlp_actor(3, 2, SHAPE),
            networks.ensemble(networks.mlp_critic(3, 2, SHAPE), 1),
        ),
        head=scalar(),
        exploration=exploration or additive(noise.zero(2)),
        optimizers=Params(FROZEN, actor, critic),
        update_targets=update_targets,
        **slots,
    )


def transparent(init=lambda key: jnp.zeros(()), **slots):
    """An agent that learns nothing, with mu(s) = p·s and Q(s, a) = p + s[0] + a[0], the parameters p by `init`."""
    return policy_gradient(
        networks=Params(
            stateless(init, lambda p, obs: obs),
            stateless(init, lambda p, obs: p * obs),
            stateless(lambda key: init(key)[None], lambda p, obs, action: (p + obs[0] + action[0])[:, None]),
        ),
        head=scalar(),
        exploration=additive(noise.zero(2)),
        optimizers=Params(FROZEN, FROZEN, FROZEN),
        update_targets=STAY,
        **slots,
    )


def nothing(updates, size=8):
    """Batches of zeros and discount 1, for `transparent` agents."""
    shape = (updates, size)
    zeros, flat = jnp.zeros((*shape, 2)), jnp.zeros(shape)
    return Batch(Transition(zeros, zeros, flat, flat + 1, zeros), flat + 1, jnp.zeros(shape, jnp.int32))


def assert_equal(left, right):
    """Bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, left, right)


def assert_close(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), left, right)


def one_batch(batches, u):
    return jax.tree.map(lambda x: x[u : u + 1], batches)


# --- Algorithm 1


@pytest.mark.parametrize(
    ("action_layer", "settings", "decay"),
    [
        (0, {}, {}),
        (1, {}, {}),
        (1, {"weight_decay": "l2", "critic_weight_decay": 1e-2}, {"l2": 1e-2}),
        (0, {"weight_decay": "decoupled", "critic_weight_decay": 1e-2}, {"decoupled": 1e-2}),
        (0, {"max_grad_norm": 0.02}, {"max_norm": 0.02}),
        (
            1,
            {"max_grad_norm": 0.02, "weight_decay": "l2", "critic_weight_decay": 1e-2},
            {"max_norm": 0.02, "l2": 1e-2},
        ),
    ],
    ids=["plain", "plain, later", "l2", "decoupled", "clipped", "clipped_l2"],
)
def test_three_updates_equal_algorithm_1_in_numpy(make_tiny, make_batches, action_layer, settings, decay):
    rates = {"actor_learning_rate": 3e-3, "critic_learning_rate": 1e-2}
    tiny = make_tiny(action_layer=action_layer, tau=0.1, **rates, **settings)
    state, batches = tiny.init(run_key(0)), make_batches(3)
    online, target = in_numpy(state.params), in_numpy(state.target_params)
    adams = Learned(
        Adam(online.actor, 3e-3, max_norm=decay.get("max_norm", np.inf)), Adam(online.critic, 1e-2, **decay)
    )
    for u in range(3):
        batch = one_batch(batches, u)
        state, metrics, td_error = tiny.update(state, batch, run_key(0))
        online, target, expected, errors = algorithm_1(online, target, batch, adams, 0.1, action_layer)
        chex.assert_trees_all_close(in_numpy(state.params), online, atol=1e-5, rtol=0)
        chex.assert_trees_all_close(in_numpy(state.target_params), target, atol=1e-5, rtol=0)
        chex.assert_trees_all_close({k: float(m[0]) for k, m in metrics.items()}, expected, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(td_error[0], np.abs(errors), atol=1e-5)
        assert min(expected["critic_grad_norm"], expected["actor_grad_norm"]) > decay.get("max_norm", 0)
    assert int(state.step) == 3
    found = jax.jit(tiny.agent.diagnose)(state, jax.tree.map(lambda x: x[2], batches))
    expected = diagnosed(online, target, one_batch(batches, 2), action_layer)
    chex.assert_trees_all_close({k: float(x) for k, x in found.items()}, expected, atol=1e-5)
    assert expected["target_distance"] > 1e-3


def test_prioritised_updates_equal_algorithm_1_in_numpy(make_tiny):
    """The whole way by definition, in float64: priorities, draws, weights (N·P)^-beta / max, gradients, write-back."""
    tiny, rng = make_tiny(tau=0.1, actor_learning_rate=3e-3, critic_learning_rate=1e-2), np.random.default_rng(0)
    rule = Prioritization(alpha=0.6, beta=0.4, beta_end=1.0, epsilon=1e-6, updates=10)
    spec = EnvSpec((3,), "float32", (-2.0, -1.0), (2.0, 3.0))
    ring = PrioritizedRing(spec, [0], num_envs=1, capacity=100, n_step=1, gamma=0.9, rule=rule)
    for _ in range(60):
        obs, next_obs = rng.normal(size=(2, 1, 1, 3))
        ring.add(obs, rng.uniform(-1, 1, (1, 1, 2)), Step(obs, next_obs, rng.normal(size=(1, 1)), *np.zeros((2, 1, 1))))
    state, p = tiny.init(run_key(0)), np.ones(60)
    online, target = in_numpy(state.params), in_numpy(state.target_params)
    adams = Learned(Adam(online.actor, 3e-3), Adam(online.critic, 1e-2))
    for call in range(6):
        batch = ring.sample(1, 8, call)
        share = HostStream(0, "replay").at(call).random((1, 8))
        np.testing.assert_array_equal(batch.index[0], np.searchsorted(np.cumsum(p), share * p.sum(), "right"))
        weight = (60 * p[batch.index[0]] / p.sum()) ** -(0.4 + 0.6 * call / 10)
        by_definition = batch._replace(weight=weight / weight.max())
        by_definition = by_definition._replace(data=jax.tree.map(lambda x: x[0], batch.data))
        state, _, td_error = tiny.update(state, jax.tree.map(lambda x: jnp.asarray(x[0]), batch), run_key(0))
        online, target, _, errors = algorithm_1(online, target, by_definition, adams, 0.1, 0)
        chex.assert_trees_all_close(in_numpy(state.params), online, atol=1e-5, rtol=0)
        ring.write_back(batch.index, td_error[None])
        p[batch.index[0, 0]] = (np.abs(errors) + 1e-6) ** 0.6
        np.testing.assert_allclose(ring.tree.get(np.arange(60)[None])[0], p, rtol=1e-4, atol=1e-5)
        p = ring.tree.get(np.arange(60)[None])[0]
    assert weight.min() / weight.max() < 0.5


# --- Gradients, targets and weights


def test_the_actors_gradient_is_the_deterministic_policy_gradient(make_batches):
    """The mean over the batch of J_theta(mu)^T grad_a Q(s, mu(s)), sample by sample, with the new critic."""
    agent = assemble(actor=optax.sgd(1.0), critic=optax.sgd(0.1))
    before, batch = jax.jit(agent.init)(run_key(1)), make_batches(1)
    after, _, _ = jax.jit(agent.update)(before, batch, run_key(1))
    mu, q = networks.mlp_actor(3, 2, SHAPE), networks.mlp_critic(3, 2, SHAPE)
    critic = jax.tree.map(lambda leaf: leaf[0], after.params.critic)
    jacobian, grad_a = jax.jit(jax.jacobian(mu.apply)), jax.jit(jax.jacobian(q.apply, argnums=3))
    samples = []
    for obs in batch.data.obs[0]:
        d_q = grad_a(critic, (), obs, mu.apply(before.params.actor, (), obs))[0]  # [A]
        samples.append(jax.tree.map(lambda j, d=d_q: np.tensordot(d, j, 1), jacobian(before.params.actor, (), obs)))
    expected = jax.tree.map(lambda *each: np.mean(each, axis=0), *samples)
    ascended = jax.tree.map(lambda new, old: new - old, after.params.actor, before.params.actor)
    chex.assert_trees_all_close(ascended, expected, atol=1e-6, rtol=1e-4)
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-4
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, before.params.critic, after.params.critic))


@pytest.mark.parametrize("compiled", [False, True])
def test_targets_start_as_copies_so_the_state_can_be_donated(tiny, make_batches, compiled):
    state = (jax.jit(tiny.agent.init) if compiled else tiny.agent.init)(run_key(0))
    assert_equal(state.params, state.target_params)
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    update = jax.jit(tiny.agent.update, donate_argnums=0)
    expected, _, _ = tiny.update(state, make_batches(1), run_key(0))
    donated, _, _ = update(state, make_batches(1), run_key(0))
    assert all(leaf.is_deleted() for leaf in leaves)
    assert_equal(donated, expected)


def test_the_successor_of_a_terminal_transition_is_not_read(tiny, make_batches):
    state, batches = tiny.init(run_key(0)), make_batches(1)

    def updated(discount, next_obs):
        data = batches.data._replace(discount=jnp.full((1, 8), discount), next_obs=next_obs)
        return tiny.update(state, batches._replace(data=data), run_key(0))

    here, there = batches.data.next_obs, 100.0 * batches.data.next_obs
    assert_equal(updated(0.0, here), updated(0.0, there))
    assert (updated(0.99, here)[2] != updated(0.99, there)[2]).all()


def test_weights_scale_the_loss_and_td_error_is_the_size_of_target_minus_value(make_batches):
    agent = assemble(critic=optax.sgd(1.0))
    state, batches, update = agent.init(run_key(0)), make_batches(1), jax.jit(agent.update)
    q = jax.vmap(networks.ensemble(networks.mlp_critic(3, 2, SHAPE), 1).apply, (None, None, 0, 0))
    data = jax.tree.map(lambda x: x[0], batches.data)
    next_action = jax.vmap(agent.policy, (None, 0))(state, data.next_obs)
    y = data.reward + data.discount * q(state.params.critic, (), data.next_obs, next_action)[:, 0, 0]
    expected = y - q(state.params.critic, (), data.obs, data.action)[:, 0, 0]

    def step(weight):
        after, metrics, td_error = update(state, batches._replace(weight=weight[None]), run_key(0))
        np.testing.assert_allclose(td_error[0], np.abs(expected), atol=1e-6)  # whatever the weights
        np.testing.assert_allclose(metrics["critic_loss"], [np.mean(weight * expected**2)], rtol=1e-5)
        return jax.tree.map(lambda new, old: new - old, after.params.critic, state.params.critic)

    rising = jnp.arange(8.0)
    chex.assert_trees_all_close(step(3 * rising), jax.tree.map(lambda x: 3 * x, step(rising)), rtol=1e-3, atol=1e-5)
    chex.assert_trees_all_equal(step(0 * rising), jax.tree.map(jnp.zeros_like, state.params.critic))


# --- Seeds, calls and traces


def test_vmap_over_seeds_equals_a_loop_over_seeds(tiny, make_batches):
    keys = run_keys(range(3))
    lanes = [make_batches(2, seed) for seed in range(3)]
    states = jax.jit(jax.vmap(tiny.agent.init))(keys)
    batches = jax.tree.map(lambda *x: jnp.stack(x), *lanes)
    together = jax.jit(jax.vmap(tiny.agent.update))(states, batches, keys)
    for s in range(3):
        alone = tiny.update(tiny.init(run_key(s)), lanes[s], run_key(s))
        assert_close(jax.tree.map(lambda x, s=s: x[s], together), alone)


def test_updates_of_one_call_equal_calls_of_one_update(tiny, make_batches):
    batches = make_batches(4)
    together, metrics, td_error = tiny.update(tiny.init(run_key(0)), batches, run_key(0))
    state, single = tiny.init(run_key(0)), []
    for u in range(4):
        state, *rest = tiny.update(state, one_batch(batches, u), run_key(0))
        single.append(rest)
    assert_close(together, state)
    assert_close([metrics, td_error], jax.tree.map(lambda *x: jnp.concatenate(x), *single))
    assert (int(together.step), td_error.shape) == (4, (4, 8))
    assert {m.shape for m in metrics.values()} == {(4,)}


def test_seeds_differ_in_every_parameter(tiny):
    states = [tiny.init(run_key(seed)) for seed in range(3)]
    for leaves in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        assert all((a != b).mean() > 0.9 for a, b in pairwise(leaves))
    assert_equal(states[1], tiny.init(run_key(1)))


def test_every_random_slot_has_numbers_of_its_own():
    """No number comes twice: not by network, slot, update, call, sample or seed."""

    def shifted(transition, key):
        return transition._replace(obs=transition.obs + jax.random.normal(key))

    def drawn(action, key, step):
        return jax.random.normal(key, action.shape)

    augmented = transparent(augment=shifted, policy_delay=2)
    drawing = transparent(next_action=drawn, actor_action=drawn)
    hyperparams = [np.concatenate(transparent(init=jax.random.normal).init(run_key(0)).params, axis=None)]
    for agent, seed, size in [(augmented, 0, 8), (augmented, 1, 8), (drawing, 0, 8), (drawing, 1, 1)]:
        state, update = agent.init(run_key(seed)), jax.jit(agent.update)
        for _ in range(2):
            state, metrics, td_error = update(state, nothing(4, size), run_key(seed))
            hyperparams.append(td_error)
            if agent is drawing:
                hyperparams.append(metrics["actor_loss"])
            else:  # the actor sees what the critic saw last
                np.testing.assert_allclose(metrics["actor_loss"][1::2], -metrics["mean_q"][1::2], rtol=1e-6)
    hyperparams = np.abs(np.concatenate(hyperparams, axis=None))
    assert len(np.unique(hyperparams)) == hyperparams.size == 3 + 2 * (32 + 32 + (32 + 4) + (4 + 4))


def test_new_values_are_not_traced_again(tiny, make_batches):
    update = jax.jit(chex.assert_max_traces(tiny.agent.update, n=1))
    act = jax.jit(chex.assert_max_traces(tiny.agent.act, n=1))
    state, act_state = tiny.init(run_key(0)), tiny.agent.init_act(2)
    for i in range(3):
        state, _, _ = update(state, make_batches(2, seed=i), run_key(i))
        action, act_state = act(state, act_state, jnp.full((2, 3), float(i)), jnp.ones(2, bool), keys_at(i, i, 2))
    assert (int(state.step), action.shape) == (6, (2, 2))


def test_delayed_policy_moves_once_per_round(make_batches):
    """A round of delay 2: two critic steps alone, then actor and targets alone on the second batch."""
    adam, update_targets = optax.adam(1e-2), polyak(0.1)
    delayed = assemble(actor=adam, critic=adam, update_targets=update_targets, policy_delay=2)
    critic_only = jax.jit(assemble(critic=adam).update)
    actor_only = jax.jit(assemble(actor=adam, update_targets=update_targets).update)
    state, batches = delayed.init(run_key(0)), make_batches(4)
    after, metrics, td_error = jax.jit(delayed.update)(state, batches, run_key(0))

    params, targets, opt = state.params, state.target_params, state.opt_state
    for u in (0, 2):
        half = jax.tree.map(lambda x, u=u: x[u : u + 2], batches)
        parts = state._replace(params=params, target_params=targets, opt_state=opt._replace(actor=optax.EmptyState()))
        parts, critic_metrics, errors = critic_only(parts, half, run_key(0))
        critic_opt = parts.opt_state.critic
        assert_equal(td_error[u : u + 2], errors)
        assert_equal(metrics["critic_loss"][u : u + 2], critic_metrics["critic_loss"])
        parts = parts._replace(opt_state=opt._replace(critic=optax.EmptyState()))
        parts, actor_metrics, _ = actor_only(parts, one_batch(batches, u + 1), run_key(0))
        assert_equal(metrics["actor_loss"][u : u + 2], jnp.tile(actor_metrics["actor_loss"], 2))
        params, targets, opt = parts.params, parts.target_params, parts.opt_state._replace(critic=critic_opt)
    assert_equal(after._replace(step=0), state._replace(params=params, target_params=targets, opt_state=opt, step=0))
    assert int(after.step) == 4
    assert (int(after.opt_state.critic[0].count), int(after.opt_state.actor[0].count)) == (4, 2)


# --- Acting


def keys_at(seed, time, num_envs):
    """The keys of one seed's environments at one time, `[E]`."""
    return explore_keys(run_keys([seed]), jnp.array([time]), num_envs)[0, 0]


def test_actions_stay_inside_and_differ_by_time_seed_and_environment(make_tiny):
    tiny = make_tiny(exploration={"kind": "gaussian", "sigma": 0.5})
    state, obs, first = tiny.init(run_key(0)), jnp.ones((4, 3)), jnp.zeros(4, bool)
    actions = np.stack(
        [tiny.act(state, (), obs, first, keys_at(s, t, 4))[0] for s in range(3) for t in range(20)]
    )  # [60, E, A]
    assert (np.abs(actions) <= 1).all()
    assert (np.abs(actions) == 1).any()
    free = actions[np.abs(actions) < 1]
    assert len(np.unique(free)) == len(free)  # no number twice: not by time, seed, environment or component
    again = tiny.act(state, (), obs, first, keys_at(2, 19, 4))[0]
    np.testing.assert_array_equal(again, actions[-1])


def test_without_noise_acting_is_the_greedy_policy(make_tiny):
    tiny = make_tiny(exploration={"kind": "none"})
    state, obs = tiny.init(run_key(0)), jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    action, _ = tiny.act(state, tiny.agent.init_act(4), obs, jnp.ones(4, bool), keys_at(0, 7, 4))
    greedy = jnp.stack([tiny.policy(state, one) for one in obs])
    np.testing.assert_allclose(action, greedy, atol=1e-6)
    np.testing.assert_allclose(greedy, np.tanh(forward(in_numpy(state.params).actor, np.asarray(obs))[0]), atol=1e-6)


def test_each_environment_has_a_noise_state_that_its_own_episode_start_resets(make_tiny):
    tiny = make_tiny(exploration={"kind": "ou", "theta": 0.15, "sigma": 0.01})
    state, obs = tiny.init(run_key(0)), jnp.zeros((3, 3))
    assert tiny.agent.init_act(3).shape == (3, 2)
    kept = jnp.array([[0.2, 0.2], [0.2, 0.2], [0.0, 0.0]])
    first = jnp.array([False, True, False])
    action, after = tiny.act(state, kept, obs, first, keys_at(0, 0, 3))
    noises, fresh = (tiny.act(state, x, obs, jnp.ones(3, bool), keys_at(0, 0, 3))[1] for x in (kept, 0 * kept))
    np.testing.assert_array_equal(noises, fresh)
    np.testing.assert_allclose(after, fresh + jnp.array([[0.17], [0.0], [0.0]]) * jnp.ones((3, 2)), atol=1e-6)
    np.testing.assert_allclose(action, jax.vmap(tiny.policy, (None, 0))(state, obs) + after, atol=1e-6)


def test_saturated_is_the_share_of_components_beyond_099():
    """The actor copies the observation; of the eight components 0.992, 1, −1 and −0.995 lie beyond."""
    agent = transparent(init=lambda key: jnp.ones(()))
    obs = jnp.array([[[0.0, 0.992], [1.0, 0.989], [-1.0, -0.989], [0.5, -0.995]]])
    batch = nothing(1, 4)
    batch = batch._replace(data=batch.data._replace(obs=obs))
    _, metrics, _ = agent.update(agent.init(run_key(0)), batch, run_key(0))
    assert float(metrics["saturated"][0]) == 0.5
    assert float(metrics["actor_loss"][0]) == -1.25  # Q = 1 + s[0] + a[0], these are 1/8 on average
