"""The default configuration learns its task. Minutes long: `pytest -m slow`."""

import numpy as np
import pytest

import ddpg_jax as dj


@pytest.mark.slow
def test_the_defaults_solve_pendulum(tmp_path):
    run = dj.train(dj.load_config(), tmp_path / "run")
    final = run.result["final"]
    assert final["interquartile_mean"] >= -200
    assert min(final["per_seed"]) >= -300
    assert len(final["per_seed"]) == 5
    assert np.mean(dj.evaluate(run.directory, episodes=20)) >= -250  # other episodes than the run's own
