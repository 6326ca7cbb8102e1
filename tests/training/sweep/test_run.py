"""A sweep run: its lanes equal runs of their own, memory makes turns, and what diverges disturbs nobody."""

import json
import signal
import tomllib
from contextlib import contextmanager

import jax.numpy as jnp
import numpy as np
import plain_sink
import pytest
import tomli_w
from rich.console import Console
from stopped_sweep import stopped_after
from tiny_run import read_rows
from tiny_sweep import GRID, load_text, tiny_text

import ddpg_jax as dj
from ddpg_jax.cli.main import main
from ddpg_jax.cli.tables import ranking_table
from ddpg_jax.envs.device.pendulum import pendulum
from ddpg_jax.errors import ConfigError, EnvironmentFault, Interrupted, StorageError
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.training.device import compile as compiled
from ddpg_jax.training.sweep import batches, recorder
from ddpg_jax.training.sweep.grid import load_sweep
from ddpg_jax.training.sweep.ranking import Ranking
from ddpg_jax.training.sweep.run import resume_sweep, run_sweep

TINY = tiny_text()


def load(folder, text=TINY + GRID, **overrides):
    return load_text(folder, text, **overrides)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    return run_sweep(load(folder), folder / "run")


def evaluations(directory):
    """Returns by (lane, seed, step)."""
    rows = read_rows(directory / "metrics.jsonl")
    return {(r["combination"], r["seed"], r["step"]): r["returns"] for r in rows if r["event"] == "evaluation"}


def test_every_combination_is_ranked_with_every_seed(swept):
    entries = swept.result["combinations"]
    scores = [entry["interquartile_mean"] for entry in entries]
    assert scores == sorted(scores, reverse=True)
    assert sorted(entry["combination"] for entry in entries) == [0, 1, 2, 3]
    assert all(len(entry["per_seed"]) == 2 and entry["step"] == 60 for entry in entries)
    assert swept.result["complete"]
    assert swept.result["seeds"] == [4, 9]
    stored = json.loads((swept.directory / "result.json").read_text())["combinations"]
    assert stored == json.loads(json.dumps(entries))
    assert (swept.directory / "ranking.png").stat().st_size > 1000


def test_a_lane_equals_a_run_of_its_own(swept, tmp_path):
    found = evaluations(swept.directory)
    sweep = load(tmp_path)
    for number in (0, 3):
        run = dj.train(sweep.configs[number], tmp_path / f"run-{number}")
        rows = [row for row in read_rows(run.directory / "metrics.jsonl") if row["event"] == "evaluation"]
        assert len(rows) == 4
        for row in rows:
            np.testing.assert_allclose(found[number, row["seed"], row["step"]], row["returns"], rtol=1e-4)


def test_combinations_differ_by_what_they_set(swept):
    finals = [tuple(evaluations(swept.directory)[number, 4, 60]) for number in range(4)]
    assert len(set(finals)) == 4


def test_the_best_is_a_configuration_ready_to_train(swept, tmp_path):
    best = swept.result["combinations"][0]
    config = dj.load_config(swept.directory / "best.toml")
    assert config.algorithm.critic_learning_rate == best["values"]["algorithm.critic_learning_rate"]
    assert config.exploration.sigma == best["values"]["exploration.sigma"]
    assert config == load(tmp_path).configs[best["combination"]]


