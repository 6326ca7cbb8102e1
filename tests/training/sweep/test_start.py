"""Lanes that are stopped at a step, and put together with those of other sweeps, go on as they would have."""

import json
import shutil
import signal

import numpy as np
import pytest
import tomli_w
from stopped_sweep import stopped_after
from tiny_run import read_rows
from tiny_sweep import load_text, tiny_text

from ddpg_jax.cli.main import main
from ddpg_jax.errors import ConfigError, EnvironmentFault, StorageError
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.training.device import compile as compiled
from ddpg_jax.training.sweep import batches, recorder
from ddpg_jax.training.sweep.ranking import Ranking
from ddpg_jax.training.sweep.run import resume_sweep, run_sweep

SAVING = "checkpoint.every = 10\ncheckpoint.min_seconds = 0\n"
TINY = tiny_text() + SAVING
SETTINGS = [
    {"algorithm.critic_learning_rate": rate, "exploration.sigma": sigma}
    for rate in (1e-3, 1e-2)
    for sigma in range(1, 5)
]
ONE, OTHER = (0, 1, 2, 3), (0, 4, 5, 6)
"""Settings of two sweeps; the first is the same in each, so that all of four settings are one program."""
TAKEN = [("one", 0), ("other", 1), ("other", 3), ("one", 2)]
"""Of which combinations, by run and number, go on together: settings 0, 4, 6, 2."""


def text_of(numbers, sources=None, step=30, tiny=TINY):
    settings = tomli_w.dumps({"settings": [SETTINGS[number] for number in numbers]}) if numbers else ""
    named = [{"run": run, "combination": at} for run, at in sources or ()]
    return settings + tiny + (tomli_w.dumps({"start": {"step": step, "sources": named}}) if named else "")


