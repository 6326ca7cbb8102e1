"""What the critics predict of the policy against what it gets, discounted: by hand, and in both loops."""

from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from tiny_run import EPISODE, read_rows, tiny_config

import ddpg_jax as dj
from ddpg_jax.agents import heads, modules, networks, noise
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.agents.exploration import additive
from ddpg_jax.agents.policy_gradient import policy_gradient
from ddpg_jax.agents.targets import polyak
from ddpg_jax.envs.device.autoreset import episodic
from ddpg_jax.envs.device.pendulum import pendulum
from ddpg_jax.envs.device.probes import constant, delayed
from ddpg_jax.envs.device.rollout import evaluate_greedy
from ddpg_jax.envs.host.rollout import evaluate_episodes, jit_policy, jit_value
from ddpg_jax.envs.host.vector import VectorEnv
from ddpg_jax.errors import NotFiniteError
from ddpg_jax.rng import evaluation_keys, run_keys
from ddpg_jax.runs.inference import evaluate_run, load_run
from ddpg_jax.runs.result import Evaluated
from ddpg_jax.training.device.program import program
from ddpg_jax.training.recorder import _evaluation_rows
from ddpg_jax.types import Agent, DeviceEnv, EnvSpec, Evaluation, Params

SPEC = EnvSpec((1,), "float32", (-1.0,), (1.0,))


def linear_agent(ascend: heads.ReduceFn = heads.first) -> Agent:
    """Its policy is a = 0.25; its critics are 2·o + 3 + 4·a, which is 2·o + 4, and 5 − o."""
    actor = networks.stateless(lambda key: jnp.full(1, 0.25), lambda params, obs: params)
    weights = jnp.array([[2.0, 3.0, 4.0], [-1.0, 5.0, 0.0]])
    critic = networks.stateless(
        lambda key: weights, lambda params, obs, a: (params @ jnp.concatenate([obs, jnp.ones(1), a]))[:, None]
    )
    return policy_gradient(
        networks=Params(networks.identity(), actor, critic),
        head=heads.scalar(ascend=ascend),
        exploration=additive(noise.zero(1)),
        optimizers=Params(*[optax.set_to_zero()] * 3),
        update_targets=polyak(0.5),
    )


def value(obs: float) -> float:
    return 2 * obs + 4


def counting(limit: int, end: int) -> DeviceEnv:
    """Observation t, reward 2^t; terminal after `end` steps."""

    def step(obs: Any, action: Any, key: Any) -> Any:
        return obs + 1, obs + 1, 2 ** obs[0], obs[0] + 1 == end, False

    return episodic(lambda key: (jnp.zeros(1), jnp.zeros(1)), step, SPEC, limit)


