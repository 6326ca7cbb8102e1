"""The default configuration learns its task. Minutes long: `pytest -m slow`."""

from pathlib import Path

import numpy as np
import pytest

import ddpg_jax as dj

CONFIGS = Path(__file__).parents[2] / "configs" / "pendulum"


@pytest.mark.slow
def test_the_defaults_solve_pendulum(tmp_path):
    run = dj.train(dj.load_config(), tmp_path / "run")
    final = run.result["final"]
    assert final["interquartile_mean"] >= -200
    assert min(final["per_seed"]) >= -300
    assert len(final["per_seed"]) == 5
    assert np.mean(dj.evaluate(run.directory, episodes=20)) >= -250  # other episodes than the run's own


@pytest.mark.slow
def test_the_device_loop_solves_pendulum(tmp_path):
    run = dj.train(dj.load_config(CONFIGS / "device.toml"), tmp_path / "run")
    final = run.result["final"]
    assert len(final["per_seed"]) == 16
    assert final["interquartile_mean"] >= -200
    there = dj.evaluate(run.directory, episodes=20, env={"id": "Pendulum-v1"})  # in gymnasium's environment
    assert np.median(there.mean(1)) >= -200


@pytest.mark.slow
@pytest.mark.parametrize("env", ["Pendulum-v1", "jax:pendulum"])
def test_prioritised_replay_solves_pendulum(tmp_path, env):
    run = dj.train(dj.load_config(seeds=4, env={"id": env}, replay={"kind": "prioritized"}), tmp_path / "run")
    assert run.result["final"]["interquartile_mean"] >= -200


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["td3", "d4pg"])
def test_the_family_solves_pendulum(tmp_path, algorithm):
    config = dj.load_config(CONFIGS / f"{algorithm}.toml", seeds=6, env={"id": "jax:pendulum"})
    run = dj.train(config, tmp_path / "run")
    assert run.result["final"]["interquartile_mean"] >= -200


@pytest.mark.slow
@pytest.mark.parametrize("file", ["ddpg.toml", "parameter_noise.toml"])
def test_the_car_reaches_its_flag_by_noise_that_lasts(tmp_path, file):
    """On actions or on parameters; Gaussian noise of 0.1 leaves nearly all seeds at 0."""
    config = dj.load_config(CONFIGS.parent / "classic" / "mountain_car_continuous" / file, seeds=5)
    final = dj.train(config, tmp_path / "run").result["final"]
    assert np.median(final["per_seed"]) > 90
