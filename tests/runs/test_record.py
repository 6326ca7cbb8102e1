"""The record of a run as arrays is what its lines say, also where the run was cut off."""

import json
import shutil

import numpy as np
import pytest
from recorded_runs import evaluation_rows, write_run
from tiny_run import read_rows

import ddpg_jax as dj
from ddpg_jax.errors import StorageError
from ddpg_jax.runs.record import read_seconds


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def recorded(tmp_path):
    """`(text) -> path` of a run whose record is that text."""
    path = write_run(tmp_path / "run", [1], [[0.0]])

    def write(text):
        (path / "metrics.jsonl").write_text(text)
        return path

    return write


def test_the_arrays_are_what_the_lines_say(run):
    record, rows = dj.load_record(run), read_rows(run.directory / "metrics.jsonl")
    evaluations = [row for row in rows if row["event"] == "evaluation"]
    assert record.seeds.tolist() == [4, 9]
    assert record.steps.tolist() == [25, 50, 60]
    assert record.returns.shape == (3, 2, 3)
    assert record.returns.reshape(-1, 3).tolist() == [row["returns"] for row in evaluations]
    assert record.series.keys() == {row["event"] for row in rows}
    for event, series in record.series.items():
        of_event = [row for row in rows if row["event"] == event]
        numbers = {name for row in of_event for name, value in row.items() if isinstance(value, int | float)}
        assert series.keys() == numbers - {"seed", "step"}
        for name, found in series.items():
            told = [(row["step"], row["seed"], row[name]) for row in of_event if name in row]
            assert list(zip(found.step.tolist(), found.seed.tolist(), found.value.tolist(), strict=True)) == told


def test_chosen_events_are_the_same_without_the_others(run):
    whole, chosen = dj.load_record(run.directory), dj.load_record(run.directory, events=["evaluation"])
    np.testing.assert_array_equal(whole.returns, chosen.returns)
    assert chosen.series.keys() == {"evaluation"}
    assert len(dj.load_record(str(run.directory), ["update"]).steps) == 0


def test_a_record_may_end_anywhere(run, tmp_path):
    """Cut at every byte of its last evaluation, it holds the evaluations before."""
    path = tmp_path / "run"
    shutil.copytree(run.directory, path)
    content = (path / "metrics.jsonl").read_bytes()
    whole = dj.load_record(path)
    last = content.index(b'{"event": "evaluation", "seed": 4, "step": 60')
    for size in [last, last + 1, *range(last + 2, len(content) - 1, 29), len(content) - 1]:
        (path / "metrics.jsonl").write_bytes(content[:size])
        record = dj.load_record(path)
        assert record.steps.tolist() == [25, 50]
        np.testing.assert_array_equal(record.returns, whole.returns[:2])


def test_a_run_that_was_not_evaluated_has_no_returns(recorded):
    record = dj.load_record(recorded(lines({"event": "update", "seed": 3, "step": 5, "loss": 1.5})))
    assert record.returns.shape == (0, 1, 0)
    assert record.series["update"]["loss"].value.tolist() == [1.5]


def test_where_an_evaluation_has_fewer_episodes_is_no_number(recorded):
    few, many = evaluation_rows([10], [0], [[[1.0]]]), evaluation_rows([20], [0], [[[2.0, 3.0]]])
    record = dj.load_record(recorded(lines(*few, *many)))
    np.testing.assert_array_equal(record.returns, [[[1.0, np.nan]], [[2.0, 3.0]]])


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[1]",
        '"evaluation"',
        '{"event": "update", "seed": 0}',
        '{"event": "update", "seed": true, "step": 1}',
        '{"event": "update", "seed": 0, "step": -1}',
        '{"event": "update", "seed": 0, "step": 1e400}',
        '{"event": 5, "seed": 0, "step": 1}',
        '{"event": "evaluation", "seed": 0, "step": 1, "returns": []}',
        '{"event": "evaluation", "seed": 0, "step": 1, "returns": ["x"]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_row_is_refused_with_its_line(recorded, line):
    good = lines({"event": "update", "seed": 0, "step": 1})
    with pytest.raises(StorageError, match=r"metrics\.jsonl, line 2: ") as error:
        dj.load_record(recorded(f"{good}{line}\n{good}"))
    assert "\n" not in str(error.value)


def test_what_is_no_run_is_refused(tmp_path, recorded):
    with pytest.raises(StorageError, match="is not a run directory"):
        dj.load_record(tmp_path)
    path = recorded("")
    (path / "metrics.jsonl").unlink()
    with pytest.raises(StorageError, match="has recorded nothing yet"):
        dj.load_record(path)
    (path / "metrics.jsonl").symlink_to(tmp_path / "run" / "config.toml")
    with pytest.raises(StorageError, match="cannot be read"):
        dj.load_record(path)


def test_seconds_are_those_of_the_timing(run, tmp_path):
    told = read_rows(run.directory / "timing.jsonl")
    assert read_seconds(run.directory / "timing.jsonl") == {row["step"]: row["seconds"] for row in told}
    assert read_seconds(tmp_path / "none") == {}
    (tmp_path / "timing.jsonl").write_text('{"step": 1, "seconds": 2.5}\nbroken\n{"step": 2}\n{"step": 3, "sec')
    assert read_seconds(tmp_path / "timing.jsonl") == {1: 2.5}
