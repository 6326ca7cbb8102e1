"""A stop is heard while programs are compiled and where environments are at work: made, reset, stepped, evaluated."""

import signal
from collections import Counter
from typing import ClassVar

import gymnasium
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.wrappers import NormalizeReward, TimeLimit
from tiny_run import EPISODE, finished_run, read_rows, tiny_config

import ddpg_jax as dj
from ddpg_jax.cli.main import main
from ddpg_jax.config.load import dump_toml
from ddpg_jax.envs.host.vector import evaluation_seeds
from ddpg_jax.errors import Interrupted
from ddpg_jax.runs.checkpoints.checkpoint import digest
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.training import factory
from ddpg_jax.training.checkpointer import Checkpointer
from ddpg_jax.training.device import compile as device_compile
from ddpg_jax.training.host import compile as host_compile

BANK = {evaluation_seeds(3)(lane, 0) for lane in range(3)}


class Signalling(PendulumEnv):
    """Pendulum; asks the process to stop when one of its methods is called for a certain time."""

    at: tuple[str, int] | None = None
    calls: ClassVar[Counter[str]] = Counter()

    def __init__(self):
        super().__init__()
        self.kind = "training"
        self.note("made")

    def note(self, what):
        self.calls[what] += 1
        if (what, self.calls[what]) == Signalling.at:
            signal.raise_signal(signal.SIGTERM)

    def reset(self, *, seed=None, options=None):
        self.kind = "evaluation" if seed in BANK else "training"
        self.note(f"{self.kind} reset")
        return super().reset(seed=seed)

    def step(self, u):
        self.note(f"{self.kind} step")
        return super().step(u)


@pytest.fixture(scope="module", autouse=True)
def registered():
    gymnasium.register("Signalling-v0", Signalling)
    yield
    gymnasium.registry.pop("Signalling-v0")


@pytest.fixture
def stop_at(monkeypatch):
    def at(what=None, count=0):
        monkeypatch.setattr(Signalling, "at", (what, count))
        Signalling.calls.clear()

    return at


def contents(path):
    """Hash of the newest checkpoint, and the bytes of the record."""
    store = CheckpointStore(RunDirectory(path).checkpoints)
    found, _ = store.newest()
    return digest(store.load(found)), (path / "metrics.jsonl").read_bytes()


def listing(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != "run.lock"}


def config_of(**env):
    return tiny_config(env={"id": "Signalling-v0", **env})


LANES, EVALUATION = 2, 6 * EPISODE  # two seeds; three episodes of each


@pytest.mark.parametrize(
    ("what", "count", "after"),
    [
        ("evaluation step", 25, 25),  # of the first evaluation, the fifth step of its first environment
        ("evaluation step", 2 * EVALUATION + 1, 60),  # of the last
        ("evaluation reset", 4, 25),  # the fourth of the six episodes of the first evaluation begins
        ("training step", 1, 0),
        ("training step", 2 * 33 + 1, 33),  # one environment is a step ahead of the other
        ("training reset", LANES + 1, EPISODE - 1),
    ],
)
def test_a_run_that_was_stopped_there_ends_with_the_same_bits(what, count, after, stop_at, tmp_path, tmp_path_factory):
    whole, path = finished_run(tmp_path_factory), tmp_path / "run"
    stop_at(what, count)
    with pytest.raises(Interrupted, match=f"interrupted after {after} of 60 steps; to go on"):
        dj.train(config_of(), path)
    assert Signalling.calls[what] == count  # nothing of it was begun afterwards
    stop_at()
    run = dj.resume_run(path)
    assert contents(path) == contents(whole.directory)
    assert "level" not in run.result
    steps = [row["step"] for row in read_rows(path / "metrics.jsonl") if row["event"] == "evaluation"]
    assert steps == [25, 25, 50, 50, 60, 60]


@pytest.mark.slow
def test_a_run_that_was_stopped_in_an_evaluation_on_the_device_ends_with_the_same_bits(tmp_path, monkeypatch):
    """The evaluation is begun anew each time."""
    config = tiny_config(env={"id": "jax:pendulum", "max_episode_steps": 30})
    whole = dj.train(config, tmp_path / "whole")
    fetch = factory.fetch

    def while_it_runs(compute, stop):
        signal.raise_signal(signal.SIGTERM)
        return fetch(compute, stop)

    with monkeypatch.context() as patch:
        patch.setattr(factory, "fetch", while_it_runs)
        for step in (25, 25):  # the second time while it is made again
            with pytest.raises(Interrupted, match=f"interrupted after {step} of 60 steps; to go on"):
                dj.train(config, tmp_path / "run", resume="auto")
    dj.resume_run(tmp_path / "run")
    assert contents(tmp_path / "run") == contents(whole.directory)


