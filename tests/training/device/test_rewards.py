"""Rewards scaled on the device loop: the scale is that of the rewards seen, and a resumed run has it to the bit."""

import numpy as np
import pytest
from tiny_run import config_of, contents

import ddpg_jax as dj
from ddpg_jax.equations.rewards import PRIOR_SIZE, ReturnMoments, observe_rewards, reward_scale
from ddpg_jax.errors import Interrupted
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory


@pytest.mark.slow
def test_the_scale_is_that_of_the_rewards_and_survives_an_interruption(tmp_path, signal_at):
    config = config_of("jax:pendulum", seeds=[4], algorithm={"scale_rewards": True})
    whole = dj.train(config, tmp_path / "whole")
    signal_at(34)
    with pytest.raises(Interrupted):
        dj.train(config, tmp_path / "cut")
    signal_at(np.inf)
    dj.resume_run(tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(whole.directory)
    store = CheckpointStore(RunDirectory(whole.directory).checkpoints)
    checkpoint = store.load(store.newest()[0])
    (name,) = [name for name in checkpoint.arrays if name.endswith("stats/reward")]
    columns = checkpoint.rows.read(checkpoint.rows.first, checkpoint.rows.stop)
    rewards = next(iter(columns.values()))[:, 0, 0, 1].astype(np.float64)  # after the one component of the action
    moments = ReturnMoments(np.zeros(1), np.float64(PRIOR_SIZE), np.float64(0), np.float64(1))
    for step, reward in enumerate(rewards, 1):
        moments = observe_rewards(moments, np.array([reward]), config.algorithm.gamma)
        if step % 15 == 0:
            moments.returns[:] = 0
    np.testing.assert_allclose(checkpoint.arrays[name], [reward_scale(moments)], rtol=1e-4)
