"""The sinks read back: JSON lines, and TensorBoard with its own reader."""

import errno
import json
from itertools import pairwise

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import EPISODE, finished_run, read_rows, tiny_config

import ddpg_jax as dj
from ddpg_jax.config.sections import CheckpointConfig
from ddpg_jax.errors import StorageError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.loggers.jsonl import JsonLines
from ddpg_jax.runs.loggers.tensorboard import TensorBoard
from ddpg_jax.training.host.loop import METRICS

ROWS = [
    {"event": "episode", "seed": 4, "step": 15, "env": 0, "episode": 0, "episode_return": -70.25, "episode_length": 15},
    {"event": "episode", "seed": 9, "step": 15, "env": 0, "episode": 0, "episode_return": 1 / 3, "episode_max_q": 2.5},
    {"event": "update", "seed": 4, "step": 20, "updates": 3, "critic_loss": 1e-30, "max_q": 2.0},
    {"event": "evaluation", "seed": 9, "step": 25, "mean_return": -1.5, "mean_length": 15.0, "returns": [-1.0, -2.0]},
]
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


def test_rows_are_lines_that_read_back_equal(tmp_path):
    sink = JsonLines(tmp_path / "m.jsonl")
    sink.write(ROWS[:2])
    assert read_rows(tmp_path / "m.jsonl") == ROWS[:2]  # handed over at once, before it is closed
    sink.write([])
    sink.write(ROWS[2:])
    sink.close()
    assert read_rows(tmp_path / "m.jsonl") == ROWS


def test_a_second_sink_appends(tmp_path):
    for row in ROWS:
        sink = JsonLines(tmp_path / "m.jsonl")
        sink.write([row])
        sink.close()
    assert read_rows(tmp_path / "m.jsonl") == ROWS


def test_lines_are_json_without_extensions(tmp_path):
    sink = JsonLines(tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match=r"[Jj]son|JSON"):
        sink.write([ROWS[0] | {"episode_return": float("nan")}])
    sink.close()
    assert (tmp_path / "m.jsonl").read_text() == ""


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


# --- When they cannot be written.


class Full:
    """A disk on which calls fail, for as long as it is full."""

    def __init__(self, monkeypatch, *operations):
        self.full, self._operations = True, operations
        monkeypatch.setattr(filesystem, "before", self)

    def __call__(self, operation, path):
        if self.full and operation in self._operations:
            raise OSError(errno.ENOSPC, "no space left")


def test_lines_wait_in_order_while_the_disk_is_full(tmp_path, monkeypatch):
    said = []
    sink = JsonLines(tmp_path / "m.jsonl", 0, said.append)
    sink.write(ROWS[:1])
    disk = Full(monkeypatch, "write")
    sink.write(ROWS[1:2])
    sink.write(ROWS[2:3])
    with pytest.raises(StorageError, match="bytes are still to be written"):
        sink.sync()
    assert [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()] == ROWS[:1]
    assert len(said) == 1
    assert "its lines are kept, training goes on" in said[0]
    disk.full = False
    sink.write(ROWS[3:])
    assert sink.sync() == (tmp_path / "m.jsonl").stat().st_size
    sink.close()
    assert [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()] == ROWS


def test_a_device_that_is_always_full_neither_blocks_nor_raises(tmp_path):
    (tmp_path / "m.jsonl").symlink_to("/dev/full")
    said = []
    sink = JsonLines(tmp_path / "m.jsonl", None, said.append)
    for _ in range(3):
        sink.write(ROWS)
    sink.close()
    assert ["its lines are kept" in line for line in said] == [True, False]
    assert "lacks its last" in said[1]


def test_a_write_that_was_cut_in_the_middle_is_written_over(tmp_path, monkeypatch):
    sink = JsonLines(tmp_path / "m.jsonl", 0, lambda line: None)
    whole, write = sink._file, sink._file.write

    class Torn:
        """Writes ten bytes and fails; the next time it works."""

        def __getattr__(self, name):
            return getattr(whole, name)

        def write(self, content):
            write(content[:10])
            sink._file = whole
            raise OSError(errno.EIO, "torn")

    sink._file = Torn()
    sink.write(ROWS[:2])
    assert (tmp_path / "m.jsonl").stat().st_size == 10
    sink.write(ROWS[2:])
    sink.close()
    assert [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()] == ROWS


def test_a_file_is_cut_back_to_the_offset(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n{"torn')
    sink = JsonLines(path, 9)
    sink.write(ROWS[:1])
    sink.close()
    assert path.read_bytes().startswith(b'{"a": 1}\n{"event')
    with pytest.raises(StorageError, match=r"m\.jsonl holds \d+ bytes, but held 10000"):
        JsonLines(path, 10_000)


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


@pytest.mark.parametrize("sink", ["metrics.jsonl", "timing.jsonl", "tensorboard"])
def test_a_run_whose_sink_is_full_ends_with_the_same_weights(sink, tmp_path, tmp_path_factory, monkeypatch, caplog):
    whole = finished_run(tmp_path_factory)

    def full(operation, path):
        if operation == "write" and path.name == sink:
            raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(filesystem, "before", full)
    run = dj.train(whole.config.model_copy(update={"checkpoint": CheckpointConfig(every=0)}), tmp_path / "run")
    assert "no space left" in caplog.text
    weights = [r.directory / "checkpoints" / "final.safetensors" for r in (run, whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert run.result["final"] == whole.result["final"]


# --- The sinks of a real run.


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