class Hosted(gymnasium.Env):
    """An environment written in JAX as one of gymnasium's; the episode with seed j begins as that of the bank."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def __init__(self, env: DeviceEnv) -> None:
        self.env = env

    def reset(self, *, seed=None, options=None):
        self.state, obs = self.env.reset(evaluation_keys(seed + 1)[0][seed])
        return np.asarray(obs), {}

    def step(self, action):
        self.state, step = self.env.step(self.state, jnp.asarray(action), jax.random.key(0))
        return np.asarray(step.next_obs), float(step.reward), bool(step.terminated), bool(step.truncated), {}


def on_host(env: DeviceEnv, agent: Agent, episodes: int, gamma: float) -> Evaluation:
    """Of one seed."""
    lanes = VectorEnv(partial(Hosted, env), (1, episodes), lambda lane, episode: lane if episode == 0 else 0)
    state = jax.vmap(agent.init)(run_keys([3]))
    return evaluate_episodes(jit_policy(agent), jit_value(agent), state, lanes, gamma)


def on_device(env: DeviceEnv, agent: Agent, episodes: int, gamma: float) -> Evaluation:
    state = jax.vmap(agent.init)(run_keys([3]))
    judge = partial(evaluate_greedy, env, agent, episodes=episodes)
    return Evaluation(*jax.device_get(jax.jit(jax.vmap(judge))(state, gamma=jnp.full(1, gamma))))


BOTH = pytest.mark.parametrize("evaluate", [on_host, on_device])


@pytest.mark.parametrize(
    ("ascend", "at_0", "at_2"),
    [(heads.first, 4, 8), (jnp.min, 4, 3), (jnp.mean, 4.5, 5.5)],
    ids=["first", "min", "mean"],
)
def test_the_value_is_the_heads_of_the_policys_action(call, ascend, at_0, at_2):
    agent = linear_agent(ascend)
    state = agent.init(jax.random.key(0))
    assert call(agent.value, state, jnp.array([0.0])) == at_0
    assert call(agent.value, state, jnp.array([2.0])) == at_2


def test_the_value_of_a_distribution_is_its_mean(call):
    """Logits 0 and log 3 on the atoms 0 and 10."""
    critic = networks.stateless(lambda key: jnp.log(jnp.array([[1.0, 3.0]])), lambda params, obs, action: params)
    agent = policy_gradient(
        networks=Params(networks.identity(), networks.mlp_actor(1, 1, modules.Architecture((2,))), critic),
        head=heads.categorical(jnp.array([0.0, 10.0])),
        exploration=additive(noise.zero(1)),
        optimizers=Params(*[optax.set_to_zero()] * 3),
        update_targets=polyak(0.5),
    )
    np.testing.assert_allclose(call(agent.value, agent.init(jax.random.key(0)), jnp.zeros(1)), 7.5, rtol=1e-6)


def test_the_value_is_the_online_critics():
    agent = linear_agent()
    state = agent.init(jax.random.key(0))
    state = state._replace(target_params=jax.tree.map(lambda x: x + 1, state.params))
    assert agent.value(state, jnp.zeros(1)) == value(0)


@BOTH
@pytest.mark.parametrize(
    ("env", "discounted"),
    [
        (constant(), 1),
        (delayed(), 0.5),
        (delayed(2), 0.5),  # terminal at the time limit: terminal
        (delayed(1), 0.5 * value(1)),
        (counting(10, end=3), 1 + 2 / 2 + 4 / 4),
        (counting(3, end=3), 1 + 2 / 2 + 4 / 4),
        (counting(3, end=9), 3 + value(3) / 8),
    ],
    ids=["one step", "two steps", "both ends", "cut", "three steps", "three and both ends", "three and cut"],
)
def test_discounted_and_predicted_by_hand(evaluate, env, discounted):
    """With gamma = 1/2, where all is exact."""
    result = evaluate(env, linear_agent(), 2, 0.5)
    np.testing.assert_array_equal(result.discounted, np.full((1, 2), discounted))
    np.testing.assert_array_equal(result.predicted, np.full((1, 2), value(0)))
    np.testing.assert_array_equal(result.q_bias, [value(0) - discounted])


@BOTH
@pytest.mark.parametrize(("gamma", "discounted"), [(0.0, 1), (1.0, 7 + value(3)), (0.9, 1 + 1.8 + 3.24 + 0.729 * 10)])
def test_every_discount(evaluate, gamma, discounted):
    result = evaluate(counting(3, end=9), linear_agent(), 1, gamma)
    np.testing.assert_allclose(result.discounted, [[discounted]], rtol=1e-6)
    np.testing.assert_array_equal(result.returns, [[7]])


class Countdown(gymnasium.Env):
    """The episode with seed k lasts k steps, cut where k is even, else terminal; observation t, reward 2^t."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        self.seed, self.steps = seed, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        over, even = self.steps == self.seed, self.seed % 2 == 0
        return np.full(1, self.steps, np.float32), 2.0 ** (self.steps - 1), over and not even, over and even, {}


