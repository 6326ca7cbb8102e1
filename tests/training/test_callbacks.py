"""Callbacks add to the record and stop a run; what fails in a user's part costs nothing that was trained."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_run import LOOPS, TINY, tiny_config

import ddpg_jax as dj
from ddpg_jax.config.load import merge
from ddpg_jax.errors import CallbackError, ConfigError, Interrupted
from ddpg_jax.training.callbacks import CallbackReport, GuardedLogger, call, own_loggers

OFTEN = {"logging": {"every": 10, "tensorboard": False}, "checkpoint": {"every": 10, "min_seconds": 0.0}}
REPORT = CallbackReport(None, None, 40, 7, (), None, None, lambda: None)


def newest_arrays(run):
    """The arrays of a run's last checkpoint, by name."""
    return load_file(sorted(run.directory.glob("checkpoints/*-step-*/arrays.safetensors"))[-1])


def rows(directory, event):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == event]


@LOOPS
def test_a_callback_adds_to_the_record_and_stops_a_run_that_goes_on_to_the_bit(identifier, tmp_path):
    seen = []

    def watch(report):
        seen.append(report._replace(state=None))
        norms = np.abs(np.asarray(report.state.params.actor["params"]["Dense_0"]["kernel"])).sum((1, 2))
        return {"norm": norms[:2].astype(np.float64), "twice": 2 * report.step}

    def stop(report):
        if report.step == 40:
            report.stop()

    config = tiny_config(env={"id": identifier}, **OFTEN)
    whole = dj.train(config, tmp_path / "whole", callbacks=[watch], quiet=True)
    assert [report.step for report in seen] == sorted({*range(10, 61, 10), 25, 50, 60})
    assert [report.evaluation is not None for report in seen] == [r.step in (25, 50, 60) for r in seen]
    assert all(report.evaluation.returns.shape == (2, 3) for report in seen if report.evaluation)
    found = rows(whole.directory, "callback")
    assert [row["twice"] for row in found[::2]] == [2 * report.step for report in seen]
    assert [row["seed"] for row in found[:2]] == [4, 9]
    assert len({row["norm"] for row in found}) > 10
    with pytest.raises(Interrupted, match="after 40 of 60"):
        dj.train(config, tmp_path / "cut", callbacks=[watch, stop], quiet=True)
    dj.resume_run(tmp_path / "cut", callbacks=[watch], quiet=True)
    for name in ("metrics.jsonl", "checkpoints/final.safetensors"):
        assert (whole.directory / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_a_callback_that_fails_ends_the_run_saved_before_the_report(tmp_path):
    broken = [True]

    def fails(report):
        if report.step == 50 and broken:
            raise KeyError("mine")
        return {"x": 1}

    config = tiny_config(**OFTEN)
    whole = dj.train(config, tmp_path / "whole", callbacks=[lambda report: {"x": 1}], quiet=True)
    with pytest.raises(CallbackError, match=r"fails failed after 50 steps: KeyError\('mine'\)"):
        dj.train(config, tmp_path / "cut", callbacks=[fails], quiet=True)
    assert "in fails" in (tmp_path / "cut" / "fault.txt").read_text()
    broken.clear()
    run = dj.resume_run(tmp_path / "cut", callbacks=[fails], quiet=True)
    assert (run.directory / "metrics.jsonl").read_bytes() == (whole.directory / "metrics.jsonl").read_bytes()
    steps = [newest_arrays(each)["evaluations/step"].tolist() for each in (whole, run)]
    assert steps == [[25, 50, 60]] * 2  # the one before the callback counts once


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (5, "expected metrics by name"),
        ({"seed": 1}, "named 'seed'"),
        ({3: 1}, "named 3"),
        ({"a": "b"}, "expected a number"),
        ({"a": [1.0, 2.0, 3.0]}, "one of each of 2 seeds"),
        ({"a": float("nan")}, "not finite"),
    ],
)
def test_what_cannot_be_recorded_is_refused(returned, said):
    with pytest.raises(CallbackError, match=said):
        call([lambda report: returned], REPORT, [4, 9])


def test_what_several_callbacks_return_is_one_row_of_each_seed():
    found = call([lambda r: {"a": True}, lambda r: None, lambda r: {"b": [1, 2]}], REPORT, [4, 9])
    assert found == [
        {"event": "callback", "seed": 4, "step": 40, "a": True, "b": 1},
        {"event": "callback", "seed": 9, "step": 40, "a": True, "b": 2},
    ]
    assert call([lambda r: None], REPORT, [4, 9]) == []


class Failing:
    """A logger that breaks at its second rows, and changes those it is told."""

    def __init__(self):
        self.heard = []

    def on_start(self, start):
        self.heard.append("start")

    def write(self, rows):
        self.heard.append("write")
        for row in rows:
            row.clear()
        if self.heard.count("write") == 2:
            raise OSError("the server is gone")

    def sync(self):
        return 0

    def close(self):
        self.heard.append("close")


class Keeps:
    """A logger that keeps its rows."""

    def __init__(self):
        self.rows = []

    def write(self, rows):
        self.rows += rows

    def sync(self):
        return 0

    def close(self): ...


def test_a_logger_that_fails_is_warned_of_once_and_changes_nothing(tmp_path, caplog):
    logger, after = Failing(), Keeps()
    run = dj.train(tiny_config(**OFTEN), tmp_path / "run", loggers=[logger, after], quiet=True)
    assert all("event" in row for row in after.rows)
    assert len(after.rows) > 20
    plain = dj.train(tiny_config(**OFTEN), tmp_path / "plain", quiet=True)
    assert (run.directory / "metrics.jsonl").read_bytes() == (plain.directory / "metrics.jsonl").read_bytes()
    assert logger.heard == ["start", "write", "write", "close"]
    assert [record.message for record in caplog.records if "Failing" in record.message] == [
        "warning: the logger Failing failed in write and is told nothing more: OSError('the server is gone')"
    ]


def test_what_is_no_logger_is_refused():
    with pytest.raises(ConfigError, match="no write and no sync and no close"):
        own_loggers(tiny_config(), print, [object()])
    assert isinstance(own_loggers(tiny_config(), print, [Failing()])[0], GuardedLogger)


@pytest.mark.slow
def test_a_sweep_calls_them_for_its_lanes(tmp_path):
    from ddpg_jax.training.sweep.grid import load_sweep
    from ddpg_jax.training.sweep.run import resume_sweep, run_sweep

    path, seen = tmp_path / "sweep.toml", []
    path.write_text('[grid]\n"algorithm.tau" = [0.1, 0.2]\n')
    sweep = load_sweep(path, merge(TINY, {"env": {"id": "jax:pendulum"}} | OFTEN))

    def watch(report):
        seen.append(report.step)
        return {"lane": np.arange(4.0)}

    run = run_sweep(sweep, tmp_path / "run", callbacks=[watch])
    found = rows(run.directory, "callback")
    assert [(row["combination"], row["seed"], row["lane"]) for row in found[:4]] == [
        (0, 4, 0.0),
        (0, 9, 1.0),
        (1, 4, 2.0),
        (1, 9, 3.0),
    ]
    assert len(found) == 4 * len(seen)

    def fails(report):
        if report.step == 40:
            raise KeyError("mine")
        return watch(report)

    with pytest.raises(CallbackError, match="failed after 40 steps"):
        run_sweep(sweep, tmp_path / "cut", callbacks=[fails])
    resume_sweep(tmp_path / "cut", callbacks=[watch])
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (run.directory / "metrics.jsonl").read_bytes()
