"""A finished run put to use."""

import _thread
import json
import shutil
import signal
import threading

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_run import EPISODE, tiny_config

import ddpg_jax as dj
from ddpg_jax.cli.main import main
from ddpg_jax.envs.device.pendulum import pendulum
from ddpg_jax.envs.host.vector import evaluation_seeds
from ddpg_jax.errors import ConfigError, StorageError
from ddpg_jax.runs.inference import evaluate_run, load_run, select_seed
from ddpg_jax.runs.policy import seed_policy


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(run.directory, tmp_path / "run")


def observations(count, scale=1.0):
    return (scale * np.random.default_rng(0).normal(size=(count, 3))).astype(np.float32)


@pytest.mark.parametrize("count", [1, 5])
def test_a_policy_takes_any_batch(run, count):
    assert dj.load_policy(run.directory)(observations(count)).shape == (count, 1)


def test_a_policy_acts_in_the_units_of_the_environment(run):
    """Twice what the network says, which lies in [-1, 1]: Pendulum's torque lies in [-2, 2]."""
    loaded, obs = load_run(run.directory), observations(50, 1000.0)
    for i in range(2):
        raw = np.asarray(loaded.policy(loaded.state, np.stack([obs, obs])))[i]
        actions = dj.load_policy(run.directory, seed=i)(obs)
        np.testing.assert_allclose(actions, 2.0 * raw, rtol=1e-5, atol=1e-6)
        assert np.abs(actions).max() <= 2.0
        assert np.abs(actions).max() > 1.0  # such observations saturate a network: the bounds are not those of [-1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_policy_gives_what_the_action_space_contains(run, dtype):
    """0.1 and 0.3 are no numbers of float32: the nearest of the upper one is above it."""
    low, high = np.array([-0.1], dtype), np.array([0.3], dtype)
    space, loaded = gymnasium.spaces.Box(low, high, dtype=dtype), load_run(run.directory)
    policy = seed_policy(loaded._replace(spec=loaded.spec._replace(action_low=tuple(low), action_high=tuple(high))), 0)
    actions = policy(observations(50, 1e6))
    assert actions.dtype == dtype
    assert all(space.contains(action) for action in actions)
    assert {actions.min(), actions.max()} == {low[0], high[0]}


def test_a_policy_takes_a_single_observation(run):
    policy, obs = dj.load_policy(run.directory), observations(3)
    for one, action in zip(obs, policy(obs), strict=True):
        assert policy(one).shape == (1,)
        np.testing.assert_allclose(policy(one), action, rtol=1e-5, atol=1e-6)
    for other in (obs[:, :2], obs[0, :2], obs[None], np.float32(0)):
        with pytest.raises(ValueError, match=r"expected observations of shape \(3,\), or many of them"):
            policy(other)


def test_one_seed_is_evaluated_as_among_the_others(run):
    both = evaluate_run(load_run(run.directory), 2)
    told = []
    one = evaluate_run(select_seed(load_run(run.directory), 9), 2, lambda *seen: told.append(seen))
    np.testing.assert_allclose(one.returns, both.returns[1:], rtol=1e-4)
    assert told == [(t, 2 * (t == EPISODE)) for t in range(1, EPISODE + 1)]
    with pytest.raises(ConfigError, match="no seed 1; it has 4, 9"):
        select_seed(load_run(run.directory), 1)


