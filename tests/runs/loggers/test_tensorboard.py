"""Event files, read with TensorBoard's own reader."""

import json

import pytest
from rows import ROWS, Full
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import finished_run, read_rows, tiny_config

import ddpg_jax as dj
from ddpg_jax.runs.loggers.tensorboard import TensorBoard

LABELS = {"event", "seed", "step", "env", "episode", "updates", "returns"}


def scalars(folder):
    """`{(tag, step): value}` of a folder of event files."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = accumulator.Tags()["scalars"]
    return {(tag, event.step): event.value for tag in tags for event in accumulator.Scalars(tag)}


def expected(rows, seed):
    """Every number of a seed's rows that is not a label."""
    return {
        (f"{row['event']}/{name}", row["step"]): pytest.approx(value, rel=1e-6)
        for row in rows
        if row["seed"] == seed
        for name, value in row.items()
        if name not in LABELS
    }


def test_tensorboard_holds_every_number(tmp_path):
    sink = TensorBoard(tmp_path)
    sink.write(ROWS[:3])
    sink.write(ROWS[3:])
    sink.close()
    assert {path.name for path in tmp_path.iterdir()} == {"seed-4", "seed-9"}
    for seed in (4, 9):
        assert scalars(tmp_path / f"seed-{seed}") == expected(ROWS, seed)
    assert ("episode/episode_max_q", 15) in scalars(tmp_path / "seed-9")


def test_a_sink_without_rows_leaves_nothing(tmp_path):
    TensorBoard(tmp_path / "tensorboard").close()
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("operation", ["mkdir", "write"])
def test_event_files_end_with_the_first_error_and_nothing_else_does(tmp_path, monkeypatch, operation):
    said = []
    sink = TensorBoard(tmp_path / "board", None, said.append)
    Full(monkeypatch, operation)
    for row in ROWS:
        sink.write([row])
    sink.close()
    assert said == ["warning: event files for TensorBoard end here: [Errno 28] no space left"]


def test_event_files_of_a_resumed_run_tell_what_to_forget(tmp_path):
    sink = TensorBoard(tmp_path)
    sink.write(ROWS)
    sink.close()
    again = TensorBoard(tmp_path, purge=ROWS[-1]["step"])
    again.write([ROWS[-1]])
    again.close()
    assert scalars(tmp_path / f"seed-{ROWS[-1]['seed']}") == expected(ROWS, ROWS[-1]["seed"])


def test_tensorboard_of_a_run_holds_its_record(tmp_path_factory):
    run = finished_run(tmp_path_factory)
    rows = read_rows(run.directory / "metrics.jsonl")
    for seed in run.config.seed_list:
        found = scalars(run.directory / "tensorboard" / f"seed-{seed}")
        rates = {
            (f"rate/{name}_per_second", step) for name in ("env_steps", "updates") for step in (20, 25, 40, 50, 60)
        }
        assert found.keys() >= rates
        assert {place: value for place, value in found.items() if place not in rates} == expected(rows, seed)
        assert {tag for tag, _ in found} >= {"episode/episode_return", "episode/episode_max_q", "update/critic_loss"}


def test_without_tensorboard_there_is_no_folder(tmp_path, tmp_path_factory):
    """And nothing else changes."""
    with_it = finished_run(tmp_path_factory)
    without = dj.train(tiny_config(logging={"tensorboard": False}), tmp_path / "run")
    assert not (without.directory / "tensorboard").exists()
    assert (without.directory / "metrics.jsonl").read_bytes() == (with_it.directory / "metrics.jsonl").read_bytes()
    assert json.loads((without.directory / "result.json").read_text())["complete"]
