"""When a run is warned of, and when it is not: the table row by row, and real runs made ill on purpose."""

import io
import re

import pytest
from rich.console import Console
from tiny_run import read_rows

import ddpg_jax as dj
from ddpg_jax.config.schema import sections
from ddpg_jax.runs.loggers.health import LIMITS, Seen, advise
from ddpg_jax.runs.loggers.progress import ProgressDisplay

EACH = pytest.mark.parametrize("name", LIMITS)
EPISODE = {"event": "episode", "seed": 4, "step": 15, "episode_return": -20.0}


def most(name):
    """The limit of a metric in a run whose largest return is -20."""
    return LIMITS[name].most * (20 if LIMITS[name].relative else 1)


def row(name, value, seed=4, updates=5):
    return {"event": "update", "seed": seed, "step": 20, "updates": updates, "critic_loss": 1e9, name: value}


def lasting(name, value, seed=4):
    """Rows that hold a value as long as the limit asks for."""
    return [row(name, value, seed, 5), row(name, value, seed, 5 + LIMITS[name].lasting)]


@EACH
@pytest.mark.parametrize("sign", [1, -1])
def test_what_passes_its_limit_is_told_with_its_seed_and_its_remedy(name, sign):
    ill, well = lasting(name, sign * most(name) * 1.01), lasting(name, most(name) * 0.5, 9)
    lines, seen = advise([EPISODE, *ill, *well], Seen())
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: {name} = {sign * most(name) * 1.01:.3g} (seed 4), above {most(name):.3g}")
    assert lines[0].endswith(LIMITS[name].advice)
    assert seen == Seen(20.0, {(name, 4): 5}, frozenset({name}))


@EACH
def test_what_does_not_pass_it_is_not_told(name):
    rows = [EPISODE, *lasting(name, most(name)), *lasting(name, float("nan"))]
    assert advise(rows, Seen()) == ([], Seen(20.0))


@EACH
def test_each_metric_is_told_once(name):
    rows = [EPISODE, *lasting(name, most(name) * 3)]
    _, seen = advise(rows, Seen())
    others = [each for other in LIMITS if other != name for each in lasting(other, most(other) * 3)]
    lines, seen = advise(rows + others, seen)
    assert [line.split()[1] for line in lines] == [other for other in LIMITS if other != name]
    assert seen.told == LIMITS.keys()
    assert advise(rows + others, seen) == ([], seen)


@pytest.mark.parametrize(
    "tells",
    [
        {"event": "episode", "episode_return": -50.0},
        {"event": "episodes", "episodes": 3, "episode_return": 50.0},
        {"event": "evaluation", "returns": [1.0, -50.0, 2.0]},
    ],
    ids=lambda row: row["event"],
)
def test_returns_of_all_events_are_the_unit_of_relative_limits(tells):
    most = LIMITS["critic_grad_norm"].most
    ill = row("critic_grad_norm", most * 49)
    assert len(advise([ill, EPISODE], Seen())[0]) == 1
    lines, seen = advise([ill, EPISODE, {"seed": 9, "step": 20, **tells}], Seen())
    assert lines == []
    assert advise([ill], seen)[0] == []  # remembered
    assert len(advise([row("critic_grad_norm", most * 51)], seen)[0]) == 1


def test_without_a_return_relative_limits_say_nothing():
    rows = [row("critic_grad_norm", 1e9), row("q_bias", 1e9), {**EPISODE, "episode_return": 0.0}]
    assert advise(rows, Seen()) == ([], Seen())
    assert len(advise([*rows, EPISODE], Seen())[0]) == 2


def test_a_limit_that_must_last_is_not_told_of_what_passes():
    """Above after 100 updates, well after 1000, above again from 2100 on."""
    values = [(100, 0.99), (1000, 0.5), (2100, 0.99), (2500, 0.99)]
    seen = Seen()
    for updates, value in values:
        lines, seen = advise([row("saturated", value, 4, updates)], seen)
        assert lines == []
    assert advise([row("saturated", 0.99, 4, 4099)], seen)[0] == []
    assert len(advise([row("saturated", 0.99, 4, 4100)], seen)[0]) == 1
    lines, _ = advise([row("saturated", 0.99, 9, 4100)], seen)
    assert lines == []  # a streak of its own


def test_rows_without_metrics_say_nothing():
    assert advise([], Seen()) == ([], Seen())
    assert advise([{"event": "update", "seed": 4, "step": 3, "some_new_metric": 1e9}], Seen()) == ([], Seen())


def test_of_many_seeds_the_worst_are_named():
    rows = [each for seed in range(1, 8) for each in lasting("saturated", 0.98 + seed / 1000, seed)]
    (line,) = advise(rows, Seen())[0]
    assert "= 0.987 (seed 7), 0.986 (seed 6), 0.985 (seed 5), 0.984 (seed 4) and 3 seeds more, above 0.98 for" in line


@EACH
def test_advice_names_fields_that_exist(name):
    named = re.findall(r"(\w+)\.(\w+)", LIMITS[name].advice)
    assert named
    for section, field in named:
        assert any(field in model.model_fields for model in sections()[section])


# --- Real runs.


def told(tmp_path, **changes):
    """Names of the metrics that a run on Pendulum warns of, and its rows."""
    file = io.StringIO()
    run = dj.train(dj.load_config(logging={"every": 250}, **changes), tmp_path / "run", console=Console(file=file))
    names = re.findall(r"^warning: (\w+) = ", file.getvalue(), re.MULTILINE)
    assert len(set(names)) == len(names)
    return set(names), read_rows(run.directory / "metrics.jsonl")


@pytest.mark.slow
def test_a_run_that_learns_is_not_warned_of(tmp_path):
    names, rows = told(tmp_path, seeds=2, total_steps=4000)
    assert not names
    ends = [row["mean_return"] for row in rows if row["event"] == "evaluation" and row["step"] == 4000]
    assert max(ends) > -700  # it does learn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "steps", "expected"),
    [
        ({"actor_learning_rate": 0.1}, 3000, {"saturated"}),
        ({"tau": 1.0, "gamma": 1.0, "critic_learning_rate": 0.03}, 1500, {"critic_grad_norm", "q_bias"}),
    ],
    ids=["actor", "critic"],
)
def test_a_run_made_ill_is_warned_of(tmp_path, algorithm, steps, expected):
    changes = {"algorithm": algorithm, "evaluation": {"every": 500, "episodes": 2}}
    names, rows = told(tmp_path, seeds=2, total_steps=steps, **changes)
    assert expected <= names
    assert {row["event"] for row in rows} == {"episode", "update", "evaluation"}  # the record stays as it is


def test_the_display_warns_once(tmp_path):
    file = io.StringIO()
    progress = ProgressDisplay(Console(file=file))
    progress.write([row("saturated", 0.5)])
    assert not file.getvalue()
    for value in (0.99, 1.0):
        progress.write(lasting("saturated", value))
    progress.close()
    assert file.getvalue().count("\n") == 1
    assert "saturated = 0.99 (seed 4)" in file.getvalue()
