"""The weights of the best evaluation are kept, also by a run that was interrupted."""

import json

import jax
import numpy as np
import pytest
from tiny_run import config_of, tiny_config

import ddpg_jax as dj
from ddpg_jax.cli.main import main
from ddpg_jax.errors import Interrupted, StorageError
from ddpg_jax.runs.inference import load_run
from ddpg_jax.runs.weights import open_weights

WHICH = ("final", "best")


def arrays(path):
    return {name: x.tobytes() for name, x in open_weights(path).arrays.items()}


def best_of(run):
    return arrays(run.directory / "checkpoints" / "best.safetensors")


@pytest.fixture(scope="module")
def first_is_best(tmp_path_factory):
    """A run whose first evaluation is its best: the actor stays as it is, so that all are equal; its critics learn."""
    config = config_of(evaluation={"every": 25, "episodes": 3}, algorithm={"actor_learning_rate": 1e-30})
    run = dj.train(config, tmp_path_factory.mktemp("best") / "run")
    means = {}
    for row in (json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()):
        if row["event"] == "evaluation":
            means.setdefault(row["step"], []).append(row["mean_return"])
    return run, max(means, key=lambda step: np.mean(means[step]))


def test_the_best_weights_are_those_that_a_run_to_that_step_ends_with(first_is_best, tmp_path):
    run, step = first_is_best
    assert run.result["best"]["step"] == step < 60
    shorter = dj.train(run.config.model_copy(update={"total_steps": step}), tmp_path / "run")
    assert best_of(run) == arrays(shorter.directory / "checkpoints" / "final.safetensors")
    assert best_of(run) != arrays(run.directory / "checkpoints" / "final.safetensors")


@pytest.mark.parametrize("stop_at", [30, 55])
def test_an_interrupted_run_keeps_the_same_best(first_is_best, signal_at, tmp_path, stop_at):
    run, _ = first_is_best
    signal_at(stop_at)
    with pytest.raises(Interrupted):
        dj.train(run.config, tmp_path / "run")
    signal_at(1000)
    assert best_of(dj.resume_run(tmp_path / "run")) == best_of(run)


def test_a_run_that_goes_on_from_an_earlier_checkpoint_forgets_what_was_best_after_it(first_is_best, tmp_path):
    run, _ = first_is_best
    for step in (20, 30):
        branch = dj.resume_run(run.directory, step=step, into=tmp_path / str(step))
        assert best_of(branch) == best_of(run)


def test_the_best_policies_are_evaluated_and_loaded(first_is_best, capsys):
    run, _ = first_is_best
    returns = dj.evaluate(run.directory, 3, which="best")
    np.testing.assert_allclose(returns, run.result["best"]["returns"], rtol=1e-5)
    np.testing.assert_allclose(dj.evaluate(run.directory, 3), run.result["final"]["returns"], rtol=1e-5)
    critics = [jax.tree.leaves(load_run(run.directory, which=which).state.params.critic)[0] for which in WHICH]
    assert (critics[0] != critics[1]).any()
    obs = np.zeros((1, 3), np.float32)
    np.testing.assert_array_equal(*(dj.load_policy(run.directory, which=which)(obs) for which in WHICH))
    assert main(["evaluate", str(run.directory), "--episodes", "3", "--which", "best", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["which"] == "best"
    assert shown["interquartile_mean"] == pytest.approx(run.result["best"]["interquartile_mean"], rel=1e-5)


def test_best_weights_that_cannot_be_kept_cost_no_run(tmp_path, monkeypatch, caplog):
    def full(*of):
        raise StorageError("no room")

    monkeypatch.setattr("ddpg_jax.training.recorder.save_best", full)
    assert dj.train(tiny_config(), tmp_path / "run").result["complete"]
    assert "the best weights so far cannot be kept: no room" in caplog.text
    with pytest.raises(StorageError, match="best"):
        dj.evaluate(tmp_path / "run", 1, which="best")
