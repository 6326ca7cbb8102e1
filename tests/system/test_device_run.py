"""Runs of environments written in JAX, from the configuration to what is left and can be used again."""

import json
import tomllib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import EPISODE, read_rows, tiny_config

import ddpg_jax as dj
from ddpg_jax.config.schema import hyper_paths, with_values
from ddpg_jax.envs.device.pendulum import pendulum
from ddpg_jax.errors import ConfigError
from ddpg_jax.rng import evaluation_keys
from ddpg_jax.runs.inference import evaluate_run, load_run, select_seed
from ddpg_jax.runs.videos import record_videos
from ddpg_jax.training.report import METRICS

FILES = {
    *("config.toml", "metrics.jsonl", "timing.jsonl", "result.json", "learning_curve.png", "run.lock"),
    *("format.json", "checkpoints/final.safetensors", "checkpoints/best.safetensors"),
}
REPORTS = [20, 25, 40, 50, 60]

device_config = partial(tiny_config, env={"id": "jax:pendulum"})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return dj.train(device_config(), tmp_path_factory.mktemp("device") / "run")


@pytest.fixture(scope="module")
def again(run, tmp_path_factory):
    return dj.train(run.config, tmp_path_factory.mktemp("device") / "again")


def files(folder):
    """Every file but those of checkpoints in which a run goes on."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(("checkpoints/0", "checkpoints/rows", "checkpoints/best/"))}


def rows_of(run, event):
    return [row for row in read_rows(run.directory / "metrics.jsonl") if row["event"] == event]


# What is left.


def test_a_run_leaves_a_whole_directory(run):
    left = files(run.directory)
    boards = {name for name in left if name.startswith("tensorboard/")}
    assert left - boards == FILES
    assert {name.split("/")[1] for name in boards} == {"seed-4", "seed-9"}
    assert (run.directory / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    read = dj.load_config(run.directory / "config.toml")
    assert read == run.config
    assert tomllib.loads((run.directory / "config.toml").read_text())["env"]["id"] == "jax:pendulum"


def test_the_record_of_a_run(run):
    def places(event):
        return [(row["seed"], row["step"]) for row in rows_of(run, event)]

    def both(steps):
        return [(seed, step) for step in steps for seed in (4, 9)]

    assert places("episodes") == both([20, 40, 50, 60])  # ends at 15, 30, 45 and 60
    assert places("update") == both([25, 40, 50, 60])
    assert places("evaluation") == both([25, 50, 60])
    for row in rows_of(run, "episodes"):
        assert (row["episodes"], row["episode_length"]) == (1, EPISODE)
        assert -17 * EPISODE < row["episode_return"] < 0
    for row in rows_of(run, "update"):
        assert row["updates"] == row["step"] - 20
        assert set(METRICS) < row.keys()
        assert row["max_q"] >= row["mean_q"]
    for row in rows_of(run, "evaluation"):
        assert len(row["returns"]) == 3
        assert row["mean_return"] == pytest.approx(np.mean(row["returns"]))
        assert row["mean_length"] == EPISODE


def test_the_timing_of_a_run(run):
    timing = read_rows(run.directory / "timing.jsonl")
    assert [row["step"] for row in timing] == REPORTS
    assert [row["updates"] for row in timing] == [step - 20 for step in REPORTS]
    for row in timing:
        assert {"seconds", "compile", "device", "env_steps_per_second", "updates_per_second"} < row.keys()
        assert row["env_steps_per_second"] > 0
    assert [row["device"] for row in timing] == sorted(row["device"] for row in timing)
    assert len({row["compile"] for row in timing}) == 1


def test_the_result_of_a_run(run):
    result = json.loads((run.directory / "result.json").read_text())
    assert result == json.loads(json.dumps(run.result))
    assert result["complete"]
    assert (result["env"], result["seeds"]) == ("jax:pendulum", [4, 9])
    assert (result["env_steps_per_seed"], result["updates_per_seed"]) == (60, 40)
    final = [row["returns"] for row in rows_of(run, "evaluation") if row["step"] == 60]
    assert final == result["final"]["returns"]
    assert result["final"]["lengths"] == [[EPISODE] * 3] * 2
    assert result["seconds"]["training"] == pytest.approx(result["seconds"]["device"])


def test_tensorboard_of_a_run_holds_its_record(run):
    labels = {"event", "seed", "step", "episodes", "updates", "returns"}
    for seed in (4, 9):
        folder = run.directory / "tensorboard" / f"seed-{seed}"
        accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        found = {
            (tag, event.step): event.value
            for tag in accumulator.Tags()["scalars"]
            for event in accumulator.Scalars(tag)
        }
        expected = {
            (f"{row['event']}/{name}", row["step"]): pytest.approx(value, rel=1e-6)
            for row in read_rows(run.directory / "metrics.jsonl")
            if row["seed"] == seed
            for name, value in row.items()
            if name not in labels
        }
        rates = {(f"rate/{what}_per_second", step) for what in ("env_steps", "updates") for step in REPORTS}
        assert found.keys() >= rates
        assert {place: value for place, value in found.items() if place not in rates} == expected


def test_equal_configurations_end_in_equal_bits(run, again):
    record = (run.directory / "metrics.jsonl").read_bytes()
    assert record == (again.directory / "metrics.jsonl").read_bytes()
    assert record.count(b"\n") == 2 * (4 + 4 + 3)
    first, second = (load_file(r.directory / "checkpoints" / "final.safetensors") for r in (run, again))
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], strict=True)
        if value.dtype == np.float32:
            assert np.isfinite(value).all()
            assert not np.array_equal(value[0], value[1])  # seeds


@pytest.mark.slow
def test_seeds_that_do_not_divide_evenly_over_the_devices_are_all_there_and_no_more(run, tmp_path):
    """Three on two devices, each of which bears two: the fourth is never seen."""
    three = dj.train(device_config(seeds=[4, 9, 2]), tmp_path / "run")
    assert three.result["seeds"] == [4, 9, 2]
    assert np.shape(three.result["final"]["returns"]) == np.shape(three.result["final"]["lengths"]) == (3, 3)
    rows, both = (read_rows(r.directory / "metrics.jsonl") for r in (three, run))
    assert {row["seed"] for row in rows} == {4, 9, 2}
    for row, other in zip([row for row in rows if row["seed"] != 2], both, strict=True):
        assert row.keys() == other.keys()
        assert row["event"] == other["event"]
        for name in row.keys() - {"event"}:
            np.testing.assert_allclose(row[name], other[name], rtol=1e-3, atol=1e-5, err_msg=name)
    loaded = load_run(three.directory)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(loaded.state.params)} == {3}
    assert dj.evaluate(three.directory, 2).shape == (3, 2)


# What can be done with it.


def test_an_evaluation_afterwards_is_the_last_one_of_the_run(run):
    returns = dj.evaluate(run.directory, episodes=5)
    assert returns.shape == (2, 5)
    np.testing.assert_allclose(returns[:, :3], run.result["final"]["returns"], rtol=1e-5)


def test_an_evaluation_may_change_the_environment(run):
    short = evaluate_run(load_run(run.directory, env={"max_episode_steps": 7}), 2)
    np.testing.assert_array_equal(short.lengths, np.full((2, 2), 7))
    counterpart = evaluate_run(load_run(run.directory, env={"id": "Pendulum-v1"}), 2)  # by gymnasium
    np.testing.assert_array_equal(counterpart.lengths, np.full((2, 2), EPISODE))
    assert (counterpart.returns > -17 * EPISODE).all()
    assert (counterpart.returns < 0).all()
    with pytest.raises(ConfigError, match=r"env\.id='jax:probe-acted' is not what was trained"):
        dj.evaluate(run.directory, 2, env={"id": "jax:probe-acted"})


def test_a_loaded_policy_earns_what_the_run_says(run):
    """In the environment's units, episode by episode of the last evaluation."""
    env = pendulum(EPISODE)
    step = jax.jit(env.step)
    for i in range(2):
        policy = dj.load_policy(run.directory, i)
        resets, steps = (list(keys) for keys in evaluation_keys(3))
        for j in range(3):
            state, obs = env.reset(resets[j])
            total = 0.0
            for t in range(EPISODE):
                action = policy(np.asarray(obs)[None])[0]
                assert (np.abs(action) <= 2).all()
                state, report = step(state, jnp.asarray(action / 2, jnp.float32), jax.random.fold_in(steps[j], t))
                obs, total = report.obs, total + float(report.reward)
            assert total == pytest.approx(run.result["final"]["returns"][i][j], rel=1e-4)
    assert policy(np.zeros((4, 3), np.float32)).shape == (4, 1)


