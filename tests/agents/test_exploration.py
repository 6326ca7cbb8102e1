"""Exploration that is more than noise on the action, by hand, by its law, and inside an agent."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.agents.exploration import PLACES, additive, epsilon_uniform, parameter, perturb
from ddpg_jax.agents.factory import make_exploration
from ddpg_jax.agents.noise import Counted, gaussian, ornstein_uhlenbeck, zero
from ddpg_jax.config.load import load_config
from ddpg_jax.config.schema import with_values
from ddpg_jax.rng import explore_keys, run_keys

START, GOING_ON = jnp.array(True), jnp.array(False)
KINDS: dict[str, dict[str, Any]] = {
    "linear": {"schedule": "linear", "sigma_end": 0.05},
    "inverse_episode": {"kind": "ou", "schedule": "inverse_episode"},
    "gaussian_per_env": {"kind": "gaussian_per_env"},
    "epsilon": {"epsilon": 0.3},
    "parameter": {"kind": "parameter"},
}


def keys_at(seed, time, num_envs):
    """The keys of one seed's environments at one time, `[E]`."""
    return explore_keys(run_keys([seed]), jnp.array([time]), num_envs)[0, 0]


def walk(exploration, policy, params, firsts, seed=0):
    """Actions and states of one environment, step by step."""

    def step(state, given):
        action, state = exploration.act(policy, params, state, *given)
        return state, (action, state)

    keys = jax.random.split(jax.random.key(seed), len(firsts))
    scan = jax.jit(lambda given: jax.lax.scan(step, exploration.init(), given)[1])
    return scan((keys, jnp.asarray(firsts)))


def test_additive_is_the_greedy_action_plus_the_noise(call):
    noise = ornstein_uhlenbeck(2, 0.15, 0.3, 1.0)
    x, params = jnp.array([0.5, -0.5]), jnp.array([0.2, 2.0])

    def act(x, params, first):
        return additive(noise).act(lambda p: 2 * p, params, x, jax.random.key(3), first)

    action, state = call(act, x, params, GOING_ON)
    drawn, kept = noise.sample(x, jax.random.key(3), GOING_ON)
    np.testing.assert_allclose(action, jnp.array([0.4, 4.0]) + drawn, atol=1e-6)  # clipped by the assembly, not here
    np.testing.assert_allclose(state, kept, atol=1e-6)
    np.testing.assert_array_equal(additive(noise).init(), [0.0, 0.0])


# --- Now and then at random


def test_epsilon_is_how_often_an_action_is_uniform():
    mixed = epsilon_uniform(additive(zero(3)), 0.3)
    actions, _ = walk(mixed, lambda p: p, jnp.full(3, 0.25), [False] * 4000)
    replaced = np.asarray((actions != 0.25).any(1))
    np.testing.assert_array_equal((actions != 0.25).all(1), replaced)  # all components or none
    assert abs(replaced.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)
    uniform = np.asarray(actions)[replaced]
    assert stats.kstest(uniform.ravel(), "uniform", (-1, 2)).pvalue > 1e-3
    assert np.abs(np.corrcoef(uniform.T)[np.triu_indices(3, 1)]).max() < 0.12
    assert abs(np.corrcoef(replaced[1:], replaced[:-1])[0, 1]) < 0.07


def test_epsilon_at_its_ends():
    never, _ = walk(epsilon_uniform(additive(zero(1)), 0.0), lambda p: p, jnp.full(1, 0.25), [False] * 200)
    always, _ = walk(epsilon_uniform(additive(zero(1)), 1.0), lambda p: p, jnp.full(1, 0.25), [False] * 200)
    assert (never == 0.25).all()
    assert (always != 0.25).all()


def test_noise_goes_on_under_a_uniform_action():
    """Whether the coin replaces the action or not, the state of the noise is the same."""
    noise = ornstein_uhlenbeck(1, 0.15, 0.3, 1.0)
    paths = [walk(epsilon_uniform(additive(noise), e), lambda p: p, jnp.zeros(1), [False] * 20)[1] for e in (0.0, 1.0)]
    np.testing.assert_array_equal(*paths)


# --- Noise on the parameters


def doubled(params):
    """Actions are twice the parameters, so the distance is 2·sigma·|epsilon|, root mean square."""
    return 2 * params


def test_the_perturbation_is_sigma_times_a_piece_of_normal_numbers():
    params = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(4)}

    def moved(sigma, place):
        found = jax.jit(perturb)(params, sigma, jnp.int32(place))
        return np.concatenate([np.ravel(found[name] - params[name]) for name in ("a", "b")])

    small, large = moved(0.1, 7), moved(0.5, 7)
    np.testing.assert_allclose(large, 5 * small, atol=1e-6)
    np.testing.assert_allclose(moved(0.1, 8)[:-1], small[1:], atol=1e-6)  # the next place is one number further
    assert np.isfinite(moved(0.1, PLACES - 1)).all()
    assert (moved(0.1, PLACES - 1) != moved(0.1, PLACES - 2)).all()  # the table goes on to the last place
    hyperparams = np.asarray(perturb(jnp.zeros(100_000), 1.0, jnp.int32(0)))
    assert stats.kstest(hyperparams, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(hyperparams[1:], hyperparams[:-1])[0, 1]) < 0.015