def test_each_lane_is_discounted_to_its_own_end():
    lanes = VectorEnv(Countdown, (2, 2), lambda lane, episode: 1 + lane if episode == 0 else 99)
    agent = linear_agent()
    state = jax.vmap(agent.init)(run_keys([3, 4]))
    result = evaluate_episodes(jit_policy(agent), jit_value(agent), state, lanes, 0.5)
    np.testing.assert_array_equal(result.discounted, [[1, 2 + value(2) / 4], [3, 4 + value(4) / 16]])
    np.testing.assert_array_equal(result.q_bias, [4 - (1 + 4) / 2, 4 - (3 + 4.75) / 2])


class SetPendulum(PendulumEnv):
    """Gymnasium's, begun where the episode j of the device's bank begins."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        episode, _ = pendulum().reset(evaluation_keys(seed + 1)[0][seed])
        self.state = np.array([float(episode.state.angle), float(episode.state.velocity)])
        return self._get_obs(), {}


@pytest.mark.slow
def test_the_loops_agree_on_pendulum():
    config, episodes = tiny_config(), 4
    env = pendulum(EPISODE)
    agent = make_agent(config, env.spec)
    state = jax.vmap(agent.init)(run_keys(config.seed_list))
    make = partial(gymnasium.wrappers.TimeLimit, max_episode_steps=EPISODE)
    lanes = VectorEnv(
        lambda: make(SetPendulum()), (2, episodes), lambda lane, episode: lane % episodes if episode == 0 else 0
    )
    one = evaluate_episodes(jit_policy(agent), jit_value(agent), state, lanes, 0.9)
    other = jax.jit(jax.vmap(partial(evaluate_greedy, env, agent, episodes=episodes, gamma=0.9)))(state)
    for name, left, right in zip(Evaluation._fields, one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4, err_msg=name)
    assert len(np.unique(one.discounted)) == 2 * episodes
    assert (np.abs(one.predicted - one.discounted) > 1e-2).all()


def test_gamma_may_differ_from_lane_to_lane():
    """And changes what is discounted, not what is played."""
    config = tiny_config(env={"id": "jax:pendulum"}, algorithm={"gamma": 0.5})
    env = pendulum(EPISODE)
    built = program(config, env)
    learner = make_agent(config, env.spec).init(run_keys([4])[0])
    gammas = jnp.array([0.0, 0.5, 0.99])
    lanes = jax.jit(jax.vmap(lambda gamma: built.evaluate(learner, {"algorithm.gamma": gamma})))(gammas)
    np.testing.assert_array_equal(lanes.returns, np.broadcast_to(lanes.returns[0], lanes.returns.shape))
    plain = jax.jit(built.evaluate)(learner, {})
    np.testing.assert_allclose(lanes.discounted[1], plain.discounted, rtol=1e-5)
    assert (lanes.discounted[0] > lanes.discounted[1]).all()  # costs
    assert (lanes.discounted[1] > lanes.discounted[2]).all()


@pytest.mark.parametrize("env", ["Pendulum-v1", "jax:pendulum"])
def test_the_record_holds_the_bias_of_each_seed(env, tmp_path):
    run = dj.train(tiny_config(env={"id": env}), tmp_path / "run")
    rows = [row for row in read_rows(run.directory / "metrics.jsonl") if row["event"] == "evaluation"]
    found = [row["q_bias"] for row in rows if row["step"] == 60]
    result = evaluate_run(load_run(run.directory), 3)
    np.testing.assert_allclose(found, (result.predicted - result.discounted).mean(1), rtol=1e-4)
    assert len(set(found)) == 2
    assert all("q_bias" in row for row in rows)


def test_a_value_that_is_not_finite_ends_the_run():
    some = np.ones((1, 2))
    with pytest.raises(NotFiniteError, match="after 40 steps"):
        _evaluation_rows((4,), Evaluated(40, Evaluation(some, some, some, some * np.inf)))
