"""Whole runs of agents with memory: evaluated, acted with and resumed, on both loops."""

import jax
import numpy as np
import pytest
from tiny_run import LOOPS, tiny_config

import ddpg_jax as dj
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.envs.factory import env_maker
from ddpg_jax.envs.host.make import reset_env
from ddpg_jax.envs.host.vector import evaluation_seeds
from ddpg_jax.errors import ConfigError
from ddpg_jax.replay.device.ring import start
from ddpg_jax.replay.factory import make_replay
from ddpg_jax.rng import run_keys
from ddpg_jax.runs.failed_update import read_bundle, write_bundle
from ddpg_jax.runs.inference import evaluate_run, load_run
from ddpg_jax.runs.policy import episode_policy

MEMORY = {"hidden": 4, "length": 4, "obs_embedding": 4, "action_embedding": 4, "reward_embedding": 4}


@pytest.fixture(scope="module")
def memory_run(tmp_path_factory):
    config = tiny_config(algorithm={"memory": MEMORY}, seeds=[4])
    return dj.train(config, tmp_path_factory.mktemp("memory") / "run", quiet=True)


@pytest.mark.slow
def test_a_policy_carries_its_memory_and_gets_the_returns_of_its_evaluation(memory_run):
    """Alone, told its last reward, it acts as it does in the evaluation of the whole run."""
    run = load_run(memory_run.directory)
    returns = evaluate_run(run, 2).returns[0]
    for episode in range(2):
        env = env_maker(run.config.env, bounded=True)()
        obs, _ = reset_env(env, evaluation_seeds(2)(episode, 0))
        act, reward, total, done = episode_policy(run, 0), 0.0, 0.0, False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(act(obs, float(reward)))
            total, done = total + reward, terminated or truncated
        np.testing.assert_allclose(total, returns[episode], rtol=1e-4)


def test_episodes_side_by_side_are_remembered_apart(memory_run):
    """One of three environments begins an episode anew: it acts as at a beginning, the others as if nothing was."""
    policy = dj.load_policy(memory_run.directory)
    obs = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)
    _, kept = policy(obs[0])
    _, kept = policy(obs[1], kept, np.ones(3))
    went_on, _ = policy(obs[2], kept, np.zeros(3))
    anew, _ = policy(obs[2], kept, np.zeros(3), np.array([False, True, False]))
    np.testing.assert_array_equal(anew[[0, 2]], went_on[[0, 2]])
    assert anew[1] != went_on[1]
    np.testing.assert_allclose(anew[1], policy(obs[2, 1])[0], rtol=1e-5)
    with pytest.raises(ValueError, match="of 2 environments, came that of 3"):
        policy(obs[0, :2], kept)


def test_an_agent_with_memory_is_not_exported(memory_run, tmp_path):
    with pytest.raises(ConfigError, match="an agent with memory cannot be exported"):
        dj.export_policy(memory_run.directory, out=tmp_path / "out")


@LOOPS
def test_what_an_agent_with_memory_cannot_do_is_said(identifier):
    def config(**changes):
        return tiny_config(env={"id": identifier}, **changes)

    with pytest.raises(
        ConfigError, match=r"algorithm\.warmup_steps.*holds no window of 30 steps.*set it to 30 or more"
    ):
        config(algorithm={"memory": MEMORY | {"length": 20, "burn_in": 10}})
    with pytest.raises(ConfigError, match=r"replay\.capacity.*holds no window of 25 steps"):
        config(algorithm={"memory": MEMORY | {"length": 25}, "warmup_steps": 100}, replay={"capacity": 20})
    with pytest.raises(ConfigError, match=r'normalization="batch" is not possible with memory'):
        config(algorithm={"memory": MEMORY, "normalization": "batch"})
    with pytest.raises(ConfigError, match=r"replay\.kind.*has no windows"):
        config(algorithm={"memory": MEMORY}, replay={"kind": "hindsight"})


@pytest.mark.slow
def test_a_window_that_could_not_be_learned_from_is_read_back(memory_run, tmp_path):
    run = load_run(memory_run.directory)
    agent = make_agent(run.config, run.spec)
    key, replay = run_keys([4])[0], make_replay(run.config, run.spec)
    batch = replay.sample(replay.init(), start(), key, 0, 1, 4)._replace(index=())
    noisy = jax.tree.map(lambda x: np.random.default_rng(1).normal(size=x.shape).astype(x.dtype), batch)
    assert not write_bundle(tmp_path / "bundle", run.config, run.spec, 4, agent.init(key), [noisy])
    jax.tree.map(np.testing.assert_array_equal, read_bundle(tmp_path / "bundle").batch, noisy)
