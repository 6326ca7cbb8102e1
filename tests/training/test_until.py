"""Runs that end at a step, saved, and go on later to the bit."""

import json
import signal

import pytest

from ddpg_jax.cli.main import main
from ddpg_jax.training import factory

TINY = (
    *("--env.id", "jax:pendulum", "--seeds", "1", "--total-steps", "400", "--evaluation.every", "100", "--quiet"),
    *("--evaluation.episodes", "1", "--logging.every", "50", "--logging.tensorboard", "false"),
    *("--algorithm.hidden", "[8]", "--algorithm.warmup-steps", "50", "--algorithm.batch-size", "8"),
    *("--replay.capacity", "400", "--env.max-episode-steps", "20"),
)


def train(path, *more):
    return main(["train", *TINY, "--run-dir", str(path), "--resume", "auto", *more])


def steps(path):
    return [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_a_run_ends_at_a_step_and_goes_on_to_the_bit(tmp_path):
    assert train(tmp_path / "whole") == 0
    path = tmp_path / "parts"
    for until in (200, 200, 300):  # the second has nothing to do
        assert train(path, "--until", str(until)) == 0
        assert steps(path)[-1] == until
        assert not (path / "result.json").exists()
    assert train(path) == 0
    assert (path / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert train(path, "--until", "400") == 0


def test_a_run_that_was_stopped_in_its_evaluation_at_the_step_has_not_reached_it(tmp_path, monkeypatch):
    """Also where that is a step later, as three environments step at once."""
    fetch, words = factory.fetch, ("--until", "100", "--env.num-envs", "3")

    def while_it_runs(compute, stop):
        signal.raise_signal(signal.SIGTERM)
        return fetch(compute, stop)

    with monkeypatch.context() as patch:
        patch.setattr(factory, "fetch", while_it_runs)
        for _ in range(2):  # the second time while it is evaluated again
            assert train(tmp_path / "run", *words) == 75
    assert 102 not in steps(tmp_path / "run")
    with open(tmp_path / "run" / "metrics.jsonl", "a") as record:
        record.write('{"event": "evaluation", "se')  # as a kill leaves it
    assert train(tmp_path / "run", *words) == 0
    assert steps(tmp_path / "run")[-1] == 102


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--until", "150"), "--until 150: expected a multiple of evaluation.every=100, up to total_steps=400"),
        (("--until", "500"), "--until 500: expected"),
        (("--until", "200", "--distributed"), "--until has no effect with --distributed"),
    ],
)
def test_a_step_without_an_evaluation_is_refused(more, said, tmp_path, capsys):
    assert train(tmp_path / "run", *more) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_it_needs_a_directory_to_go_on_in(capsys):
    assert main(["train", *TINY, "--until", "200"]) == 2
    assert "--until needs --run-dir and --resume auto" in capsys.readouterr().err
