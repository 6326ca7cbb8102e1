"""Environments that fail under a run, that do not repeat themselves, or that were rebuilt under their name."""

from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.wrappers import TimeLimit
from tiny_run import EPISODE, config_of, contents, read_rows

import ddpg_jax as dj
from ddpg_jax.errors import ConfigError, EnvironmentFault, Interrupted, StorageError
from ddpg_jax.runs.checkpoints.store import CheckpointStore


def fail():
    raise StorageError("no room")


class Fragile(PendulumEnv):
    """Raises at one of its steps, unless it has been mended."""

    broken_at: int | None = None
    taken = 0

    def step(self, u):
        Fragile.taken += 1
        if Fragile.taken == Fragile.broken_at:
            raise OSError("the cable came off")
        return super().step(u)


class Restless(PendulumEnv):
    """Its episodes depend on how often it was made."""

    made = 0

    def __init__(self):
        super().__init__()
        Restless.made += 1

    def reset(self, **arguments):
        _, info = super().reset(**arguments)
        self.state = self.state + 1e-3 * Restless.made
        return self._get_obs(), info


class Rebuilt(PendulumEnv):
    """Its motor may be another one the next time that it is made."""

    torque = 2.0

    def __init__(self):
        super().__init__()
        self.max_torque = self.torque
        self.action_space = gymnasium.spaces.Box(-self.torque, self.torque, (1,), np.float32)


ENVIRONMENTS = {"Fragile-v0": Fragile, "Restless-v0": Restless, "Rebuilt-v0": Rebuilt}


@pytest.fixture(scope="module", autouse=True)
def registered():
    for name, kind in ENVIRONMENTS.items():
        gymnasium.register(name, lambda kind=kind: TimeLimit(kind(), EPISODE))
    yield
    for name in ENVIRONMENTS:
        gymnasium.registry.pop(name)


fragile_config = partial(config_of, "Fragile-v0", evaluation={"every": 0, "episodes": 1}, checkpoint={"every": 25})


