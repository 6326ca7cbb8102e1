"""What is learned of an environment with goals before hindsight may use it, and what is refused."""

import re

import gymnasium
import numpy as np
import pytest
from goal_envs import NEAR, Reach
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import TransformReward

from ddpg_jax.envs.host.goals import goal_task
from ddpg_jax.envs.host.make import describe, make_env
from ddpg_jax.errors import ConfigError, EnvironmentFault


def task_of(env):
    return goal_task(env, describe(env), "Mine-v0")


@pytest.mark.parametrize("shape", [(2,), (1, 2)])
@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize("ends", [True, False])
def test_rewards_and_ends_are_those_of_single_pairs(shape, batches, ends):
    """Also where a batch is taken for one large goal, or answered by one number for all."""
    env = make_env("goal_envs:Reach-v0", None, {"shape": shape, "batches": batches, "ends": ends})
    task, spec = task_of(env), describe(env)
    parts = [spec.part(name) for name in ("achieved_goal", "desired_goal")]
    assert [task.achieved, task.desired] == [slice(part.start, part.stop) for part in parts]
    achieved = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    desired = (achieved + np.random.default_rng(1).uniform(-NEAR, NEAR, (50, 2))).astype(np.float32)
    near = np.array([np.hypot(*(a - d)) <= NEAR for a, d in zip(achieved, desired, strict=True)])
    assert 0 < near.sum() < 50
    rewards = task.compute_reward(achieved, desired)
    np.testing.assert_array_equal(rewards, np.where(near, 0, -1).astype(np.float32), strict=True)
    np.testing.assert_array_equal(task.compute_terminated(achieved, desired), near & ends, strict=True)


class Other(Reach):
    """Like `Reach`, but for one thing."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        if what == "shape":
            self.observation_space = Dict(self.observation_space.spaces | {"desired_goal": Box(-1, 1, (1, 2))})
        if what == "no goal":
            self.observation_space = Dict(observation=Box(-1, 1, (1,)), desired_goal=Box(-1, 1, (2,)))

    def _observe(self):
        seen = super()._observe()
        if self.what == "shape":
            seen["desired_goal"] = seen["desired_goal"][None]
        return {name: seen[name] for name in self.observation_space.spaces}

    def compute_reward(self, achieved_goal, desired_goal, info):
        if self.what == "info" and info["collision"]:
            return -2.0
        return super().compute_reward(achieved_goal, desired_goal, info)

    def step(self, action):
        if self.what == "broken":
            raise OSError("the cable came off")
        reward = super().compute_reward(self._place, self._goal, {})
        (
            obs,
            *_,
        ) = Reach.step(self, action) if self.what != "info" else (self._observe(),)
        return obs, float(reward), False, False, {}


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("no goal", ConfigError, "it lacks achieved_goal in a Dict observation"),
        ("shape", ConfigError, r"achieved_goal has shape \(2,\), its desired_goal \(1, 2\)"),
        ("info", EnvironmentFault, r"compute_reward of env.id='Mine-v0' raised KeyError: 'collision'"),
        ("broken", EnvironmentFault, "env.id='Mine-v0', tried out for hindsight: OSError: the cable came off"),
    ],
)
def test_what_has_no_goals_or_fails_is_refused_in_one_line(what, kind, message):
    with pytest.raises(kind, match=message) as error:
        task_of(Other(what))
    assert "\n" not in str(error.value)


def test_an_environment_without_a_rule_is_refused():
    env = gymnasium.make("Pendulum-v1")
    with pytest.raises(ConfigError, match=r"'Pendulum-v1': it lacks achieved_goal and desired_goal in a Dict"):
        goal_task(env, describe(env), "Pendulum-v1")
    hidden = gymnasium.Env()
    hidden.observation_space, hidden.action_space = Reach().observation_space, Reach().action_space
    with pytest.raises(ConfigError, match="it lacks the method compute_reward"):
        task_of(hidden)


def test_rewards_that_do_not_follow_from_the_goals_are_refused():
    shaped = TransformReward(make_env("goal_envs:Reach-v0", None, {}), lambda reward: reward - 0.25)
    with pytest.raises(ConfigError, match=re.escape("gives -1 where a step reported the reward -1.25")):
        task_of(shaped)


def test_a_rule_that_fails_later_is_named():
    env = make_env("goal_envs:Reach-v0", None, {})
    task = task_of(env)
    with pytest.raises(EnvironmentFault, match=r"compute_reward of env.id='Mine-v0' raised ValueError: "):
        task.compute_reward(np.zeros((3, 2), np.float32), np.zeros((4, 2), np.float32))


@pytest.mark.parametrize("given", [np.nan, [-1.0, 0.0]])
def test_rewards_that_are_no_numbers_of_pairs_are_refused(given, monkeypatch):
    env, answers = make_env("goal_envs:Reach-v0", None, {}), []
    plain = env.unwrapped.compute_reward
    monkeypatch.setattr(
        env.unwrapped, "compute_reward", lambda *pair: answers[0] if answers else plain(*pair), raising=True
    )
    task = task_of(env)
    answers.append(np.full(3, given) if np.isscalar(given) else np.array(given))
    with pytest.raises(EnvironmentFault, match="for 3 pairs"):
        task.compute_reward(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32))


def test_a_batch_is_not_asked_where_it_would_give_other_rewards(monkeypatch):
    env = make_env("goal_envs:Reach-v0", None, {})
    plain = env.unwrapped.compute_reward
    monkeypatch.setattr(env.unwrapped, "compute_reward", lambda a, d, info: plain(a, d, info) + 5 * (info != {}))
    goals = np.random.default_rng(0).uniform(-1, 1, (2, 9, 2)).astype(np.float32)
    np.testing.assert_array_equal(task_of(env).compute_reward(*goals), plain(*goals, {}))
