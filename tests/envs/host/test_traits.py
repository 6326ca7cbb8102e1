"""What is said of environments before anything is compiled, and the bound of every evaluation."""

import logging

import gymnasium
import numpy as np
import pytest
from custom_envs import Walk
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TimeLimit
from tiny_run import tiny_config

from ddpg_jax.envs.factory import make_evaluation_envs, make_training_envs
from ddpg_jax.envs.host import traits as module
from ddpg_jax.envs.host.rollout import evaluate_episodes
from ddpg_jax.envs.host.traits import traits

ENDLESS = {"env": {"id": "Endless-v0", "max_episode_steps": None}}


class Shifted(gymnasium.ObservationWrapper):
    """A wrapper of somebody's own, with statistics of gymnasium's."""

    def __init__(self, env):
        super().__init__(env)
        self.moments = gymnasium.wrappers.utils.RunningMeanStd(shape=(3,))

    def observation(self, observation):
        return observation


@pytest.fixture(scope="module", autouse=True)
def registered():
    gymnasium.register("Endless-v0", lambda: Walk(end=10**9))
    gymnasium.register("Own-limit-v0", lambda: TimeLimit(Walk(end=10**9), 5))
    gymnasium.register("Normal-v0", lambda: NormalizeReward(NormalizeObservation(TimeLimit(PendulumEnv(), 15))))
    yield
    for name in ("Endless-v0", "Own-limit-v0", "Normal-v0"):
        gymnasium.registry.pop(name)


@pytest.fixture
def said(caplog):
    """`() -> lines` of warning so far."""
    caplog.set_level(logging.WARNING, "ddpg_jax")
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_environment_without_a_time_limit_is_warned_of_with_the_field_that_sets_one(said):
    make_training_envs(tiny_config(**ENDLESS))
    (line,) = said()
    assert "'Endless-v0' has no time limit" in line
    assert "10000 steps" in line
    assert "env.max_episode_steps" in line


@pytest.mark.parametrize(
    "env", [{"id": "Endless-v0", "max_episode_steps": 5}, {"id": "Own-limit-v0", "max_episode_steps": None}]
)
def test_one_with_a_time_limit_is_not(env, said):
    make_training_envs(tiny_config(env=env))
    assert said() == []


def test_every_evaluation_ends(said, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_STEPS", 7)
    lanes = make_evaluation_envs(tiny_config(seeds=[3], **ENDLESS), 2, alone=True)
    still, nothing = (np.zeros((1, 2, 2), np.float32), np.zeros((1, 2)))
    found = evaluate_episodes(lambda *_: still, lambda *_: nothing, _state(), lanes, 0.9)
    assert found.lengths.tolist() == [[7, 7]]
    assert len(said()) == 1  # that it has no limit of its own


def _state():
    from ddpg_jax.types import Params, Stats, TrainState

    none = Params((), (), ())
    return TrainState((), none, none, none, Stats((), none), ())


def test_a_limit_of_its_own_bounds_the_evaluation_too():
    lanes = make_evaluation_envs(tiny_config(seeds=[3], env={"id": "Own-limit-v0", "max_episode_steps": None}), 1)
    lanes.reset()
    ends = [bool(lanes.step(np.zeros((1, 1, 2), np.float32)).truncated) for _ in range(5)]
    assert ends == [False] * 4 + [True]


def test_wrappers_with_statistics_are_named_and_what_to_set_instead(said):
    make_training_envs(tiny_config(env={"id": "Normal-v0"}))
    (line,) = said()
    assert "NormalizeReward, NormalizeObservation" in line
    assert "algorithm.normalize_observations" in line


def test_statistics_are_found_in_wrappers_of_ones_own():
    assert traits(Shifted(Walk())).statistics == ("Shifted",)
    assert traits(TimeLimit(Walk(), 3)) == module.PLAIN