def test_epsilon_stays_within_an_episode_and_follows_the_parameters():
    exploration = parameter(0.1, 0.2, 1000, 1.01)
    firsts = [False, False, False, True, False, True]
    actions, states = walk(exploration, doubled, jnp.zeros(5), firsts)
    place = np.asarray(states.place)
    assert ((place >= 0) & (place < PLACES)).all()
    assert place[0] == place[1] == place[2] != place[3] == place[4] != place[5]
    np.testing.assert_array_equal(actions[0], actions[2])
    assert (actions[2] != actions[3]).all()
    np.testing.assert_allclose(actions[3], doubled(perturb(jnp.zeros(5), 0.1, states.place[3])), rtol=1e-6)
    state = jax.tree.map(lambda x: x[4], states)
    later, _ = exploration.act(doubled, jnp.ones(5), state, jax.random.key(9), GOING_ON)
    np.testing.assert_allclose(later, 2 + actions[4], rtol=1e-6)  # theta learned, epsilon is the same


def test_layer_normalisation_is_not_perturbed():
    params = {
        "params": {
            name: {"scale": jnp.ones(3), "bias": jnp.zeros(3)}
            for name in ("Dense_0", "LayerNorm_0", "BatchNorm_1", "RMSNorm_0")
        }
    }
    found = perturb(params, 0.1, jnp.int32(0))["params"]
    for name in ("LayerNorm_0", "BatchNorm_1", "RMSNorm_0"):
        np.testing.assert_array_equal(found[name]["scale"], np.ones(3))
        np.testing.assert_array_equal(found[name]["bias"], np.zeros(3))
    assert (found["Dense_0"]["scale"] != 1).all()
    assert (found["Dense_0"]["bias"] != 0).all()


