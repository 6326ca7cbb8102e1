"""Configurations that earlier versions stored: later fields mean in them what those versions did."""

import tomllib
from pathlib import Path

import pytest
import tomli_w

from ddpg_jax.config.load import dump_toml, load_config, resolve
from ddpg_jax.config.stored import BEFORE, complete_stored, read_stored
from ddpg_jax.training.sweep.grid import load_stored_sweep, load_sweep

GOLDEN = Path(__file__).parents[1] / "golden"


def normalizing(config):
    return {field: getattr(config.algorithm, field) for field in BEFORE}


def test_a_run_of_before_goes_on_as_it_was():
    config = resolve(read_stored(GOLDEN / "device" / "config.toml"), {}, source="config.toml")
    assert config.algorithm.normalize_observations
    assert normalizing(config) == {"observation_moments": "plain", "observation_epsilon": 1e-2, "observation_clip": 0}


@pytest.mark.parametrize("words", [("half_cheetah", "td3_paper"), ("half_cheetah", "fasttd3")])
def test_a_run_of_now_is_what_it_says(words):
    config = load_config(*words)
    assert config.algorithm.observation_moments == "compensated"
    assert resolve(complete_stored(tomllib.loads(dump_toml(config))), {}, source="config.toml") == config


@pytest.mark.parametrize("odd", [{"algorithm": 3}, {"seeds": 2, "algorithm": []}])
def test_what_is_no_table_is_left_to_who_reports_it(odd):
    assert complete_stored(odd) == odd


def test_a_sweep_of_before_goes_on_as_it_was(tmp_path):
    path = tmp_path / "sweep.toml"
    values = {"env": {"id": "jax:pendulum"}, "algorithm": {"normalize_observations": True}}
    path.write_text(tomli_w.dumps({"base": values, "config": {}, "grid": {"algorithm.tau": [0.01, 0.02]}}))
    assert [normalizing(config) for config in load_stored_sweep(path).configs] == [BEFORE] * 2
    now = load_sweep(path)
    assert now.configs[0].algorithm.observation_moments == "compensated"
    path.write_text(tomli_w.dumps(now.source))
    assert load_stored_sweep(path).configs == now.configs
