"""What is shown while a run goes on: whole on 80 columns, moving while it compiles, brief in Python."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from tiny_run import config_of, tiny_config

import ddpg_jax as dj
from ddpg_jax.runs.loggers.logger import Start, Status
from ddpg_jax.runs.loggers.progress import ProgressDisplay

START = Start(Path("runs/a"), "Pendulum-v1, ddpg", 1_500_000, tuple(range(16)), 500_000)
STATUS = Status(1_000_000, 9, 1.0, {}, {"env_steps_per_second": 16e3, "updates_per_second": 1.0}, -1234.5, ())
ROW = {"event": "episode", "seed": 0, "step": 1, "episode_return": -1234.5}


@pytest.fixture
def screen():
    """A terminal of 80 columns, and what it shows, without escapes, as lines."""
    file = io.StringIO()

    def lines():
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
        return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]

    return Console(file=file, force_terminal=True, width=80), lines


def test_the_bar_shows_all_figures_on_80_columns_and_begins_where_the_run_is(screen):
    console, lines = screen
    display = ProgressDisplay(console)
    display.on_start(START)
    display.write([ROW])
    display.on_report(STATUS)
    display.close()
    assert max(map(len, lines())) <= 80
    assert {"Pendulum-v1, ddpg: 16 seeds, 1500000 steps each from step 500000", "files in runs/a"} < set(lines())
    assert re.search(r"1000k/1500k  return -1234\.5  eval -1234\.5  1000 steps/s x 16  8:20 left$", lines()[-1])
    assert display._bar.tasks[0].completed == 1_000_000


def test_a_resumed_run_begins_its_bar_where_it_is(screen):
    display = ProgressDisplay(screen[0])
    display.on_start(START)
    assert (display._bar.tasks[0].completed, display._bar.tasks[0].total) == (500_000, 1_500_000)
    display.close()


def test_the_clock_moves_while_it_compiles(screen):
    console, lines = screen
    display = ProgressDisplay(console)
    now = display._bar.get_time()
    display._bar.get_time = lambda: now + 75
    for task in display._bar.tasks:
        task._get_time = display._bar.get_time
    display._bar.refresh()
    display.close()
    assert any("compiling 1:15" in line for line in lines())


def test_lines_of_a_run_in_python(tmp_path, capsys):
    run = dj.train(tiny_config(), tmp_path / "run")
    first, where, *evaluations = capsys.readouterr().out.splitlines()
    assert (first, where) == ("Pendulum-v1, ddpg: 2 seeds, 60 steps each", f"files in {tmp_path / 'run'}")
    assert [re.match(r"step (\d+)/60: evaluation -\d+\.\d after \d+:\d\d", line)[1] for line in evaluations] == [
        *("25", "50", "60")
    ]
    assert evaluations[-1].endswith(", done")
    assert len(repr(run).splitlines()) == 3
    assert len(repr(run)) < 500
    assert str(run.directory) in repr(run)
    dj.train(config_of(), tmp_path / "quiet", quiet=True)
    assert capsys.readouterr().out == ""


def test_a_logger_of_ones_own_is_told_of_a_run_and_closed(tmp_path):
    class Own:
        def __init__(self):
            self.rows, self.steps, self.told, self.synced = [], [], [], 0

        def on_start(self, start):
            self.told.append((start.step, start.total_steps, start.seeds))

        def write(self, rows):
            self.rows += rows

        def on_report(self, status):
            self.steps.append(status.step)

        def sync(self):
            self.synced += 1
            return 0

        def close(self):
            self.told.append("closed")

    own = Own()
    run = dj.train(tiny_config(), tmp_path / "run", loggers=[own])
    assert own.told == [(0, 60, (4, 9)), "closed"]
    assert own.steps == [20, 25, 40, 50, 60]
    assert own.synced >= 1
    lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    assert len(own.rows) == len(lines)
