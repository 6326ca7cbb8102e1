"""What a run records, and that it goes on where a record cannot be written."""

import errno
from contextlib import nullcontext
from itertools import pairwise

import pytest
from tiny_run import EPISODE, finished_run, read_rows

import ddpg_jax as dj
from ddpg_jax.config.sections import CheckpointConfig
from ddpg_jax.errors import StorageError
from ddpg_jax.runs import filesystem
from ddpg_jax.training.host.loop import METRICS


@pytest.mark.parametrize("sink", ["metrics.jsonl", "timing.jsonl", "tensorboard"])
def test_a_run_whose_sink_is_full_ends_with_the_same_weights(sink, tmp_path, tmp_path_factory, monkeypatch, caplog):
    whole = finished_run(tmp_path_factory)

    def full(operation, path):
        if operation == "write" and path.name == sink:
            raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(filesystem, "fault_point", full)
    lost = pytest.raises(StorageError, match="still to be written") if sink == "metrics.jsonl" else nullcontext()
    with lost:  # a run without its record is not complete, and says so at its end
        dj.train(whole.config.model_copy(update={"checkpoint": CheckpointConfig(every=0)}), tmp_path / "run")
    assert "no space left" in caplog.text
    weights = [path / "checkpoints" / "final.safetensors" for path in (tmp_path / "run", whole.directory)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert (tmp_path / "run" / "result.json").exists() == (sink != "metrics.jsonl")


def test_the_record_of_a_run(tmp_path_factory):
    run = finished_run(tmp_path_factory)
    rows = read_rows(run.directory / "metrics.jsonl")
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)

    episodes = [row for row in rows if row["event"] == "episode"]
    assert [(r["seed"], r["step"], r["episode"]) for r in episodes] == [
        (seed, EPISODE * (i + 1), i) for i in range(4) for seed in (4, 9)
    ]
    for row in episodes:
        assert row["episode_length"] == EPISODE
        assert -17 * EPISODE < row["episode_return"] < 0
        assert ("episode_max_q" in row) == (row["step"] > 20)  # before, nothing is learned

    updates = [row for row in rows if row["event"] == "update"]
    assert [(r["seed"], r["step"], r["updates"]) for r in updates] == [
        (seed, step, step - 21) for step in (25, 40, 50, 60) for seed in (4, 9)
    ]
    assert all(set(METRICS) < row.keys() for row in updates)

    for row in (row for row in rows if row["event"] == "evaluation"):
        assert len(row["returns"]) == run.config.evaluation.episodes
        assert row["mean_return"] == pytest.approx(sum(row["returns"]) / len(row["returns"]))
        assert row["mean_length"] == EPISODE
    final = [row["returns"] for row in rows if row["event"] == "evaluation" and row["step"] == 60]
    assert final == run.result["final"]["returns"]


def test_the_timing_of_a_run(tmp_path_factory):
    timing = read_rows(finished_run(tmp_path_factory).directory / "timing.jsonl")
    assert [row["step"] for row in timing] == [20, 25, 40, 50, 60]
    for earlier, later in pairwise(timing):
        assert earlier.keys() == later.keys() >= {"seconds", "compile", "act", "environment", "replay", "update"}
        assert all(earlier[name] <= later[name] for name in earlier if not name.endswith("_per_second"))
    assert all(row["env_steps_per_second"] > 0 and row["updates_per_second"] >= 0 for row in timing)