@pytest.mark.parametrize(("target", "factor"), [(10.0, 1.5), (0.001, 1 / 1.5)])
def test_sigma_is_adapted_every_so_many_steps(target, factor):
    _, states = walk(parameter(0.2, target, 3, 1.5), doubled, jnp.zeros(40), [False] * 8)
    np.testing.assert_allclose(states.sigma, 0.2 * np.array([1, 1] + [factor] * 3 + [factor**2] * 3), rtol=1e-6)
    np.testing.assert_array_equal(states.steps, [1, 2, 0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(np.asarray(states.squares) == 0, np.asarray(states.steps) == 0)


def test_the_distance_is_the_root_of_the_mean_over_steps_and_components():
    """A target a little above or below the distance of three steps, the second of which begins an episode."""
    firsts = [False, True, False]
    actions, states = walk(parameter(0.2, 1.0, 4, 1.5), doubled, jnp.zeros(40), firsts)
    distance = float(np.sqrt(np.mean(np.square(actions))))
    np.testing.assert_allclose(states.squares[-1], np.square(actions).mean(1).sum(), rtol=1e-5)
    for target, factor in ((distance * 1.001, 1.5), (distance * 0.999, 1 / 1.5)):
        _, states = walk(parameter(0.2, target, 3, 1.5), doubled, jnp.zeros(40), firsts)
        np.testing.assert_allclose(states.sigma[-1], 0.2 * factor, rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.01, 1.0])
def test_sigma_is_adapted_to_the_distance_from_either_side(sigma):
    """The distance is 2·sigma, up to 1.6% with 2000 components: sigma comes to half the target."""
    _, states = walk(parameter(sigma, 0.2, 5, 1.05), doubled, jnp.zeros(2000), [False] * 600)
    np.testing.assert_allclose(states.sigma[-100:], 0.1, rtol=0.08)


# --- From the configuration


def test_without_epsilon_or_schedule_nothing_is_wrapped(spec):
    assert make_exploration(load_config(), spec).init() == ()
    np.testing.assert_array_equal(make_exploration(load_config(exploration={"kind": "ou"}), spec).init(), np.zeros(2))
    action, _ = make_exploration(load_config(), spec).act(lambda p: p, jnp.zeros(2), (), jax.random.key(5), START)
    np.testing.assert_array_equal(action, gaussian(2, 0.1).sample((), jax.random.key(5), START)[0])


@pytest.mark.parametrize(("steps", "lane_steps"), [(None, 200), (400, 100)])
def test_a_schedule_counts_environment_steps_of_the_seed_after_the_warm_up(spec, steps, lane_steps):
    """Four environments: a step of each is four of the seed."""
    config = load_config(
        total_steps=1000,
        env={"num_envs": 4},
        algorithm={"warmup_steps": 200},
        exploration={"schedule": "linear", "sigma": 0.5, "sigma_end": 0.1, "schedule_steps": steps},
    )
    exploration = make_exploration(config, spec)
    unit = jax.random.normal(jax.random.key(0), (2,))
    for step, sigma in ((0, 0.5), (lane_steps // 4, 0.4), (lane_steps // 2, 0.3), (lane_steps, 0.1), (10**6, 0.1)):
        state = Counted((), jnp.int32(step), jnp.int32(0))
        action, _ = exploration.act(lambda p: p, jnp.zeros(2), state, jax.random.key(0), GOING_ON)
        np.testing.assert_allclose(action, sigma * unit, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_environments_and_steps_differ_and_the_rest_stays_inside(make_tiny, kind):
    tiny = make_tiny(exploration=KINDS[kind] | {"epsilon": 0.3})
    state, act_state, obs = tiny.init(run_keys([0])[0]), tiny.agent.init_act(4), jnp.ones((4, 3))
    actions = []
    for t in range(12):
        action, act_state = tiny.act(state, act_state, obs, jnp.full(4, t % 5 == 0), keys_at(0, t, 4))
        actions.append(np.asarray(action))
    actions = np.stack(actions)
    assert np.abs(actions).max() <= 1
    assert len({row.tobytes() for row in actions[0]}) == 4
    assert len({row.tobytes() for row in actions[5]} | {row.tobytes() for row in actions[0]}) == 8


@pytest.mark.slow
def test_parameter_noise_of_an_agent_is_a_policy_with_other_parameters(make_tiny):
    """Each environment acts by one perturbed network, the layers of normalisation left alone."""
    tiny = make_tiny(exploration={"kind": "parameter", "sigma": 0.3}, normalization="layer")
    state, act_state = tiny.init(run_keys([0])[0]), tiny.agent.init_act(3)
    places = set()
    for t in range(3):
        obs = jnp.asarray(np.random.default_rng(t).normal(size=(3, 3)), jnp.float32)
        action, act_state = tiny.act(state, act_state, obs, jnp.full(3, t == 0), keys_at(0, t, 3))
        for e in range(3):
            actor = perturb(state.params.actor, 0.3, act_state.place[e])
            expected = tiny.policy(state._replace(params=state.params._replace(actor=actor)), obs[e])
            np.testing.assert_allclose(action[e], expected, atol=1e-5)
            assert np.abs(action[e] - tiny.policy(state, obs[e])).max() > 1e-3
        places |= set(np.asarray(act_state.place).tolist())
    assert len(places) == 3
    found, plain = (
        jax.tree_util.tree_leaves_with_path(tree)
        for tree in (perturb(state.params.actor, 0.3, jnp.int32(0)), state.params.actor)
    )
    kept = [("LayerNorm" in str(path), bool((a == b).all())) for (path, a), (_, b) in zip(found, plain, strict=True)]
    assert {norm for norm, _ in kept} == {True, False}
    assert all(norm == same for norm, same in kept)


@pytest.mark.parametrize(
    ("exploration", "path", "values"),
    [
        ({"schedule": "linear", "sigma": 0.5}, "exploration.sigma_end", [0.1, 0.4]),
        ({"schedule": "exponential", "sigma": 0.5, "sigma_end": 0.1}, "exploration.sigma_end", [0.1, 0.4]),
        ({"epsilon": 0.1}, "exploration.epsilon", [0.0, 0.9]),
        ({"kind": "gaussian_per_env"}, "exploration.sigma_max", [0.4, 0.8]),
        ({"kind": "parameter"}, "exploration.sigma", [0.1, 0.5]),
        ({"kind": "parameter", "adapt_every": 2}, "exploration.target_distance", [0.001, 0.9]),
        ({"kind": "parameter", "adapt_every": 2}, "exploration.adapt_factor", [1.01, 2.0]),
    ],
)
def test_numbers_and_seeds_are_vmapped(spec, exploration, path, values):
    """Lanes of seeds and values act as agents that are configured so, one by one."""
    config = load_config(total_steps=40, algorithm={"hidden": [8], "warmup_steps": 0}, exploration=exploration)
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(10, 2, 3)), jnp.float32)

    def acted(value, seed):
        agent = make_agent(with_values(config, {path: value}), spec)
        state = agent.init(jax.random.key(seed))

        def step(act_state, given):
            obs, first, t = given
            keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), t), 2)
            return agent.act(state, act_state, obs, first, keys)[::-1]

        firsts = jnp.arange(10)[:, None] % jnp.array([[4, 3]]) == 0
        return jax.lax.scan(step, agent.init_act(2), (obs, firsts, jnp.arange(10)))[1]

    seeds = jnp.arange(2)
    together = jax.jit(jax.vmap(jax.vmap(acted, (None, 0)), (0, None)))(jnp.asarray(values, jnp.float32), seeds)
    alone = jax.jit(acted)
    for i, value in enumerate(values):
        for seed in seeds:
            np.testing.assert_allclose(together[i, seed], alone(jnp.float32(value), seed), atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3
    assert np.abs(together[:, 0] - together[:, 1]).max() > 1e-3