def rows_of(run):
    return (run.directory / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder of two sweeps that were stopped at step 30."""
    folder = tmp_path_factory.mktemp("stopped")
    for name, numbers in (("one", ONE), ("other", OTHER)):
        run = run_sweep(load_text(folder, text_of(numbers)), folder / name, until=30)
        assert {entry["step"] for entry in run.result["combinations"]} == {30}
        assert not run.result["complete"]
    return folder


@pytest.fixture
def beside(stopped, tmp_path):
    """A folder with copies of these sweeps."""
    for name in ("one", "other"):
        shutil.copytree(stopped / name, tmp_path / name)
    return tmp_path


def test_lanes_that_are_put_together_go_on_to_the_bit(stopped, tmp_path):
    """A sweep of the same settings and as many lanes that was never stopped has the same record, from its beginning."""
    whole = run_sweep(load_text(tmp_path, text_of((0, 4, 6, 2))), tmp_path / "whole")
    run = run_sweep(load_text(tmp_path, text_of((0, 4, 6, 2), TAKEN)), stopped / "joined")
    assert rows_of(run) == rows_of(whole)
    assert run.result["combinations"] == whole.result["combinations"]
    assert run.result["complete"]
    assert (stopped / "one" / "checkpoints").is_dir()


def test_fewer_lanes_go_on_to_float32_rounding(stopped, tmp_path):
    whole = run_sweep(load_text(tmp_path, text_of((0, 4, 6, 2))), tmp_path / "whole")
    run = run_sweep(load_text(tmp_path, text_of((6, 0), [TAKEN[2], TAKEN[0]])), stopped / "narrow")
    found = [row for row in read_rows(run.directory / "metrics.jsonl") if row["event"] == "evaluation"]
    expected = {
        (row["combination"], row["seed"], row["step"]): row["returns"]
        for row in read_rows(whole.directory / "metrics.jsonl")
        if row["event"] == "evaluation"
    }
    assert len(found) == 2 * 2 * 2
    for row in found:
        number = (2, 0)[row["combination"]]
        np.testing.assert_allclose(row["returns"], expected[number, row["seed"], row["step"]], rtol=1e-4)


def test_it_may_be_killed_before_and_after_its_first_checkpoint(beside, monkeypatch):
    """Without one it begins with those of the others again; with one it does not need them any more."""
    sweep = load_text(beside, text_of((0, 4, 6, 2), TAKEN))
    whole = run_sweep(sweep, beside / "whole")

    def killed(self, checkpoint):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointStore, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(sweep, beside / "run", resume="auto")
    with stopped_after(1):
        assert not resume_sweep(beside / "run").result["complete"]
    shutil.rmtree(beside / "one")
    shutil.rmtree(beside / "other")
    mark_failed = Ranking.mark_failed

    def cut(self, report):
        if report.report.step == 60:
            raise KeyboardInterrupt
        return mark_failed(self, report)

    monkeypatch.setattr(Ranking, "mark_failed", cut)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, beside / "run", resume="auto")
    monkeypatch.setattr(Ranking, "mark_failed", mark_failed)
    run = run_sweep(sweep, beside / "run", resume="auto")
    assert rows_of(run) == rows_of(whole)
    assert run.result["combinations"] == whole.result["combinations"]


def test_what_it_cannot_go_on_from_is_refused(beside, tmp_path):
    def refusal(error, numbers, sources, tiny=TINY, **how):
        directory = tmp_path / "refused"
        with pytest.raises(error) as caught:
            run_sweep(load_text(tmp_path, text_of(numbers, sources, tiny=tiny, **how)), directory, overwrite=True)
        return str(caught.value)

    assert "missing is not a sweep directory" in refusal(StorageError, (0,), [("missing", 0)])
    assert "no checkpoint after 10 steps" in refusal(StorageError, (0,), [("one", 0)], step=10)
    assert "combination 0 of one, which is another:\n  algorithm.critic_learning_rate" in refusal(
        ConfigError, (4,), [("one", 0)]
    )
    assert "combination 9 of one, which has 4 of them" in refusal(ConfigError, (0,), [("one", 9)])
    more = text_of((), [("one", 0)]) + "[grid]\nalgorithm.critic_learning_rate = [1e-3]\n"
    fixed = more.replace("[config]\n", "[config]\nexploration.sigma = 1\n")
    with pytest.raises(ConfigError, match=r"of one, whose lanes differ in other fields: .*sigma, and here algorithm"):
        run_sweep(load_text(tmp_path, fixed), tmp_path / "refused", overwrite=True)
    store = CheckpointStore(beside / "one" / "checkpoints")
    checkpoint = store.load(store.at(30))
    store.save(checkpoint._replace(facts=checkpoint.facts | {"untaken": []}))
    assert "was stopped while it was evaluated after 30 steps" in refusal(StorageError, (0,), [("one", 0)])
    store.save(checkpoint._replace(facts=checkpoint.facts | {"position": [0, 0, 4]}))
    assert "runs in turns, or has several structures" in refusal(StorageError, (0,), [("one", 0)])
    store.save(checkpoint._replace(arrays=checkpoint.arrays | {"iteration": np.int64(29)}))
    assert "not of the same step" in refusal(StorageError, (0, 4), [("one", 0), ("other", 1)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (text_of((0, 4), TAKEN[:1]), "start.sources has 1 entries for 2 combinations"),
        (text_of((0,), TAKEN[:1], step=60), "start.step = 60 is not below total_steps = 60"),
        (
            text_of((0,), TAKEN[:1]).replace("jax:pendulum", "Pendulum-v1"),
            r"\[start\] is of environments written in JAX",
        ),
        (text_of((0,), [("../one", 0)]), "start.sources.0.run: String should match"),
        (
            text_of((0,), TAKEN[:1]).replace("combination = 0", "combinations = 0"),
            "unknown key; did you mean combination",
        ),
        (
            text_of((0, 1), TAKEN[:2]).replace('"exploration.sigma"', '"algorithm.n_step"'),
            r"\[start\] is of one structure, but the combinations have 2",
        ),
        (
            "draws = 2\n" + TINY + "[random]\nalgorithm.tau = { low = 0.1, high = 0.2 }\n[population]\nevery = 30\n"
            "[start]\nstep = 30\nsources = [{ run = 'one', combination = 0 }, { run = 'one', combination = 1 }]\n",
            r"\[start\] stands beside \[population\]",
        ),
    ],
)
def test_a_start_that_is_none_is_refused(text, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        load_text(tmp_path, text)


def test_another_start_in_the_directory_is_refused(beside):
    other = load_text(beside, text_of((0,), [("other", 0)]))
    with stopped_after(1):
        run_sweep(load_text(beside, text_of((0,), [("one", 0)])), beside / "run")
    with pytest.raises(ConfigError, match=r"holds a sweep of another \[start\]"):
        run_sweep(other, beside / "run", resume="auto")
    (beside / "run" / "sweep.toml").write_text(tomli_w.dumps(other.source))
    with pytest.raises(StorageError, match=r"of another sweep: sweep\.toml was changed"):
        resume_sweep(beside / "run")


def test_each_has_a_rank_of_its_own_before_it_is_evaluated_again(stopped, monkeypatch):
    """A stop waits for no evaluation here, so what the lanes had reached in the other sweeps is shown."""
    reached = {
        (name, entry["combination"]): entry["per_seed"]
        for name in ("one", "other")
        for entry in json.loads((stopped / name / "result.json").read_text())["combinations"]
    }
    monkeypatch.setattr(recorder, "LAST_SECONDS", -1.0)
    with stopped_after(1):
        run = run_sweep(load_text(stopped, text_of((0, 4, 6, 2), TAKEN)), stopped / "ranked")
    assert {entry["combination"]: entry["per_seed"] for entry in run.result["combinations"]} == {
        number: reached[lane] for number, lane in enumerate(TAKEN)
    }


def test_an_evaluation_at_the_step_that_was_stopped_is_made_again(tmp_path, monkeypatch):
    """The lanes are at their step, but what they have reached is not known."""
    sweep, fetch = load_text(tmp_path, text_of(ONE)), batches.fetch

    def stopping(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return fetch(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "fetch", stopping)
        patch.setattr(recorder, "LAST_SECONDS", -1.0)
        run = run_sweep(sweep, tmp_path / "run", until=30)
    assert {entry["step"] for entry in run.result["combinations"]} == {0}
    run = run_sweep(sweep, tmp_path / "run", until=30, resume="auto")
    assert {entry["step"] for entry in run.result["combinations"]} == {30}
    assert all(entry["interquartile_mean"] is not None for entry in run.result["combinations"])


def test_the_command_stops_at_a_step_and_goes_on(tmp_path, capsys):
    path = tmp_path / "sweep.toml"
    path.write_text(text_of(ONE))
    words = ["sweep", str(path), "--run-dir", str(tmp_path / "run"), "--resume", "auto", "--quiet"]
    with stopped_after(1):
        assert main([*words, "--until", "30"]) == 75
    for _ in range(2):  # the second ranks only
        assert main([*words, "--until", "30"]) == 0
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert {entry["step"] for entry in result["combinations"]} == {30}
        assert not (tmp_path / "run" / "best.toml").exists()
        (tmp_path / "run" / "result.json").unlink()
    whole = run_sweep(load_text(tmp_path, text_of(ONE)), tmp_path / "whole")
    assert main([*words, "--until", "60"]) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == rows_of(whole)
    assert main(words) == 0
    capsys.readouterr()
    for more, said in (
        (["--until", "20"], "--until 20: expected a multiple of evaluation.every=30"),
        (["--until", "30", "--engine", "local"], "--until has no effect on a search"),
        (["--until", "30", "--env.id", "Pendulum-v1"], "--until 30: lanes of environments written in JAX"),
    ):
        assert main([*words, *more]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert main([*words[:2], "--until", "30"]) == 2
    assert "--until needs --run-dir and --resume auto" in capsys.readouterr().err


def test_lanes_that_may_not_run_in_turns_are_not_stopped_at_a_step(tmp_path, monkeypatch):
    text = tiny_text() + "[grid]\nalgorithm.n_step = [1, 2]\n"
    with pytest.raises(ConfigError, match="until='30': the combinations have 2 structures"):
        run_sweep(load_text(tmp_path, text), tmp_path / "run", until=30)
    random = "draws = 2\n" + tiny_text() + "[random]\nalgorithm.tau = { low = 0.1, high = 0.2 }\n"
    with pytest.raises(ConfigError, match="until='30': a population is not stopped"):
        run_sweep(load_text(tmp_path, random + "[population]\nevery = 30\n"), tmp_path / "run", until=30)
    monkeypatch.setattr(compiled, "available_bytes", lambda: 60_000)
    with pytest.raises(ConfigError, match="8 lanes that may not run in turns, with replay"):
        run_sweep(load_text(tmp_path, text_of(ONE)), tmp_path / "run", until=30)


def test_an_environment_that_was_at_fault_is_named_again(tmp_path, monkeypatch):
    """Whoever starts a program again that had reached its step learns what the first start told."""

    def faulty(self, report):
        self.arrays["faulty"][...] = True

    monkeypatch.setattr(Ranking, "mark_failed", faulty)
    for _ in range(2):
        with pytest.raises(EnvironmentFault, match="in every combination"):
            run_sweep(load_text(tmp_path, text_of(ONE)), tmp_path / "run", until=30, resume="auto")


MORE = {
    "priorities, a ring that goes round": "env.num_envs = 2\nreplay.kind = 'prioritized'\n",
    "pictures": (
        "env.num_envs = 2\nenv.pixels = { size = 16, gray = true, stack = 3 }\nalgorithm.n_step = 3\n"
        "algorithm.encoder = { kind = 'small', channels = 2, features = 4, shift = 1 }\n"
    ),
    "memory": (
        "algorithm.memory = { hidden = 4, length = 4, burn_in = 2, obs_embedding = 4, action_embedding = 4, "
        "reward_embedding = 4 }\nalgorithm.normalize_observations = true\nexploration.kind = 'ou'\n"
    ),
}
"""What a lane carries beside the plain: priorities; pictures, of which some are kept once for several rows; memory."""


@pytest.mark.slow
@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_lanes_take_all_with_them_that_they_carry(more, tmp_path):
    tiny = TINY.replace("replay.capacity = 100", "replay.capacity = 40") + more
    for name, numbers in (("one", (0, 1)), ("other", (0, 2))):
        run_sweep(load_text(tmp_path, text_of(numbers, tiny=tiny)), tmp_path / name, until=30)
    whole = run_sweep(load_text(tmp_path, text_of((0, 2), tiny=tiny)), tmp_path / "whole")
    sources = [("one", 0), ("other", 1)]
    run = run_sweep(load_text(tmp_path, text_of((0, 2), sources, tiny=tiny)), tmp_path / "run")
    assert rows_of(run) == rows_of(whole)


@pytest.mark.slow
def test_a_lane_goes_on_alone(tmp_path):
    """Without the axis of lanes, which a program of one lane has not."""
    tiny = TINY.replace("seeds = [4, 9]", "seeds = [4]")
    whole = run_sweep(load_text(tmp_path, text_of((0, 1), tiny=tiny)), tmp_path / "whole")
    run_sweep(load_text(tmp_path, text_of((0, 1), tiny=tiny)), tmp_path / "one", until=30)
    run = run_sweep(load_text(tmp_path, text_of((1,), [("one", 1)], tiny=tiny)), tmp_path / "run")
    expected, found = (
        {each["combination"]: each["per_seed"] for each in w.result["combinations"]} for w in (whole, run)
    )
    np.testing.assert_allclose(found[0], expected[1], rtol=1e-4)