@pytest.mark.slow
def test_lanes_that_do_not_fit_run_in_turns_with_the_same_results(swept, tmp_path, monkeypatch):
    sizes = []
    compile_program = compiled.compile_program

    def noted(config, env, keys, *rest):
        sizes.append(len(keys))
        return compile_program(config, env, keys, *rest)

    def free():
        """Enough for one lane on each of two devices."""
        return 2 * 8 * 2**10

    monkeypatch.setattr("ddpg_jax.training.sweep.batches.compile_program", noted)
    monkeypatch.setattr(
        compiled, "memory_bytes", lambda compiled, lanes: lanes // 2 * 8 * 2**10
    )  # on each of two devices
    monkeypatch.setattr(compiled, "available_bytes", free)
    console = Console(record=True, width=200)
    run = run_sweep(load(tmp_path), tmp_path / "run", console=console)
    assert sizes == [8, 2]  # four turns of two lanes
    assert "at most 2 fit into the 8.2 kB that are free: so they run in 4 turns" in console.export_text()
    ours, theirs = evaluations(run.directory), evaluations(swept.directory)
    assert ours.keys() == theirs.keys()
    for lane, returns in ours.items():
        np.testing.assert_allclose(returns, theirs[lane], rtol=1e-4)


def test_a_lane_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "available_bytes", lambda: 1000)
    with pytest.raises(ConfigError, match=r"one lane with replay.capacity=100 needs .* kB, 500 B are free"):
        run_sweep(load(tmp_path), tmp_path / "run")


def test_a_diverged_combination_ranks_last_and_disturbs_nobody(swept, tmp_path):
    sweep = load(tmp_path)
    (group,) = sweep.groups
    group.hyper["algorithm.critic_learning_rate"][1] = np.inf
    run = run_sweep(sweep, tmp_path / "run")
    *others, last = run.result["combinations"]
    assert (last["combination"], last["interquartile_mean"], last["diverged_seeds"]) == (1, None, 2)
    before = {entry["combination"]: entry["per_seed"] for entry in swept.result["combinations"]}
    assert {entry["combination"]: entry["per_seed"] for entry in others} == {i: before[i] for i in (0, 2, 3)}
    assert run.result["complete"]
    json.loads((run.directory / "result.json").read_text(), parse_constant=pytest.fail)
    assert not any(number == 1 for number, _, step in evaluations(run.directory) if step == 60)