@pytest.mark.parametrize(
    "steps", [(1, 43, 92), pytest.param(tuple(range(2, 120, 2)), marks=pytest.mark.slow)], ids=["a few", "every other"]
)
def test_a_checkpoint_is_written_before_an_environment_ends_the_run(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(Fragile, "broken_at", None)
    whole = dj.train(fragile_config(), tmp_path / "whole")
    for n, broken_at in enumerate(steps):  # counted over both seeds' environments
        monkeypatch.setattr(Fragile, "broken_at", broken_at)
        monkeypatch.setattr(Fragile, "taken", 0)
        path = tmp_path / str(n)
        with pytest.raises(
            EnvironmentFault, match=r"raised OSError: the cable came off .*episode .*seed .*step .*action"
        ):
            dj.train(fragile_config(), path)
        found = CheckpointStore(path / "checkpoints").newest()[0]
        assert found.step == (broken_at - 1) // 2
        if n % 6 == 1:
            monkeypatch.setattr(Fragile, "broken_at", None)
            dj.resume_run(path)
            assert contents(path) == contents(whole.directory)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"env": {"num_envs": 2}}, marks=pytest.mark.slow),
        pytest.param({"replay": {"kind": "prioritized"}}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_checkpoint_is_written_before_an_environment_ends_the_run_in_an_evaluation(changes, tmp_path, monkeypatch):
    """After 30 steps of each seed, and when the run is resumed there again, and after all 61 or 62."""
    changes = changes | {"evaluation": {"every": 30, "episodes": 1}, "checkpoint": {"every": 1000}, "total_steps": 61}
    config, path, evaluated = config_of("Fragile-v0", **changes), tmp_path / "run", 2 * EPISODE
    monkeypatch.setattr(Fragile, "broken_at", None)
    whole = dj.train(config, tmp_path / "whole")
    monkeypatch.setattr(Fragile, "taken", 0)
    last = whole.result["env_steps_per_seed"]
    for broken_at, step in ((60 + 5, 30), (5, 30), (evaluated + 60 + evaluated + 2 * (last - 60) + 5, last), (5, last)):
        monkeypatch.setattr(Fragile, "broken_at", Fragile.taken + broken_at + _played_again(path))
        with pytest.raises(EnvironmentFault, match=r"raised OSError: the cable came off .*step 2, action"):
            dj.train(config, path, resume="auto")
        assert CheckpointStore(path / "checkpoints").newest()[0].step == step
    with pytest.raises(ConfigError, match=f"the run is at step {last} already"):
        dj.resume_run(path, total_steps=40)
    monkeypatch.setattr(Fragile, "broken_at", None)
    assert dj.resume_run(path).result["complete"]
    assert contents(path) == contents(whole.directory)
    speeds = [(row["step"], row["env_steps_per_second"] > 0) for row in read_rows(path / "timing.jsonl")]
    assert speeds == [(row["step"], True) for row in read_rows(whole.directory / "timing.jsonl")]


def _played_again(path):
    """Steps that a resume replays, of all environments: of the episode in progress, or else of the one before."""
    store = CheckpointStore(path / "checkpoints")
    found = store.newest()[0]
    if found is None:
        return 0
    arrays = store.load(found).arrays
    between = (arrays["journal/length"] == 0) & (arrays["journal/episode"] > 0)
    return int(arrays["journal/length"].sum() + EPISODE * between.sum())


def test_where_an_evaluation_failed_a_run_may_go_on_without_it(tmp_path, monkeypatch):
    config = fragile_config(evaluation={"every": 30, "episodes": 1})
    monkeypatch.setattr(Fragile, "broken_at", 65)
    monkeypatch.setattr(Fragile, "taken", 0)
    with pytest.raises(EnvironmentFault, match="cable"):
        dj.train(config, tmp_path / "run")
    monkeypatch.setattr(Fragile, "broken_at", None)
    run = dj.resume_run(tmp_path / "run", evaluation={"every": 0})
    rows = read_rows(run.directory / "metrics.jsonl")
    assert [row["step"] for row in rows if row["event"] == "evaluation"] == [60, 60]
    assert {row["step"] for row in rows if row["event"] == "update"} == {30, 40, 60}


def test_a_fault_is_told_even_if_the_run_cannot_be_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(Fragile, "broken_at", 9)
    monkeypatch.setattr(Fragile, "taken", 0)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(CheckpointStore, "save", lambda self, checkpoint: fail())
    with pytest.raises(EnvironmentFault, match="cable") as error:
        dj.train(fragile_config(), tmp_path / "run")
    fault = tmp_path / "run" / "fault.txt"
    assert error.value.__notes__ == [f"the whole traceback is in {fault}", "nor could the run be saved: no room"]
    assert "OSError: the cable came off" in fault.read_text()


def test_an_environment_that_was_rebuilt_under_its_name_is_refused(signal_at, tmp_path, monkeypatch):
    signal_at(23)
    with pytest.raises(Interrupted):
        dj.train(config_of("Rebuilt-v0"), tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(Rebuilt, "torque", 3.0)
    with pytest.raises(
        ConfigError,
        match=r"'Rebuilt-v0' is not what it was when the run was saved:\n  action_low: \(-2.0,\) -> \(-3.0,\)\n"
        r"  action_high: \(2.0,\) -> \(3.0,\)",
    ):
        dj.resume_run(tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    monkeypatch.undo()
    assert dj.resume_run(tmp_path / "run").result["complete"]


def test_an_environment_that_does_not_repeat_itself_is_said_and_begun_anew(signal_at, tmp_path, caplog):
    config = config_of("Restless-v0", algorithm={"n_step": 3})
    signal_at(23)
    with pytest.raises(Interrupted):
        dj.train(config, tmp_path / "run")
    signal_at(1000)
    run = dj.resume_run(tmp_path / "run")
    assert "2 episodes in progress did not repeat themselves" in caplog.text
    assert run.result["level"] == "episode"
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    ends = [
        (row["episode"], row["step"], row["episode_length"])
        for row in rows
        if row["event"] == "episode" and row["seed"] == 4
    ]
    assert ends == [(0, 15, 15), (2, 38, 15), (3, 53, 15)]
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    found = store.newest()[0]
    assert found.facts["level"] == "episode"
    rows = store.load(found).rows.read(22, 23)["rows"]
    assert (rows[..., -3] == 1).all()  # the last row before the cut is marked as truncated: no window crosses it
