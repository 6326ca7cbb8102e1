"""An environment and an agent that were handed over are trained, resumed, evaluated and swept as any other."""

import numpy as np
import pytest
import stranger
from tiny_run import TINY, read_rows

import ddpg_jax as dj
from ddpg_jax.config.load import load_config, merge
from ddpg_jax.errors import ConfigError, Interrupted
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.training.sweep.grid import load_sweep
from ddpg_jax.training.sweep.run import resume_sweep, run_sweep

CONFIG = load_config(
    **merge(TINY, {"env": {"max_episode_steps": None}, "checkpoint": {"every": 10, "min_seconds": 0.0}})
)
ENVS = {"host": lambda goal=0.3: stranger.Point(goal), "device": stranger.device_point()}


def stop_at_40(report):
    if report.step == 40:
        report.stop()


@pytest.mark.parametrize("loop", ["host", pytest.param("device", marks=pytest.mark.slow)])
def test_a_run_on_ones_own_parts_is_stopped_resumed_and_put_to_use(loop, tmp_path):
    parts = {"env": ENVS[loop], "make_agent": stranger.quantiles}
    whole = dj.train(CONFIG, tmp_path / "whole", quiet=True, **parts)
    assert whole.config.on_device == (loop == "device")
    assert whole.result["algorithm"] == "stranger:quantiles"
    with pytest.raises(Interrupted):
        dj.train(CONFIG, tmp_path / "cut", callbacks=[stop_at_40], quiet=True, **parts)
    with pytest.raises(ConfigError, match="allow_imports=True"):
        dj.resume_run(tmp_path / "cut", quiet=True)
    with pytest.raises(ConfigError, match="hand it over again, as env="):
        dj.resume_run(tmp_path / "cut", quiet=True, allow_imports=True)
    cut = dj.resume_run(tmp_path / "cut", quiet=True, **parts)
    for name in ("metrics.jsonl", "checkpoints/final.safetensors"):
        assert (whole.directory / name).read_bytes() == (cut.directory / name).read_bytes()
    returns = dj.evaluate(cut.directory, episodes=3, **parts)
    last = [row["returns"] for row in read_rows(cut.directory / "metrics.jsonl") if row["event"] == "evaluation"][-2:]
    np.testing.assert_allclose(returns, last, rtol=1e-5)
    policy = dj.load_policy(cut.directory, seed=1, **parts)
    assert policy(np.zeros(1, np.float32)) == cut.policy(1)(np.zeros(1, np.float32)) == whole.policy(1)([0.0])
    with pytest.raises(ConfigError, match="hand it over again"):
        dj.evaluate(cut.directory, episodes=1, make_agent=stranger.quantiles, allow_imports=True)
    other = ENVS["device" if loop == "host" else "host"]
    with pytest.raises(ConfigError, match="written in JAX"):
        dj.evaluate(cut.directory, episodes=1, env=other, make_agent=stranger.quantiles)


def test_networks_of_ones_own_are_trained(tmp_path):
    changes = {"env": {"id": "jax:stranger:device_point"}, "algorithm": {"make_networks": "stranger:linear"}}
    config = load_config(**merge(TINY, changes | {"env": {"id": "jax:stranger:device_point", "kwargs": {"goal": 0.1}}}))
    run = dj.train(config, tmp_path / "run", quiet=True)
    assert dj.load_policy(run.directory, allow_imports=True)([0.5]).shape == (1,)
    from safetensors.numpy import load_file

    shapes = {name: x.shape for name, x in load_file(RunDirectory(run.directory).weights).items()}
    assert {(2, 1, 1), (2, 1, 2, 1)} <= set(shapes.values())


@pytest.mark.slow
def test_a_sweep_of_ones_own_parts_goes_on(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text('[grid]\n"algorithm.tau" = [0.1, 0.2]\n')
    without_limit = {name: values for name, values in TINY.items() if name != "env"}
    sweep = load_sweep(path, merge(without_limit, {"checkpoint": {"min_seconds": 0.0}}))
    parts = {"env": stranger.device_point(), "make_agent": stranger.quantiles}
    whole = run_sweep(sweep, tmp_path / "whole", **parts)
    cut = run_sweep(sweep, tmp_path / "cut", callbacks=[stop_at_40], **parts)
    assert not cut.result["complete"]
    with pytest.raises(ConfigError, match="DeviceEnv"):
        resume_sweep(tmp_path / "cut", make_agent=stranger.quantiles)
    cut = resume_sweep(tmp_path / "cut", **parts)
    assert (cut.directory / "metrics.jsonl").read_bytes() == (whole.directory / "metrics.jsonl").read_bytes()
    assert cut.result["combinations"] == whole.result["combinations"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"env": {"id": "jax:stranger:dj"}}, "expected a DeviceEnv"),
        ({"env": {"id": "jax:stranger:norm"}}, "unexpected keyword argument 'max_episode_steps'"),
        ({"env": {"id": "jax:stranger:device_point", "kwargs": {"gaol": 1}}}, "gaol"),
        ({"algorithm": {"name": "stranger:linear", "kwargs": {"outputs": 1}}}, "made tuple: expected an Agent"),
        ({"algorithm": {"name": "stranger:dj"}}, "expected a function"),
        ({"logging": {"callbacks": ["stranger:dj"]}}, "is no function"),
        ({"logging": {"loggers": ["stranger:Point"]}}, "no write"),
    ],
)
def test_what_is_no_such_part_is_refused(changes, said, tmp_path):
    config = load_config(**merge(TINY, merge({"env": {"id": "jax:pendulum"}}, changes)))
    with pytest.raises(dj.errors.DdpgJaxError, match=said):
        dj.train(config, tmp_path / "run", quiet=True)


def test_a_sweep_names_modules_on_the_command_line_only(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text('[config.env]\nid = "jax:stranger:device_point"\n[grid]\n"algorithm.tau" = [0.1, 0.2]\n')
    with pytest.raises(ConfigError, match="allow_imports=True"):
        load_sweep(path)
    assert load_sweep(path, {"env": {"id": "jax:stranger:device_point"}}).configs[0].env.id.startswith("jax:stranger")
