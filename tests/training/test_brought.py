"""Environments as people have them train, are resumed to the bit, and are evaluated, on the host loop."""

from typing import Any

import numpy as np
import pytest
from brought_envs import Brought
from tiny_run import OFTEN, contents, tiny_config

import ddpg_jax as dj
from ddpg_jax.config.load import merge
from ddpg_jax.errors import Interrupted

STACKED = [
    {"name": "gymnasium.wrappers.FrameStackObservation", "kwargs": {"stack_size": 2}},
    {"name": "ClipReward", "kwargs": {"max_reward": -0.2}},
]
CASES: dict[str, dict[str, Any]] = {
    "dictionary, matrix of actions": {"env": {"info_keys": ["is_success", "distance"]}},
    "matrix, actions without bounds": {
        "env": {"kwargs": {"form": "matrix", "action": [6], "bounded": False}, "action_range": [-2, 2]}
    },
    "wrappers, scaled rewards, one number as action": {
        "env": {"kwargs": {"form": "vector", "action": []}, "wrappers": STACKED},
        "algorithm": {"scale_rewards": True},
    },
    "one instance": {"env": {"max_instances": 1, "kwargs": {"form": "vector"}}},
}


def config_of(**changes: Any) -> dj.Config:
    own = {"seeds": [4], "total_steps": 40, "env": {"id": "Brought-v0", "max_episode_steps": None}}
    own |= {"checkpoint": OFTEN, "logging": {"tensorboard": False}, "evaluation": {"every": 15, "episodes": 3}}
    return tiny_config(**merge(own, changes))


@pytest.fixture(autouse=True)
def counted():
    Brought.alive = Brought.most = 0


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_what_people_bring_trains_resumes_to_the_bit_and_is_evaluated(changes, tmp_path, signal_at):
    config = config_of(**changes)
    whole = dj.train(config, tmp_path / "whole")
    most = Brought.most
    signal_at(24)
    with pytest.raises(Interrupted):
        dj.train(config, tmp_path / "cut")
    signal_at(np.inf)
    resumed = dj.resume_run(tmp_path / "cut")
    assert "level" not in resumed.result
    assert contents(tmp_path / "cut") == contents(whole.directory)
    returns = dj.evaluate(whole.directory, episodes=3)
    np.testing.assert_array_equal(returns, whole.result["final"]["returns"])
    assert Brought.alive == 0
    assert config.env.max_instances in (None, most)