def test_videos_are_of_what_draws_itself(run, tmp_path):
    with pytest.raises(ConfigError, match=r"'jax:probe-constant' cannot draw itself: .*jax:pendulum"):
        record_videos(load_run(run.directory, env={"id": "jax:probe-constant"}), tmp_path / "videos")
    assert not (tmp_path / "videos").exists()
    pytest.importorskip("moviepy")
    loaded = load_run(run.directory)
    seed = loaded.config.seed_list[-1]
    (path,) = record_videos(select_seed(loaded, seed), tmp_path / "videos")
    assert path.name == f"seed-{seed}.mp4"
    assert path.stat().st_size > 1000


# Refusals.


@pytest.mark.parametrize(
    ("loop", "identifier", "right"), [("host", "jax:pendulum", "device"), ("device", "Pendulum-v1", "host")]
)
def test_a_loop_that_cannot_run_the_environment_is_refused_and_nothing_is_left(loop, identifier, right, tmp_path):
    with pytest.raises(ConfigError, match=rf"loop = '{loop}' .*cannot run .*{identifier}.*: set loop to \"{right}\""):
        dj.train(tiny_config(loop=loop, env={"id": identifier}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("identifier", ["jax:pendulun", "jax:"])
def test_a_name_that_is_not_known_is_refused_and_nothing_is_left(identifier, tmp_path):
    with pytest.raises(ConfigError, match=r"env\.id"):
        dj.train(tiny_config(env={"id": identifier}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_loop_may_be_named_and_is_the_same(run, tmp_path):
    named = dj.train(device_config(loop="device", total_steps=25, logging={"tensorboard": False}), tmp_path / "run")
    record = (run.directory / "metrics.jsonl").read_bytes()
    assert record.startswith((named.directory / "metrics.jsonl").read_bytes())
    assert files(named.directory) == FILES


# Numbers that may differ from lane to lane.


def test_numbers_that_may_be_traced_are_listed_by_their_paths():
    config = device_config(exploration={"kind": "ou"})
    paths = hyper_paths(config)
    assert {"algorithm.gamma", "algorithm.tau", "exploration.theta", "exploration.sigma"} <= set(paths)
    assert "exploration.sigma_end" not in paths  # without a schedule it means nothing
    assert "exploration.sigma_end" in hyper_paths(device_config(exploration={"schedule": "linear"}))
    assert hyper_paths(device_config(exploration={"kind": "none"})) == (
        *(path for path in paths if path.startswith("algorithm.")),
        "exploration.epsilon",
    )
    for path in paths:
        section, field = path.split(".")
        assert field in type(getattr(config, section)).model_fields


def test_values_are_replaced_where_they_are_asked_for_and_nowhere_else():
    config = device_config()
    changed = with_values(config, {"algorithm.tau": 0.25, "exploration.sigma": 0.5})
    assert (changed.algorithm.tau, changed.exploration.sigma) == (0.25, 0.5)
    assert with_values(changed, {"algorithm.tau": config.algorithm.tau, "exploration.sigma": 0.1}) == config
    assert with_values(config, {}) == config
    assert config.algorithm.tau == 0.005  # what it was made of stays

    traced = jax.jit(lambda gamma: with_values(config, {"algorithm.gamma": gamma}).algorithm.gamma * 2)
    assert traced(jnp.float32(0.5)) == 1


@pytest.mark.parametrize(
    "path",
    [
        *("algorithm.hidden", "algorithm.batch_size", "algorithm.n_step", "env.num_envs", "replay.capacity", "seeds"),
        *("tau", "algorithm.gama", "exploration.theta", "algorithm", ""),
    ],
)
def test_structure_may_not_differ_from_lane_to_lane(path):
    config = device_config()
    with pytest.raises(ConfigError) as error:
        with_values(config, {"algorithm.tau": 0.1, path: 1})
    assert str(error.value) == (
        f"{path} is not a number that may differ from lane to lane; these are {', '.join(hyper_paths(config))}"
    )