def test_an_environment_that_breaks_is_named_after_the_results_are_written(swept, tmp_path, monkeypatch):
    """Rewards turn NaN; the metrics follow in the same chunk, but it is the environment that is named."""

    def breaking(config):
        env = pendulum()

        def step(state, action, key):
            state, result = env.step(state, action, key)
            return state, result._replace(reward=jnp.where(state.steps > 10, jnp.nan, result.reward))

        return env._replace(step=step)

    monkeypatch.setattr("ddpg_jax.training.sweep.run.device_env", breaking)
    with pytest.raises(EnvironmentFault, match="not finite, in every combination"):
        run_sweep(load(tmp_path), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [(e["faulty_seeds"], e["diverged_seeds"]) for e in result["combinations"]] == [(2, 0)] * 4
    assert not (tmp_path / "run" / "ranking.png").exists()


def test_the_sweep_is_kept_beside_its_result(swept, tmp_path):
    again = load_sweep(swept.directory / "sweep.toml")
    assert (again.combinations, again.configs) == load(tmp_path)[:2]


def test_what_the_base_says_of_a_swept_field_is_not_kept(tmp_path):
    (tmp_path / "base.toml").write_text(TINY.replace("[config]\n", ""))
    text = 'base = "base.toml"\n[grid]\nalgorithm.hidden = [[8], [16]]\n'
    sweep = load(tmp_path, text)
    (tmp_path / "again.toml").write_text(tomli_w.dumps(sweep.source))
    assert load_sweep(tmp_path / "again.toml")[:2] == sweep[:2]


def test_nothing_is_removed_for_a_sweep_that_cannot_run(swept, tmp_path):
    with pytest.raises(ConfigError, match="did you mean jax:pendulum"):
        run_sweep(load(tmp_path, env={"id": "jax:pendulm"}), swept.directory, overwrite=True)
    assert (swept.directory / "result.json").exists()


def test_structure_runs_group_by_group(tmp_path):
    run = run_sweep(load(tmp_path, TINY + "[grid]\nalgorithm.n_step = [1, 2]\n"), tmp_path / "run")
    assert [entry["step"] for entry in run.result["combinations"]] == [60, 60]
    assert {entry["values"]["algorithm.n_step"] for entry in run.result["combinations"]} == {1, 2}


@contextmanager
def two_at_a_time():
    """Memory for two lanes: the eight run in four turns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "memory_bytes", lambda compiled, lanes: lanes * 2**10)
        patch.setattr(compiled, "available_bytes", lambda: 2 * 2**10)
        patch.setattr("ddpg_jax.training.sweep.batches.lane_mesh", lambda lanes, shared: compiled.lane_mesh(1, shared))
        yield


SAVING = {"checkpoint": {"every": 10, "min_seconds": 0}}


def left(run):
    """What a sweep has left that its settings determine."""
    assert run.result["complete"]
    assert not (run.directory / "checkpoints").exists()
    filesystem = [(run.directory / name).read_bytes() for name in ("metrics.jsonl", "best.toml", "sweep.toml")]
    return filesystem, json.loads((run.directory / "result.json").read_text())["combinations"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """What the sweep leaves that is not interrupted."""
    folder = tmp_path_factory.mktemp("clean")
    return left(run_sweep(load(folder, **SAVING), folder / "run"))


@pytest.fixture(scope="module")
def clean_in_turns(tmp_path_factory):
    """Likewise, in four turns."""
    folder = tmp_path_factory.mktemp("turns")
    with two_at_a_time():
        return left(run_sweep(load(folder, **SAVING), folder / "run"))


def test_an_interrupted_sweep_shows_what_it_reached(tmp_path):
    with stopped_after(1):
        run = run_sweep(load(tmp_path), tmp_path / "run")
    assert not run.result["complete"]
    assert {entry["step"] for entry in run.result["combinations"]} == {20}
    assert all(entry["interquartile_mean"] is not None for entry in run.result["combinations"])
    assert (run.directory / "ranking.png").exists()
    assert not (run.directory / "best.toml").exists()


@pytest.mark.slow
def test_of_an_interrupted_sweep_what_was_finished_keeps_its_interval_and_what_was_not_begun_says_so(tmp_path):
    """Two structures: the first is finished, the second was not begun; a second start compiles the second only."""
    text, compiled_for = TINY + "[grid]\nalgorithm.n_step = [1, 2]\n", []
    with stopped_after(6):
        run = run_sweep(load(tmp_path, text, **SAVING), tmp_path / "run")
    first, second = run.result["combinations"]
    assert (run.result["finished"], first["step"], second["step"]) == ([0], 60, 0)
    console = Console(record=True, width=80)
    console.print(ranking_table(run.result))
    shown = console.export_text()
    assert f"[{first['interval'][0]:.1f}, {first['interval'][1]:.1f}]" in shown
    assert shown.count("not begun") == 1
    with pytest.MonkeyPatch.context() as patch:
        compile_program = compiled.compile_program
        patch.setattr(
            "ddpg_jax.training.sweep.batches.compile_program",
            lambda config, *rest: compiled_for.append(config.algorithm.n_step) or compile_program(config, *rest),
        )
        again = resume_sweep(tmp_path / "run")
    assert compiled_for == [2]
    assert again.result["finished"] == [0, 1]
    assert left(again) == left(run_sweep(load(tmp_path, text, **SAVING), tmp_path / "clean"))


def test_a_sweep_that_is_stopped_before_it_begins_leaves_nothing(tmp_path):
    with stopped_after(0), pytest.raises(Interrupted, match="before it began"):
        run_sweep(load(tmp_path, **SAVING), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_interrupted_sweep_goes_on_to_the_bit(clean, tmp_path):
    """Chunks end after 10, 20, 30, 40, 50 and 60 steps; after 10 and 50 nothing is recorded."""
    with stopped_after(1):
        run = run_sweep(load(tmp_path, **SAVING), tmp_path / "run")
    for chunks in (1, 2):
        assert not run.result["complete"]
        with stopped_after(chunks):
            run = resume_sweep(tmp_path / "run")
    assert not run.result["complete"]
    assert left(resume_sweep(tmp_path / "run")) == clean


def stopping(call, number):
    """The function, with a signal when it is called for that time, counted from 1."""
    calls = iter(range(1, 1000))

    def with_signal(*arguments):
        if next(calls) == number:
            signal.raise_signal(signal.SIGTERM)
        return call(*arguments)

    return with_signal


@pytest.mark.slow
def test_a_sweep_that_was_stopped_in_an_evaluation_goes_on_to_the_bit(clean, tmp_path, monkeypatch):
    """Of the two evaluations the first is begun three times, the last twice; neither is waited for."""
    fetch = batches.fetch
    monkeypatch.setattr(recorder, "LAST_SECONDS", -1.0)
    for number, step, judged in ((1, 30, 0), (1, 30, 0), (2, 60, 30)):
        monkeypatch.setattr(batches, "fetch", stopping(fetch, number))
        run = run_sweep(load(tmp_path, **SAVING), tmp_path / "run", resume="auto")
        assert not run.result["complete"]
        assert {entry["step"] for entry in run.result["combinations"]} == {judged}
        assert CheckpointStore(run.directory / "checkpoints").newest()[0].step == step
    monkeypatch.setattr(batches, "fetch", fetch)
    assert left(resume_sweep(tmp_path / "run")) == clean


def test_a_sweep_that_is_stopped_is_saved_before_what_it_reached_is_judged(tmp_path, monkeypatch):
    """That may take seconds, in which it may be killed."""
    fetch, saved = batches.fetch, []

    def judge(*arguments):
        saved.append([path.name for path in (tmp_path / "run" / "checkpoints").glob("*-step-*")])
        return fetch(*arguments)

    monkeypatch.setattr(batches, "fetch", judge)
    with stopped_after(1):
        run_sweep(load(tmp_path, **SAVING), tmp_path / "run")
    assert saved == [["00000001-step-10"]]


def test_a_stop_does_not_wait_for_a_long_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "LAST_SECONDS", -1.0)
    with stopped_after(1):
        run = run_sweep(load(tmp_path), tmp_path / "run")
    assert not run.result["complete"]
    assert all(entry["interquartile_mean"] is None for entry in run.result["combinations"])


@pytest.mark.slow
@pytest.mark.parametrize("turn", [1, 2])
def test_a_sweep_that_was_stopped_while_a_turn_was_compiled_goes_on_to_the_bit(turn, tmp_path, monkeypatch):
    """Two structures, each compiled by itself."""
    text, compile_all = TINY + "[grid]\nalgorithm.n_step = [1, 2]\n", compiled.compile_all
    monkeypatch.setattr(compiled, "compile_all", stopping(compile_all, turn))
    run = run_sweep(load(tmp_path, text, **SAVING), tmp_path / "run")
    assert run.result["finished"] == [0][: turn - 1]
    monkeypatch.setattr(compiled, "compile_all", compile_all)
    assert left(resume_sweep(run.directory)) == left(run_sweep(load(tmp_path, text, **SAVING), tmp_path / "clean"))


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [6, 20, 24])
def test_a_sweep_goes_on_in_the_turn_it_was_in(clean_in_turns, tmp_path, chunks):
    """Each turn has six chunks: the first is cut at its end, the last in its midst and at its end."""
    console = Console(record=True, width=200)
    with two_at_a_time():
        with stopped_after(chunks):
            run = run_sweep(load(tmp_path, **SAVING), tmp_path / "run")
        assert run.result["complete"] == (chunks == 24)
        assert left(resume_sweep(tmp_path / "run", console)) == clean_in_turns
    said = "is complete" if chunks == 24 else f"resumes after {chunks * 10} steps, all turns added up"
    assert said in console.export_text()


def test_a_sweep_that_was_cut_off_goes_on_from_its_last_checkpoint(clean, tmp_path, monkeypatch):
    def cut(self, *args):
        if self.arrays["step"].max() == 30:
            raise KeyboardInterrupt
        return mark_failed(self, *args)

    mark_failed = Ranking.mark_failed
    monkeypatch.setattr(Ranking, "mark_failed", cut)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(load(tmp_path, **SAVING), tmp_path / "run", resume="auto")
    monkeypatch.setattr(Ranking, "mark_failed", mark_failed)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"combination": 0, "event": "torn')
    assert left(run_sweep(load(tmp_path, **SAVING), tmp_path / "run", resume="auto")) == clean


@pytest.mark.slow
def test_structure_is_taken_up_group_by_group(tmp_path):
    text = TINY + "[grid]\nalgorithm.n_step = [1, 2]\n"
    whole = run_sweep(load(tmp_path, text, **SAVING), tmp_path / "clean")
    with stopped_after(8):
        run_sweep(load(tmp_path, text, **SAVING), tmp_path / "run")
    assert left(resume_sweep(tmp_path / "run")) == left(whole)


@pytest.mark.slow
def test_a_turn_that_does_not_fit_any_more_is_refused(tmp_path):
    with two_at_a_time():
        with stopped_after(1):
            run_sweep(load(tmp_path), tmp_path / "run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiled, "available_bytes", lambda: 2**10)
            with pytest.raises(ConfigError, match=r"a turn of 2 lanes with replay.capacity=100 needs .*, 1.0 kB are"):
                resume_sweep(tmp_path / "run")


def test_another_sweep_in_the_directory_is_refused(tmp_path):
    with stopped_after(1):
        run = run_sweep(load(tmp_path), tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.directory.iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match=r"holds another sweep:\s+total_steps: 60 -> 90"):
        run_sweep(load(tmp_path, total_steps=90), tmp_path / "run", resume="auto")
    with pytest.raises(ConfigError, match="holds a sweep of other combinations"):
        run_sweep(load(tmp_path, TINY + "[grid]\nalgorithm.tau = [0.1, 0.2]\n"), tmp_path / "run", resume="auto")
    assert {path.name: path.read_bytes() for path in run.directory.iterdir() if path.is_file()} == before
    assert run_sweep(load(tmp_path, **SAVING), tmp_path / "run", resume="auto").result["complete"]


def test_a_checkpoint_that_does_not_say_where_it_was_is_refused(tmp_path):
    with stopped_after(1):
        run = run_sweep(load(tmp_path), tmp_path / "run")
    store = CheckpointStore(run.directory / "checkpoints")
    found, _ = store.newest()
    checkpoint = store.load(found)
    for wrong in ({"position": [0, -1, 2]}, {"position": 3}, {"before": "x"}, {"versions": 1}):
        store.save(checkpoint._replace(facts=checkpoint.facts | wrong))
        with pytest.raises(StorageError, match="description cannot be read"):
            resume_sweep(tmp_path / "run")
    store.save(checkpoint._replace(arrays=checkpoint.arrays | {"board/mean": np.zeros(3)}))
    with pytest.raises(StorageError, match="mean is missing or of another shape"):
        resume_sweep(tmp_path / "run")


def test_fields_that_came_later_say_nothing_of_a_sweep_where_they_do_nothing():
    """Whoever adds a field names it in the recorder: sweeps that were kept before go on."""

    def said(**sections):
        return recorder._without_later(dj.load_config(**sections).model_dump(mode="json"))

    prioritized = {"kind", "capacity", "alpha", "beta", "beta_end", "epsilon"}
    assert said(replay={"kind": "prioritized"})["replay"].keys() == prioritized
    assert said(replay={"kind": "prioritized", "fade": 0.9})["replay"].keys() == {*prioritized, "fade", "fade_floor"}
    gaussian = {"kind", "epsilon", "sigma", "schedule", "sigma_end", "schedule_steps"}
    assert said(exploration={"kind": "gaussian"})["exploration"].keys() == gaussian
    assert said(exploration={"kind": "gaussian", "hold": 4})["exploration"].keys() == {*gaussian, "hold"}


def test_a_checkpoint_of_another_sweep_is_refused(tmp_path):
    with stopped_after(1):
        run = run_sweep(load(tmp_path), tmp_path / "run")
    more = load(tmp_path, TINY + GRID.replace("[0.1, 0.5]", "[0.1, 0.5, 0.6]"))
    other = load(tmp_path, TINY + GRID.replace("[0.1, 0.5]", "[0.1, 0.6]"))
    (run.directory / "sweep.toml").write_text(tomli_w.dumps(other.source))
    with pytest.raises(StorageError, match=r"of another sweep: sweep\.toml was changed"):
        resume_sweep(tmp_path / "run")
    (run.directory / "sweep.toml").write_text(tomli_w.dumps(more.source))
    with pytest.raises(StorageError, match="of another sweep"):
        resume_sweep(tmp_path / "run")


def test_the_commands_interrupt_verify_and_resume(tmp_path, capsys):
    path = tmp_path / "sweep.toml"
    path.write_text(TINY + GRID)
    words = ["sweep", str(path), "--run-dir", str(tmp_path / "run"), "--resume", "auto", "--quiet"]
    with stopped_after(1):
        assert main(words) == 75
    assert f"to go on: ddpg-jax resume {tmp_path / 'run'}" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "run")]) == 0
    assert "whole, step 20" in capsys.readouterr().out
    assert main(["resume", str(tmp_path / "run"), "--total-steps", "90"]) == 2
    assert "a sweep goes on as it was" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "run")]) == 5
    assert "it holds a sweep: train its best.toml" in capsys.readouterr().err
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert "resumes after 20 steps" in capsys.readouterr().out
    assert main(words) == 0
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert "is complete" in capsys.readouterr().out
    assert main([*words[:2], "--resume", "auto"]) == 2
    assert "--resume auto needs --run-dir" in capsys.readouterr().err


def test_the_command_shows_a_table_of_at_most_80_columns(tmp_path, capsys):
    path = tmp_path / "sweep.toml"
    path.write_text(TINY + GRID)
    assert main(["sweep", str(path), "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "critic_learning_rate 0.01, sigma 0.5" in shown
    assert max(len(line) for line in shown.splitlines() if not line.startswith(str(tmp_path))) <= 80
    assert tomllib.loads((tmp_path / "run" / "best.toml").read_text())["seeds"] == [4, 9]
    assert main(["sweep", str(path), "--run-dir", str(tmp_path / "run")]) == 5
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_is_sent_while_it_goes_on_and_each_row_once(swept, tmp_path):
    """It is stopped in its second turn and goes on; `tests/runs/sinks` kills what sends it."""
    with two_at_a_time():
        with stopped_after(6):
            run_sweep(load(tmp_path, logging={"sinks": [plain_sink.NAME]}), tmp_path / "run")
        run = resume_sweep(tmp_path / "run", allow_imports=True)
    assert run.result["complete"]
    rows = read_rows(run.directory / "metrics.jsonl")
    for number, seed in {(row["combination"], row["seed"]) for row in rows}:
        sent = read_rows(run.directory / "followers" / f"combination-{number}-seed-{seed}" / "plain.jsonl")
        assert sent == [row for row in rows if (row["combination"], row["seed"]) == (number, seed)]
    assert len(list((run.directory / "followers").glob("combination-*"))) == 8


def test_a_sink_that_cannot_be_made_is_told_before_a_sweep_begins(tmp_path):
    with pytest.raises(ConfigError, match="there is no sink 'tensorbord'"):
        load(tmp_path, logging={"sinks": ["tensorbord"]})
    sweep = load(tmp_path, logging={"sinks": ["wandb"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ConfigError, match="needs wandb, not installed here"):
            run_sweep(sweep, tmp_path / "run")
    assert not (tmp_path / "run").exists()