def test_the_command_prints_json_of_the_seed_that_is_asked_for(run, capsys):
    assert main(["evaluate", str(run.directory), "--episodes", "3", "--seed", "9", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    (each,) = found["seeds"]
    assert (each["seed"], found["episodes"], found["env"], found["videos"]) == (9, 3, "Pendulum-v1", [])
    np.testing.assert_allclose(each["returns"], run.result["final"]["returns"][1], rtol=1e-4)
    np.testing.assert_allclose(each["mean_return"], np.mean(each["returns"]))
    assert each["lengths"] == [EPISODE] * 3
    assert "evaluating 3 episodes of each of 1 seeds" in said.err


def test_the_help_of_evaluate_shows_the_fields_of_the_environment(capsys):
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    for word in ("--env.max-episode-steps", "--env.kwargs", "--seed", "--json", "--episodes"):
        assert word in said
    assert "--algorithm" not in said


def test_what_a_video_needs_is_asked_before_the_episodes(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["evaluate", str(run.directory), "--video", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "recording needs moviepy" in said.err
    assert said.out == ""


def test_a_policy_is_the_stored_network(run):
    """By hand: one hidden layer of 8 with relu, then tanh."""
    arrays = load_file(run.directory / "checkpoints" / "final.safetensors")
    actor = [array for name, array in sorted(arrays.items()) if "/actor/" in name]
    biases, kernels = [a for a in actor if a.ndim == 2], [a for a in actor if a.ndim == 3]
    assert [a.shape for a in kernels] == [(2, 3, 8), (2, 8, 1)]
    obs = observations(6)
    for i in range(2):
        hidden = np.maximum(obs @ kernels[0][i] + biases[0][i], 0)
        by_hand = 2.0 * np.tanh(hidden @ kernels[1][i] + biases[1][i])
        np.testing.assert_allclose(dj.load_policy(run.directory, seed=i)(obs), by_hand, rtol=1e-4, atol=1e-5)


def test_the_policy_is_that_of_its_position(run):
    first, second = (dj.load_policy(run.directory, seed=i)(observations(4)) for i in range(2))
    np.testing.assert_array_equal(dj.load_policy(run.directory)(observations(4)), first)
    assert (first != second).all()


def test_acting_by_the_policy_gives_the_returns_of_evaluate(run):
    returns = dj.evaluate(run.directory, episodes=4)
    assert returns.shape == (2, 4)
    for i in range(2):
        policy = dj.load_policy(run.directory, seed=i)
        env = gymnasium.vector.SyncVectorEnv(
            [lambda: gymnasium.make("Pendulum-v1", max_episode_steps=EPISODE) for _ in range(4)]
        )
        obs, _ = env.reset(seed=[evaluation_seeds(4)(j, 0) for j in range(4)])
        total = np.zeros(4)
        for _ in range(EPISODE):
            obs, reward, _, _, _ = env.step(policy(obs).astype(np.float32))
            total += reward
        np.testing.assert_allclose(returns[i], total, rtol=1e-4)


def test_evaluating_gives_what_the_run_reported(run):
    np.testing.assert_array_equal(dj.evaluate(run.directory, episodes=3), run.result["final"]["returns"])
    evaluation = evaluate_run(load_run(run.directory), 3)
    assert evaluation.lengths.tolist() == run.result["final"]["lengths"]


def test_a_longer_evaluation_begins_with_the_shorter(run):
    np.testing.assert_allclose(dj.evaluate(run.directory, 5)[:, :2], dj.evaluate(run.directory, 2), rtol=1e-4)


@pytest.mark.parametrize("seed", [2, -1, 9])
def test_a_seed_that_is_not_there_is_an_error(run, seed):
    with pytest.raises(IndexError, match=f"{seed}.*2 seeds"):
        dj.load_policy(run.directory, seed=seed)


def test_what_is_no_run_is_refused(tmp_path):
    for read in (dj.load_policy, dj.evaluate):
        with pytest.raises(StorageError):
            read(tmp_path / "none")


def test_a_run_without_weights_is_refused(copied):
    final = dj.load_policy(copied)
    (copied / "checkpoints" / "final.safetensors").unlink()
    obs = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(dj.load_policy(copied)(obs), final(obs))  # those of the last checkpoint are the same
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(StorageError, match=r"holds no weights: neither .*final\.safetensors nor a whole checkpoint"):
        dj.load_policy(copied)


def test_weights_that_do_not_fit_the_configuration_are_named(copied):
    config = copied / "config.toml"
    config.write_text(config.read_text().replace("8,", "9,", 1))
    with pytest.raises(StorageError, match=r"actor.*\[2, 3, 9\], found float32\[2, 3, 8\]"):
        dj.load_policy(copied)


def test_a_broken_configuration_is_refused(copied):
    (copied / "config.toml").write_text("seeds = -1")
    with pytest.raises(ConfigError, match="seeds"):
        dj.evaluate(copied)


def test_a_run_imports_no_module_because_its_file_says_so(copied):
    config = copied / "config.toml"
    config.write_text(config.read_text().replace("Pendulum-v1", "antigravity:Pendulum-v1"))
    with pytest.raises(ConfigError, match="by an argument only"):
        load_run(copied)
    assert load_run(copied, env={"id": "Pendulum-v1"}).config.env.id == "Pendulum-v1"


@pytest.mark.slow
def test_ctrl_c_is_heard_while_a_device_evaluates(tmp_path):
    """The environment's first step asks for it, and ends when that was heard."""
    release, heard = threading.Event(), []

    def hold(steps):
        if not release.is_set():
            _thread.interrupt_main()
            heard.append(release.wait(20))
        return steps

    def step(state, action, key):
        same = jax.pure_callback(hold, jax.ShapeDtypeStruct((), jnp.int32), state.steps, vmap_method="sequential")
        return env.step(state._replace(steps=same), action, key)

    env = pendulum(max_episode_steps=3)
    config = tiny_config(env={"max_episode_steps": None}, seeds=1, total_steps=12)
    path = dj.train(config, tmp_path / "run", env=env, quiet=True).directory
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            evaluate_run(load_run(path, env=env._replace(step=step)), 1)
    finally:
        signal.signal(signal.SIGINT, before)
        release.set()
    assert not heard
