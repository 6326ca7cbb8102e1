"""Evaluation against a bare gymnasium loop, the bank of evaluation seeds, and episodes that end apart."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import EPISODE, tiny_config

from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.envs.factory import make_evaluation_envs, make_training_envs
from ddpg_jax.envs.host.rollout import Told, evaluate_episodes, jit_policy, jit_value
from ddpg_jax.envs.host.vector import VectorEnv, evaluation_seeds
from ddpg_jax.errors import NotFiniteError
from ddpg_jax.runs.inference import evaluate_run, load_run
from ddpg_jax.runs.policy import load_policy
from ddpg_jax.types import Params, Recalled, Seen, TrainState

NOTHING = TrainState((), Params((), (), ()), (), (), (), ())


class Countdown(gymnasium.Env):
    """An episode with seed k lasts k steps, cut or ended by turns; step i pays 10^i. It refuses a step too many."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        self.seed, self.steps, self.over = seed, 0, False
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert not self.over
        self.steps += 1
        self.over = self.steps == self.seed
        ends = (self.over, False) if self.seed % 2 else (False, self.over)
        return np.zeros(1, np.float32), 10.0 ** (self.steps - 1), *ends, {}


def still(state, obs):
    """A policy that does nothing."""
    return np.zeros((*obs.shape[:2], 1), np.float32)


def nothing(state, obs):
    """Critics that expect nothing."""
    return np.zeros(obs.shape[:2], np.float32)


def test_returns_equal_a_bare_gymnasium_loop(run):
    loaded, episodes = load_run(run.directory), 3
    returns, lengths, *_ = evaluate_run(loaded, episodes)
    assert returns.shape == lengths.shape == (2, episodes)
    assert (lengths == EPISODE).all()
    for i in range(2):
        policy = load_policy(run.directory, seed=i)
        for j in range(episodes):
            env = gymnasium.make("Pendulum-v1", max_episode_steps=EPISODE)
            obs, _ = env.reset(seed=evaluation_seeds(episodes)(j, 0))
            total, done = 0.0, False
            while not done:
                obs, reward, terminated, truncated, _ = env.step(policy(obs[None])[0].astype(np.float32))
                total, done = total + reward, terminated or truncated
            np.testing.assert_allclose(returns[i, j], total, rtol=1e-4)
    assert len(np.unique(returns)) == returns.size


def test_the_bank_is_equal_for_every_seed_and_run():
    def first_observations(config, episodes):
        lanes = make_evaluation_envs(config, episodes)
        obs = lanes.reset()
        lanes.close()
        return obs

    bank = first_observations(tiny_config(seeds=[4, 9]), 5)
    np.testing.assert_array_equal(bank[0], bank[1])
    assert len(np.unique(bank[0], axis=0)) == 5
    np.testing.assert_array_equal(first_observations(tiny_config(seeds=[1234]), 5)[0], bank[0])
    np.testing.assert_array_equal(first_observations(tiny_config(), 2)[0], bank[0, :2])


def test_the_bank_is_not_trained_on():
    config = tiny_config(seeds=[0], env={"num_envs": 3})
    trained, tried = make_training_envs(config).reset()[0], make_evaluation_envs(config, 3).reset()[0]
    assert not (trained[:, None] == tried[None]).all(-1).any()


def test_episodes_are_summed_to_their_own_end():
    lanes = VectorEnv(Countdown, (2, 3), lambda lane, episode: 1 + lane if episode == 0 else 99)
    returns, lengths, *_ = evaluate_episodes(still, nothing, NOTHING, lanes, 0.9)
    np.testing.assert_array_equal(lengths, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(returns, [[1, 11, 111], [1111, 11111, 111111]])


def test_evaluating_again_gives_the_same():
    lanes = VectorEnv(Countdown, (1, 4), lambda lane, episode: 4 - lane + episode)
    first, second = (evaluate_episodes(still, nothing, NOTHING, lanes, 0.9) for _ in range(2))
    np.testing.assert_array_equal(first.returns, second.returns)
    np.testing.assert_array_equal(first.lengths, [[4, 3, 2, 1]])


def test_an_action_that_is_not_finite_is_a_fault():
    lanes = VectorEnv(Countdown, (1, 1), lambda lane, episode: 3)
    with pytest.raises(NotFiniteError, match="diverged"):
        evaluate_episodes(lambda state, obs: np.full((1, 1, 1), np.nan, np.float32), nothing, NOTHING, lanes, 0.9)


def test_policy_and_value_are_traced_once(run):
    loaded, traces = load_run(run.directory), []
    lanes = make_evaluation_envs(run.config, 2)
    agent = make_agent(run.config, lanes.spec)

    def counted(name):
        def call(state, obs):
            traces.append((name, obs.shape))
            return getattr(agent, name)(state, obs)

        return call

    policy, value = (
        jit_policy(agent._replace(policy=counted("policy"))),
        jit_value(agent._replace(value=counted("value"))),
    )
    for _ in range(2):
        evaluate_episodes(policy, value, loaded.state, lanes, 0.9)
    assert sorted(traces) == [("policy", (3,)), ("value", (3,))]


def test_a_policy_sees_each_lane_apart(run):
    loaded = load_run(run.directory)
    obs = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    actions = np.asarray(loaded.policy(loaded.state, obs))
    agent = make_agent(run.config, make_evaluation_envs(run.config, 1).spec)
    for i, j in np.ndindex(2, 4):
        params = jax.tree.map(lambda x, i=i: x[i], loaded.state)
        np.testing.assert_allclose(actions[i, j], agent.policy(params, jnp.asarray(obs[i, j])), rtol=1e-5, atol=1e-6)


def test_what_was_told_is_put_together_by_episode():
    """Two seeds of two episodes, which take turns in two environments; a row is 10 times the lane, and the step."""
    turns, steps, told = [(0, 2), (0, 3), (1, 3), (1, 3), (1,)], np.zeros(4, int), Told()
    for lanes in turns:
        obs = np.where(np.isin(np.arange(4), lanes), 10 * np.arange(4) + steps, -1).astype(np.float32).reshape(2, 2)
        told(Recalled(Seen(obs[..., None], obs[..., None], obs, obs < 0), ()), obs >= 0)
        steps[list(lanes)] += 1
    seen = told.by_episode(steps.reshape(2, 2))
    assert seen.reward.tolist() == [[[0, 1, 0], [10, 11, 12]], [[20, 0, 0], [30, 31, 32]]]
    assert seen.obs.shape == (2, 2, 3, 1)
