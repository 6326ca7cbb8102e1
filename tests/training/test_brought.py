"""Environments as people have them train, are resumed to the bit, and are evaluated, on the host loop."""

import logging
from typing import Any

import brought_envs
import numpy as np
import pytest
from brought_envs import Brought
from tiny_run import OFTEN, contents, read_rows, tiny_config

import ddpg_jax as dj
from ddpg_jax.config.load import merge
from ddpg_jax.errors import ConfigError, EnvironmentFault, Interrupted

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


@pytest.mark.parametrize(
    "name", ["dictionary, matrix of actions", *(pytest.param(each, marks=pytest.mark.slow) for each in [*CASES][1:])]
)
def test_what_people_bring_trains_resumes_to_the_bit_and_is_evaluated(name, tmp_path, signal_at):
    config = config_of(**CASES[name])
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


@pytest.mark.slow
def test_a_simulator_of_which_one_exists_gives_the_run_that_many_would_give(tmp_path):
    changes = CASES["one instance"]
    one = dj.train(config_of(**changes), tmp_path / "one")
    assert Brought.most == 1
    many = dj.train(config_of(**merge(changes, {"env": {"max_instances": 9}})), tmp_path / "many")
    assert contents(one.directory) == contents(many.directory)


def test_one_that_does_not_repeat_itself_has_its_episode_cut_where_it_was_evaluated(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "ddpg_jax")
    run = dj.train(config_of(env={"max_instances": 1, "kwargs": {"form": "vector", "wild": True}}), tmp_path / "run")
    (said, *_) = [record.getMessage() for record in caplog.records if "max_instances" in record.getMessage()]
    assert "1 of their episodes did not repeat themselves to the bit afterwards; they were cut at step 15" in said
    rows = [row for row in read_rows(run.directory / "metrics.jsonl") if row["event"] == "episode"]
    assert [row["step"] for row in rows] == [7, 14, 22, 29, 37]  # those at 15 and 30 were cut, and nobody counts them


def test_what_is_said_at_the_ends_of_episodes_is_recorded(tmp_path):
    run = dj.train(config_of(env={"info_keys": ["distance", "gone"], "kwargs": {"form": "vector"}}), tmp_path / "run")
    rows = read_rows(run.directory / "metrics.jsonl")
    episodes = [row for row in rows if row["event"] == "episode"]
    evaluations = [row for row in rows if row["event"] == "evaluation"]
    assert len(episodes) == 5
    assert len(evaluations) == 3
    for row in episodes + evaluations:
        assert row["info/distance"] > 0
        assert "info/gone" not in row


def test_a_run_whose_observations_have_another_order_is_not_gone_on_with(tmp_path, signal_at, monkeypatch):
    config = config_of(env={"kwargs": {"form": "dict"}})
    signal_at(24)
    with pytest.raises(Interrupted):
        dj.train(config, tmp_path / "run")
    signal_at(np.inf)
    init = Brought.__init__

    def other(self, *arguments, **options):
        init(self, *arguments, **options)
        spaces = self.observation_space.spaces
        self.observation_space.spaces = {name: spaces[name] for name in reversed(spaces)}

    monkeypatch.setattr(brought_envs.Brought, "__init__", other)
    with pytest.raises(ConfigError, match=r"layout: clock\[0:1\] .*, goal\[1:7\].* -> hand\[0:6\] .*clock\[12:13\]"):
        dj.resume_run(tmp_path / "run")


def test_what_cannot_be_meant_is_refused_before_anything_is_compiled(tmp_path):
    for env, kind, said in (
        ({"max_instances": 1, "num_envs": 2}, ConfigError, "env.max_instances=1"),
        ({"action_range": [-1, 1]}, EnvironmentFault, "no effect"),
        ({"wrappers": ["ClipRewards"]}, EnvironmentFault, "did you mean ClipReward"),
    ):
        with pytest.raises(kind, match=said) as caught:
            dj.train(config_of(env=env), tmp_path / "none")
        assert "\n" not in str(caught.value)
    assert Brought.alive == 0
