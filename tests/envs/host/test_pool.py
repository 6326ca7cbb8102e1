"""Evaluation episodes take turns in few environments, and nobody can tell by their returns."""

from contextlib import closing

import gymnasium
import numpy as np
import pytest
from brought_envs import Brought
from custom_envs import PLAIN, Faulty
from tiny_run import tiny_config

from ddpg_jax.envs.factory import make_evaluation_envs, make_training_envs, shares_instances
from ddpg_jax.envs.host.pool import INSTANCES
from ddpg_jax.envs.host.rollout import evaluate_episodes
from ddpg_jax.envs.host.vector import evaluation_seeds
from ddpg_jax.errors import ConfigError, EnvironmentFault


class Uneven(Brought):
    """Its episodes are of unequal lengths, and end in either way."""

    def __init__(self):
        super().__init__(form="vector")

    def reset(self, *, seed=None, options=None):
        self._end = 2 + seed % 5
        return super().reset(seed=seed)

    def step(self, action):
        obs, reward, _, ended, info = super().step(action)
        return obs, reward, ended and self._end % 2 == 0, ended and self._end % 2 == 1, info


class State:
    for_acting = None


@pytest.fixture(scope="module", autouse=True)
def registered():
    gymnasium.register("Uneven-v0", Uneven)
    yield
    gymnasium.registry.pop("Uneven-v0")


@pytest.fixture(autouse=True)
def counted():
    Brought.alive = Brought.most = 0


def policy(state, obs):
    return np.tanh(obs[..., :6] - obs[..., 6:]).astype(np.float32)


def config_of(seeds=(4, 9), **env):
    return tiny_config(seeds=seeds, env={"id": "Uneven-v0", "max_episode_steps": None, "info_keys": ["distance"]} | env)


def evaluated(lanes, told=None):
    """The evaluation; `told` is extended by the steps made and the episodes ended, after each step."""
    told, keys = [] if told is None else told, ["distance"]
    with closing(lanes):
        return evaluate_episodes(
            policy, lambda state, obs: obs.sum(-1), State(), lanes, 0.9, lambda *now: told.extend(now), keys
        )


def test_the_number_of_instances_changes_nothing():
    expected = evaluated(make_evaluation_envs(config_of(max_instances=100), 5))
    assert (Brought.most, Brought.alive) == (10, 0)
    assert np.ptp(expected.lengths) > 1
    for most in (1, 3, 7):
        Brought.most = 0
        told = []
        found = evaluated(make_evaluation_envs(config_of(max_instances=2 + most), 5), told)
        assert (Brought.most, Brought.alive) == (most, 0)
        for mine, theirs in zip(found[:4], expected[:4], strict=True):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(found.info["distance"], expected.info["distance"])
        steps, ended = told[::2], told[1::2]
        assert list(steps) == [*range(1, len(steps) + 1)]
        assert ended[-1] == 10


def test_what_an_episode_says_at_its_end_is_of_that_episode():
    env, seeds = Uneven(), evaluation_seeds(4)
    for most in (3, 8):
        found = evaluated(make_evaluation_envs(config_of(max_instances=2 + most), 4)).info["distance"]
        for j in range(4):
            obs, _ = env.reset(seed=seeds(j, 0))
            over = False
            while not over:
                obs, _, terminated, truncated, info = env.step(policy(None, obs).reshape(2, 3))
                over = terminated or truncated
            np.testing.assert_allclose(found[:, j], info["distance"], rtol=1e-6)
    env.close()


def test_an_evaluation_holds_few_environments_unless_it_is_told_otherwise():
    with closing(make_evaluation_envs(config_of(seeds=5), 100)):
        assert Brought.alive == INSTANCES


def test_those_that_train_are_used_where_no_others_may_exist():
    config = config_of(max_instances=2)
    assert shares_instances(config)
    assert not shares_instances(config_of(max_instances=3))
    with closing(make_training_envs(config)) as lanes:
        trials = make_evaluation_envs(config, 5, beside=lanes)
        expected = evaluated(make_evaluation_envs(config_of(max_instances=50), 5))
        np.testing.assert_array_equal(evaluated(trials).returns, expected.returns)
        assert Brought.alive == 2  # nobody has closed them
    assert Brought.alive == 0


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"max_instances": 1}, "env.max_instances=1, but 2 seeds of 1 environments train in 2 at once"),
        ({"max_instances": 7, "num_envs": 4}, "2 seeds of 4 environments train in 8"),
        ({"max_instances": 2, "workers": 1}, "set env.workers to 0, not 1"),
    ],
    ids=str,
)
def test_more_than_may_exist_are_refused_before_any_is_made(env, said):
    with pytest.raises(ConfigError, match=said):
        make_training_envs(config_of(**env))
    assert Brought.most == 0


def test_a_fault_names_the_episode_and_its_seed():
    gymnasium.register("Second-v0", lambda: Faulty("raises", 0, 2, evaluation_seeds(3)(1, 0)))
    try:
        config = config_of(max_instances=3, id="Second-v0", info_keys=[])
        lanes, still = make_evaluation_envs(config, 3), np.zeros((2, 3, 2), np.float32)
        assert lanes.spec.obs_shape == PLAIN.shape
        with pytest.raises(
            EnvironmentFault, match=r"^evaluation episode 1 of seed number 0 raised RuntimeError.*step 2"
        ):
            evaluate_episodes(lambda *_: still, lambda *_: np.zeros((2, 3)), State(), lanes, 0.9)
    finally:
        gymnasium.registry.pop("Second-v0")