@pytest.mark.parametrize("loop", ["host", "device"])
def test_a_run_that_was_stopped_while_it_was_compiled_makes_no_step(loop, tmp_path, monkeypatch):
    """The host loop has its directory by then, the device loop has not; none is left locked."""
    env = {"id": "Signalling-v0"} if loop == "host" else {"id": "jax:pendulum", "max_episode_steps": 30}
    config, module = tiny_config(env=env), {"host": host_compile, "device": device_compile}[loop]
    compile_all = module.compile_all

    def while_it_compiles(programs, stop):
        signal.raise_signal(signal.SIGTERM)
        return compile_all(programs, stop)

    Signalling.calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "compile_all", while_it_compiles)
        said = "interrupted after 0 of 60 steps; to go on" if loop == "host" else "while its programs were compiled"
        with pytest.raises(Interrupted, match=said):
            dj.train(config, tmp_path / "run", resume="auto")
    assert not Signalling.calls["training reset"]
    assert (tmp_path / "run").exists() == (loop == "host")
    dj.train(config, tmp_path / "run", resume="auto")
    whole = dj.train(config, tmp_path / "whole")
    assert contents(tmp_path / "run") == contents(whole.directory)


@pytest.mark.parametrize(("what", "count"), [("made", 1), ("made", 5), ("training reset", 1)])
def test_before_a_run_has_begun_it_ends_with_75_at_once(what, count, stop_at, tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(dump_toml(config_of()))
    words = ["train", str(tmp_path / "tiny.toml"), "--run-dir", str(tmp_path / "run"), "--resume", "auto", "--quiet"]
    stop_at(what, count)
    assert main(words) == 75
    said = "interrupted while environments were made" if what == "made" else "interrupted after 0 of 60 steps; to go on"
    assert said in capsys.readouterr().err
    assert Signalling.calls[what] == count
    stop_at()
    assert main(words) == 0


@pytest.mark.parametrize("step", [2 * EPISODE, 2 * EPISODE + 4])
def test_what_outlives_an_episode_is_not_resumed_as_if_it_were_exact(step, tmp_path, caplog, monkeypatch):
    """Statistics of a wrapper are not kept; between two episodes the one before is compared."""
    gymnasium.register("Normal-v0", lambda: NormalizeReward(TimeLimit(PendulumEnv(), EPISODE)))
    should_save = Checkpointer.should_save

    def stopping(self, now):
        if now >= step:
            signal.raise_signal(signal.SIGTERM)
        return should_save(self, now)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Checkpointer, "should_save", stopping)
            with pytest.raises(Interrupted, match=f"after {step} of"):
                dj.train(tiny_config(env={"id": "Normal-v0"}), tmp_path)
        assert "NormalizeReward" in caplog.text
        caplog.clear()
        run = dj.resume_run(tmp_path)
    finally:
        gymnasium.registry.pop("Normal-v0")
    assert run.result["level"] == "episode"
    assert f"resumes after {step} of 60 steps, level episode" in caplog.text
    assert "the statistics of NormalizeReward begin anew here" in caplog.text
    said = "last whole episode of 2 environments did not repeat itself" if step == 30 else "2 episodes in progress"
    assert said in caplog.text


@pytest.mark.parametrize(("what", "count"), [pytest.param("made", 3, marks=pytest.mark.slow), ("training step", 7)])
def test_while_episodes_are_played_again_the_run_stays_as_it_is(what, count, stop_at, tmp_path, tmp_path_factory):
    path = tmp_path / "run"
    stop_at("training step", 2 * 40 + 1)
    with pytest.raises(Interrupted):
        dj.train(config_of(), path)
    before = listing(path)
    stop_at(what, count)
    with pytest.raises(Interrupted):
        dj.resume_run(path)
    assert listing(path) == before
    stop_at()
    dj.resume_run(path)
    assert contents(path) == contents(finished_run(tmp_path_factory).directory)
