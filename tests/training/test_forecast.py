"""What a run needs of memory is told before anything is made, and never more than it really needs."""

from math import prod

import jax
import pytest
from tiny_run import tiny_config

import ddpg_jax as dj
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.errors import ConfigError
from ddpg_jax.rng import run_keys
from ddpg_jax.training import forecast as module
from ddpg_jax.training.forecast import check_forecast, forecast


def bytes_of(tree):
    return sum(prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "algorithm",
    [
        {"hidden": [64, 64]},
        {"hidden": [200], "critic_hidden": [30, 40, 50]},
        {"name": "td3", "num_critics": 5, "hidden": [50, 60]},
        {"name": "d4pg", "v_min": -1.0, "v_max": 0.0, "hidden": [40, 40]},
        {"name": "fasttd3", "v_min": -1.0, "v_max": 0.0, "hidden": [40, 40]},
        {"architecture": "simba", "hidden": [64, 64]},
        {"name": "td3", "architecture": "flash", "hidden": [64, 64], "joint_batch": True},
        {"name": "mrq", "hidden": [40, 30], "critic_hidden": [50], "embedding_size": 60, "encoder_hidden": [70]},
    ],
    ids=str,
)
def test_what_is_told_of_a_learner_is_a_little_less_than_what_it_has(algorithm, spec):
    config = tiny_config(algorithm=algorithm)
    agent = make_agent(config, spec)
    learner = jax.eval_shape(jax.vmap(agent.init), run_keys(config.seed_list))
    real = bytes_of(learner) + bytes_of(learner.params)  # and a gradient
    told = forecast(config, prod(spec.obs_shape), spec.action_size).learner
    assert 0.8 * real < told <= real
    assert forecast(config).learner < told


TOO_LARGE = {
    "algorithm.hidden": {"algorithm": {"hidden": [60000, 60000]}},
    "critic_hidden": {"algorithm": {"critic_hidden": [60000, 60000]}},
    "num_critics": {"algorithm": {"name": "td3", "num_critics": 1024, "hidden": [2048, 2048]}},
    "algorithm.batch_size": {"algorithm": {"batch_size": 2**24, "hidden": [512, 512]}, "replay": {"capacity": 2**24}},
    "env.num_envs": {"env": {"num_envs": 65536}, "seeds": 2000, "algorithm": {"hidden": [2]}},
    "or seeds": {"seeds": 65536, "algorithm": {"hidden": [128, 128]}},
}


@pytest.mark.parametrize("field", TOO_LARGE)
@pytest.mark.parametrize("identifier", ["Pendulum-v1", "jax:pendulum"])
def test_what_cannot_fit_is_refused_before_anything_is_made(identifier, field, tmp_path, monkeypatch):
    changes = TOO_LARGE[field]
    if "env" in changes and identifier != "Pendulum-v1":
        pytest.skip("environments written in JAX are counted with their program")
    monkeypatch.setattr(module, "_free_bytes", lambda: 2 * 10**10)

    def too_late(*arguments):
        raise AssertionError("something was made")

    for name in ("make_training_envs", "device_env"):
        monkeypatch.setattr(f"ddpg_jax.training.factory.{name}", too_late)
    changes = {**changes, "env": {"id": identifier, **changes.get("env", {})}}
    with pytest.raises(ConfigError, match=rf"seeds need .* GB at least.*20\.0 GB are free: lower .*{field}"):
        dj.train(dj.load_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_free_is_what_the_machine_has():
    check_forecast(tiny_config(), 3, 1)
    assert 2**20 < module._free_bytes() < 2**50
