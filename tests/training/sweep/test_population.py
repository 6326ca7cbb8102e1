"""Populations: who goes on from whom, by hand; and that neither a cut nor the machinery itself changes a bit."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from stopped_sweep import stopped_after
from tiny_run import read_rows
from tiny_sweep import load_text, tiny_text

from ddpg_jax.cli.main import main
from ddpg_jax.cli.tables import ranking_table
from ddpg_jax.config.load import load_config
from ddpg_jax.config.sweep_file import Draw
from ddpg_jax.equations.rewards import ReturnMoments
from ddpg_jax.errors import ConfigError, StorageError
from ddpg_jax.training.device import compile as compiled
from ddpg_jax.training.device.carry import Lane, copy_lanes
from ddpg_jax.training.sweep.population import (
    corners,
    count_replaced,
    lane_copies,
    perturb,
    select_parents,
    trace_schedule,
)
from ddpg_jax.training.sweep.ranking import Ranking
from ddpg_jax.training.sweep.run import resume_sweep, run_sweep

RANDOM = """[random]
algorithm.critic_learning_rate = { low = 1e-4, high = 1e-2, log = true }
exploration.sigma = { low = 0.1, high = 0.5 }
"""
TINY = "draws = 4\ndraw_seed = 3" + tiny_text(total_steps=90, log_every=30) + RANDOM
POPULATION = "[population]\nevery = 30\nreplace = 0.5\nresample = 0.5\n"


def load(folder, text=TINY + POPULATION, **overrides):
    return load_text(folder, text, **overrides)


def refusal(folder, text, **overrides):
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **overrides)
    return str(caught.value)


# By hand.


def test_the_worst_go_on_from_the_best():
    scores = np.array([3.0, np.nan, 5.0, 1.0, 4.0, 2.0])
    draws = np.array([0.0, 0.0, 0.0, 0.9, 0.0, 0.9])
    assert select_parents(scores, 1, draws).tolist() == [0, 2, 2, 3, 4, 5]  # NaN is the worst, 5 the best
    assert select_parents(scores, 2, draws).tolist() == [0, 2, 2, 4, 4, 5]  # best: 2, 4; 3 draws the second
    assert select_parents(scores, 3, draws).tolist() == [0, 2, 2, 0, 4, 0]  # best: 2, 4, 0; 3 and 5 draw the third
    assert select_parents(scores, 0, draws).tolist() == [0, 1, 2, 3, 4, 5]


def test_no_member_goes_on_from_one_that_is_no_better_or_has_no_score():
    draws = np.full(4, 0.99)
    assert select_parents(np.array([2.0, 2.0, 2.0, 2.0]), 2, draws).tolist() == [0, 1, 2, 3]
    assert select_parents(np.array([np.nan, np.nan, np.nan, 7.0]), 2, draws).tolist() == [0, 3, 3, 3]
    assert select_parents(np.full(4, np.nan), 2, draws).tolist() == [0, 1, 2, 3]


def test_the_share_that_is_replaced_is_one_member_at_least_and_half_at_most():
    assert [count_replaced(replace, 16) for replace in (0, 0.01, 0.25, 0.3, 0.5)] == [0, 1, 4, 5, 8]
    assert [count_replaced(0.5, members) for members in (2, 3, 5)] == [1, 1, 2]


def test_settings_are_multiplied_or_drawn_anew_within_their_bounds():
    values, place = np.array([0.01, 0.01, 0.09, 0.01]), np.full(4, 0.5)
    which, anew = np.array([0.2, 0.7, 0.7, 0.2]), np.array([0.5, 0.5, 0.5, 0.1])
    found = perturb(values, Draw(low=0.001, high=0.1, log=True), (0.8, 1.25), 0.25, np.stack([which, anew, place]))
    np.testing.assert_allclose(found, [0.008, 0.0125, 0.1, 0.01], rtol=1e-12)  # the last: drawn, the geometric middle
    found = perturb(values, Draw(low=0.009, high=0.1), (0.8, 1.25), 0.25, np.stack([which, anew, place]))
    np.testing.assert_allclose(found, [0.009, 0.0125, 0.1, 0.0545], rtol=1e-12)


def test_each_seed_of_a_member_goes_on_from_the_same_seed_and_padding_from_the_last():
    lanes = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    children, parents = lane_copies(lanes, 8, np.array([0, 0, 0]))
    assert (children.tolist(), parents.tolist()) == ([2, 3, 4, 5, 6, 7], [0, 1, 0, 1, 1, 1])
    children, parents = lane_copies(lanes, 8, np.array([2, 1, 2]))
    assert (children.tolist(), parents.tolist()) == ([0, 1], [4, 5])


def test_a_schedule_is_traced_through_those_that_a_member_went_on_from():
    first = [{"x": 1.0}, {"x": 2.0}, {"x": 3.0}]
    lineage = [
        {"step": 10, "combination": 0, "parent": 2, "after": {"x": 3.5}},
        {"step": 20, "combination": 1, "parent": 0, "after": {"x": 4.0}},
        {"step": 30, "combination": 0, "parent": 2, "after": {"x": 9.0}},
    ]
    steps = [(part["step"], part["combination"], part["values"]["x"]) for part in trace_schedule(lineage, first, 1)]
    assert steps == [(0, 2, 3.0), (10, 0, 3.5), (20, 1, 4.0)]
    assert trace_schedule(lineage, first, 2) == [{"step": 0, "combination": 2, "values": {"x": 3.0}}]


def test_the_bounds_are_tried_one_by_one_and_in_pairs():
    each = corners({name: Draw(low=0, high=1) for name in "abc"})
    assert [tuple(values.values()) for values in each] == [
        (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)
    ]  # fmt: skip


def lanes_of(count):
    """Lanes whose every leaf says which they are, with what an addition of zeros would change."""
    numbers = jnp.arange(count, dtype=jnp.float32)
    moments = ReturnMoments(numbers[:, None], numbers, -0.0 * numbers, jnp.where(numbers == 1, jnp.nan, numbers))
    bits = (numbers > 2)[:, None]
    parts = dict.fromkeys(Lane._fields, numbers) | {"store": {"rows": numbers, "seen": bits}, "rewards": moments}
    return Lane(**parts)


@pytest.mark.parametrize("whole", [True, False])
def test_lanes_are_copied_to_the_bit_over_two_devices(whole):
    mesh = compiled.lane_mesh(4)
    assert mesh.shape["seed"] == 2
    by_lane = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seed"))
    before = jax.device_put(lanes_of(4), by_lane)
    copy = jax.jit(copy_lanes, static_argnames="whole", out_shardings=by_lane)
    after = copy(before, np.int32([0, 2]), np.int32([3, 1]), whole=whole)
    expected = jax.tree.map(lambda x: np.asarray(x)[[3, 1, 1, 3]], before)
    if not whole:
        rewards = expected.rewards._replace(returns=before.rewards.returns)
        expected = before._replace(learner=expected.learner, rewards=rewards)
    assert [x.tobytes() for x in map(np.asarray, jax.tree.leaves(after))] == [
        x.tobytes() for x in map(np.asarray, jax.tree.leaves(expected))
    ]


# What is refused.


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("every = 30\nreplace", "every = 40\nreplace", "population.every = 40 is no multiple of evaluation.every = 30"),
        ("every = 30\nreplace", "every = 90\nreplace", "no member is replaced before total_steps = 90"),
        ("evaluation.every = 30", "evaluation.every = 0", "is no multiple of evaluation.every = 0"),
        ("replace = 0.5", "replace = 0.6", "population.replace: Input should be less than or equal to 0.5"),
        ("replace = 0.5", "perturb = []", "population.perturb: Tuple should have at least 1 item"),
        ("replace = 0.5", "replase = 0.5", "population.replase: unknown key; did you mean replace?"),
        ("draws = 4", "draws = 1", "draws = 1: a population has two members at least"),
        (
            "[random]",
            "[grid]\nalgorithm.tau = [0.1]\n[random]",
            "the settings of a population are drawn",
        ),
        ("exploration.sigma", "algorithm.updates_per_step", "algorithm.updates_per_step is structure"),
        ("high = 0.5", "high = 10.5", "at the bounds of [random]: mistakes in the combinations:"),
    ],
)
def test_what_cannot_be_a_population_is_refused_in_a_line(tmp_path, old, new, message):
    text = TINY + POPULATION
    assert text.count(old) == 1
    assert message in refusal(tmp_path, text.replace(old, new))


def test_engines_and_gymnasium_are_refused(tmp_path, capsys):
    path = tmp_path / "sweep.toml"
    path.write_text(TINY + POPULATION)
    assert main(["sweep", str(path), "--engine", "local", "--run-dir", str(tmp_path / "run")]) == 2
    path.write_text(TINY + POPULATION + "[stop]\n")
    assert main(["sweep", str(path), "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.count("a population is lanes of one program: leave out [search], [stop]") == 2
    said = refusal(tmp_path, TINY + POPULATION, env={"id": "Pendulum-v1"})
    assert "a population runs environments written in JAX, as jax:pendulum; env.id = 'Pendulum-v1' is not one" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_population_that_does_not_fit_into_memory_at_once_is_refused(tmp_path, monkeypatch):
    """Room for the 8 lanes, but not for the 4 that are copied at a time; without their replays there is."""
    monkeypatch.setattr(compiled, "memory_bytes", lambda compiled, lanes: lanes * 2**10)
    monkeypatch.setattr(compiled, "available_bytes", lambda: 2 * 8 * 2**10)
    with pytest.raises(ConfigError, match=r"12 lanes that may not run in turns, with replay"):
        run_sweep(load(tmp_path), tmp_path / "run")
    text = TINY + POPULATION + "replay = false\n"
    with stopped_after(1):
        assert not run_sweep(load(tmp_path, text), tmp_path / "without").result["complete"]


# Runs.


class Hashes(list):
    """A callback: a hash of the learner of all lanes at each chunk that is at its end, with its step."""

    def __call__(self, report):
        parts = [np.asarray(x)[:8].tobytes() for x in jax.tree.leaves(report.state)]
        self.append((report.step, hashlib.sha256(b"".join(parts)).hexdigest()))
        return {}


def left(run):
    """What a sweep has left that its settings determine."""
    assert run.result["complete"]
    files = {name: (run.directory / name).read_bytes() for name in ("metrics.jsonl", "lineage.jsonl")}
    return files, *(run.result[name] for name in ("combinations", "population", "importance"))


SAVING = {"checkpoint": {"every": 15, "min_seconds": 0}}


@pytest.fixture(scope="module", params=["whole", pytest.param("learner", marks=pytest.mark.slow)])
def clean(request, tmp_path_factory):
    """Folder and text of a sweep, what it leaves when it is not interrupted, and the hashes of its learners."""
    folder, seen = tmp_path_factory.mktemp("clean"), Hashes()
    text = TINY + POPULATION + ("replay = false\n" if request.param == "learner" else "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ddpg_jax.runs.importance.LEAST_SETTINGS", 2)
        run = run_sweep(load(folder, text, **SAVING), folder / "run", callbacks=[seen])
    return folder, text, left(run), dict(seen)


def test_replacing_none_changes_no_bit(tmp_path):
    text, hashes = TINY + "[population]\nevery = 30\nreplace = 0\n", (Hashes(), Hashes())
    first = run_sweep(load(tmp_path, text), tmp_path / "with", callbacks=[hashes[0]])
    second = run_sweep(load(tmp_path, TINY), tmp_path / "without", callbacks=[hashes[1]])
    assert hashes[0] == hashes[1]
    assert len({sha for _, sha in hashes[0]}) == len(hashes[0]) == 3
    for name in ("metrics.jsonl", "best.toml"):
        assert (first.directory / name).read_bytes() == (second.directory / name).read_bytes()
    assert first.result["combinations"] == second.result["combinations"]
    assert (first.directory / "lineage.jsonl").read_bytes() == b""
    assert not (second.directory / "lineage.jsonl").exists()


def test_members_go_on_from_their_parents(clean):
    """At each ranking two of four are replaced, with the scores that the record has; nobody else changes."""
    folder, _, (files, combinations, population, importance), _ = clean
    lineage = [json.loads(line) for line in files["lineage.jsonl"].splitlines()]
    rows = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    means = {(r["step"], r["combination"], r["seed"]): r["mean_return"] for r in rows if r["event"] == "evaluation"}
    assert [row["step"] for row in lineage] == [30, 30, 60, 60]
    for row in lineage:
        scores = [np.mean([means[row["step"], number, seed] for seed in (4, 9)]) for number in range(4)]
        ranked = sorted(range(4), key=lambda number: -scores[number])
        assert row["parent"] in ranked[:2]
        assert row["combination"] in ranked[2:]
        told = row["score"], row["parent_score"]
        np.testing.assert_allclose(told, [scores[row["combination"]], scores[row["parent"]]])
        assert 1e-4 <= row["after"]["algorithm.critic_learning_rate"] <= 1e-2
    last = {row["combination"]: row["after"] for row in lineage}
    values = {entry["combination"]: entry["values"] for entry in combinations}
    assert all(values[number] == after for number, after in last.items())
    best = combinations[0]
    assert population["replacements"] == 4
    assert importance == {}
    assert population["schedule"][-1]["values"] == best["values"]
    config = load_config(folder / "run" / "best.toml")
    assert config.algorithm.critic_learning_rate == best["values"]["algorithm.critic_learning_rate"]
    assert config.exploration.sigma == best["values"]["exploration.sigma"]


def test_a_copy_is_its_parent_where_it_is_made(clean, tmp_path):
    """With nothing perturbed, a child learns what its parent does, if it has its replay and environments too."""
    text = clean[1].replace("resample = 0.5", "resample = 0.0\nperturb = [1.0]")
    run = run_sweep(load(tmp_path, text), tmp_path / "run")
    lineage = read_rows(run.directory / "lineage.jsonl")
    rows = read_rows(run.directory / "metrics.jsonl")
    means = {(r["step"], r["combination"], r["seed"]): r["returns"] for r in rows if r["event"] == "evaluation"}
    assert [row["step"] for row in lineage][:2] == [30, 30]
    for row in lineage:
        for seed in (4, 9):
            same = means[row["step"] + 30, row["combination"], seed] == means[row["step"] + 30, row["parent"], seed]
            assert same == ("replay = false" not in text)  # else it learned from other transitions


@pytest.mark.parametrize("cuts", [(2, 1, 9), pytest.param((1,) * 6, marks=pytest.mark.slow)], ids=["two", "every"])
def test_a_population_that_is_cut_goes_on_to_the_bit(clean, tmp_path, cuts):
    """Chunks end at the multiples of 15: it is cut at a ranking and right after one, or at every chunk."""
    _, text, whole, hashes = clean
    seen = Hashes()
    for chunks in cuts:
        with stopped_after(chunks):
            run = run_sweep(load(tmp_path, text, **SAVING), tmp_path / "run", resume="auto", callbacks=[seen])
    assert left(run) == whole
    assert dict(seen) == hashes


def test_a_population_that_dies_goes_on_from_its_last_checkpoint(clean, tmp_path, monkeypatch):
    """It dies at the end; the checkpoint is of step 45, and the members that were replaced at 60 are again."""
    _, text, whole, _ = clean
    saving = {"checkpoint": {"every": 45, "min_seconds": 0}}

    def die(self, report):
        if report.step == 90:
            raise KeyboardInterrupt
        return mark_failed(self, report)

    mark_failed = Ranking.mark_failed
    monkeypatch.setattr(Ranking, "mark_failed", die)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(load(tmp_path, text, **saving), tmp_path / "run")
    monkeypatch.setattr(Ranking, "mark_failed", mark_failed)
    assert len(read_rows(tmp_path / "run" / "lineage.jsonl")) == 4
    with (tmp_path / "run" / "lineage.jsonl").open("a") as file:
        file.write('{"step": 9')
    assert left(resume_sweep(tmp_path / "run")) == whole


@pytest.mark.slow
def test_a_population_that_is_killed_anywhere_ends_with_the_same_lineage(tmp_path):
    """SIGKILL of a program of its own, at random moments after it has written so many lines of the lineage."""
    path, rng = tmp_path / "sweep.toml", random.Random(0)  # noqa: S311  moments, no secrets
    more = "total_steps = 1500\ncheckpoint.every = 50\ncheckpoint.min_seconds = 0"
    path.write_text((TINY + POPULATION).replace("total_steps = 90", more))

    def start(name):
        words = [sys.executable, "-m", "ddpg_jax", "sweep", str(path), "--run-dir", str(tmp_path / name), "--quiet"]
        kept = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
        return subprocess.Popen([*words, "--resume", "auto"], env=kept, stdout=subprocess.DEVNULL)

    def lines(name):
        lineage = tmp_path / name / "lineage.jsonl"
        return lineage.read_bytes().count(b"\n") if lineage.exists() else 0

    assert start("clean").wait(300) == 0
    assert lines("clean") > 50
    for target in sorted(rng.sample(range(lines("clean") - 10), 4)):
        program = start("killed")
        while program.poll() is None and lines("killed") <= target:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.2))
        program.kill()
        assert program.wait() == -signal.SIGKILL
    assert start("killed").wait(300) == 0
    for name in ("lineage.jsonl", "metrics.jsonl", "best.toml"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()


def test_a_member_that_diverges_goes_on_from_a_good_one(tmp_path):
    sweep = load(tmp_path, algorithm={"max_rejected": 5})
    sweep.combinations[1]["algorithm.critic_learning_rate"] = 1e38
    run = run_sweep(sweep, tmp_path / "run")
    lineage = read_rows(run.directory / "lineage.jsonl")
    child = next(row for row in lineage if row["combination"] == 1)
    assert (child["step"], child["score"]) == (30, None)
    assert all(entry["diverged_seeds"] == 0 for entry in run.result["combinations"])
    assert all(entry["interquartile_mean"] is not None for entry in run.result["combinations"])


def test_another_population_in_the_directory_is_refused(tmp_path):
    with stopped_after(3):
        run = run_sweep(load(tmp_path, **SAVING), tmp_path / "run")
    for text in (TINY, TINY + POPULATION.replace("resample = 0.5", "resample = 0.25")):
        with pytest.raises(ConfigError, match=r"a sweep of another \[population\]"):
            run_sweep(load(tmp_path, text, **SAVING), tmp_path / "run", resume="auto")
    path = run.directory / "sweep.toml"
    path.write_text(path.read_text().replace("resample = 0.5", "resample = 0.25"))
    with pytest.raises(StorageError, match=r"of another sweep: sweep\.toml was changed"):
        resume_sweep(tmp_path / "run")


def test_a_lineage_that_was_changed_is_refused(tmp_path, capsys):
    with stopped_after(4):
        run = run_sweep(load(tmp_path, **SAVING), tmp_path / "run")
    assert main(["verify", str(run.directory)]) == 0
    path = run.directory / "lineage.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"parent": ', b'"parent":9', 1))
    assert main(["verify", str(run.directory)]) == 5
    assert "lineage.jsonl up to there:  BROKEN" in capsys.readouterr().out
    with pytest.raises(StorageError, match=r"lineage\.jsonl is not what it was when the run was saved"):
        resume_sweep(run.directory)


def test_the_table_says_that_the_members_are_not_independent(clean):
    result = {"env": "jax:pendulum", "seeds": [4, 9], "combinations": clean[2][1], "population": clean[2][2]}
    console = Console(record=True, width=80)
    console.print(ranking_table(result))
    shown = " ".join(console.export_text().split())
    assert "members of a population are not independent" in shown
    assert "train best.toml again with fresh seeds" in shown
    console.print(ranking_table({name: value for name, value in result.items() if name != "population"}))
    assert "independent" not in console.export_text()
