"""Runs that are interrupted, resumed, branched and begun from others, through the same doors as a user."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.wrappers import TimeLimit
from power import Disk, Killed
from rich.console import Console
from safetensors.numpy import load_file
from tiny_run import EPISODE, read_rows, tiny_config

import ddpg_jax as dj
from ddpg_jax.cli.main import main
from ddpg_jax.config.diff import compare
from ddpg_jax.config.load import dump_toml, merge
from ddpg_jax.config.marks import Effect
from ddpg_jax.errors import ConfigError, EnvironmentFault, Interrupted, StorageError
from ddpg_jax.runs import filesystem as filesystem
from ddpg_jax.runs.checkpoints.store import CheckpointStore, digest
from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.result import environment, system_differences
from ddpg_jax.training.checkpointer import MAX_FAILURES, Checkpointer
from ddpg_jax.training.signals import StopRequest
from ddpg_jax.xla.memory import available_cores

OFTEN = {"every": 10, "min_seconds": 0.0, "keep": 100}
LOOPS = pytest.mark.parametrize("identifier", ["Pendulum-v1", "jax:pendulum"])


def config_of(identifier="Pendulum-v1", **changes):
    return tiny_config(
        **merge({"env": {"id": identifier}, "checkpoint": OFTEN, "logging": {"tensorboard": False}}, changes)
    )


def contents(path):
    """Hash of the newest checkpoint, and the bytes of the record and of the final weights."""
    store = CheckpointStore(RunDirectory(path).checkpoints)
    found, set_aside = store.newest()
    assert set_aside == []
    return digest(store.load(found)), (path / "metrics.jsonl").read_bytes(), load_final(path)


def load_final(path):
    arrays = load_file(path / "checkpoints" / "final.safetensors")
    return {name: x.tobytes() for name, x in arrays.items()}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The run of each loop that nothing happened to."""
    folder = tmp_path_factory.mktemp("clean")
    return {name: dj.train(config_of(name), folder / name[:3]) for name in ("Pendulum-v1", "jax:pendulum")}


@pytest.fixture
def copied(clean, tmp_path):
    """A copy of a clean run, to be changed."""
    return shutil.copytree(clean["Pendulum-v1"].directory, tmp_path / "copied")


@pytest.fixture
def signal_at(monkeypatch):
    """Raises a real signal while the iteration of a step is going on."""
    should_snapshot = Checkpointer.should_snapshot

    def at(step, number=signal.SIGTERM):
        def with_signal(self, now):
            if now >= step and not self.stopping:
                signal.raise_signal(number)
            return should_snapshot(self, now)

        monkeypatch.setattr(Checkpointer, "wanted", with_signal)

    return at


# Interrupted, and resumed.


def test_only_the_program_has_its_process_for_its_run_alone(copied, tmp_path, monkeypatch, capsys):
    def seen(config, *, alone):
        if alone:
            raise ConfigError(f"suits {config.total_steps} steps")

    monkeypatch.setattr("ddpg_jax.training.train.configure_process", seen)
    assert main(["train", "--total-steps", "17", "--run-dir", str(tmp_path / "run")]) == 2
    assert "suits 17 steps" in capsys.readouterr().err
    assert main(["resume", str(copied), "--total-steps", "80"]) == 2
    assert "suits 80 steps" in capsys.readouterr().err
    assert dj.resume_run(copied).result["complete"]
    assert dj.train(config_of("Pendulum-v1"), copied, resume="auto").result["complete"]


def test_a_signal_while_xla_takes_its_threads_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ddpg_jax.training.train.configure_process", lambda *a, **b: signal.raise_signal(signal.SIGTERM)
    )
    for _ in range(2):
        with pytest.raises(Interrupted):
            dj.train(config_of(), tmp_path / "run", resume="auto")


def test_how_many_devices_there_are_is_no_matter_where_one_is_used():
    now = environment()
    before = now | {"device": now["device"] | {"count": 99}}
    assert system_differences(before, single_device=True) == []
    assert "count 99 ->" in system_differences(before)[0]


@LOOPS
def test_a_run_that_signals_ended_again_and_again_ends_with_the_same_bits(
    clean, identifier, signal_at, tmp_path, monkeypatch
):
    monkeypatch.setattr("ddpg_jax.training.device.loop.FIRST_PIECE", 3)
    monkeypatch.setattr("ddpg_jax.training.device.loop.PIECE_SECONDS", 0.0)
    path, before = tmp_path / "run", signal.getsignal(signal.SIGTERM)
    for step, number in ((7, signal.SIGTERM), (26, signal.SIGINT), (41, signal.SIGUSR1)):
        signal_at(step, number)
        with pytest.raises(Interrupted, match=rf"of 60 steps; to go on: ddpg-jax resume {path}"):
            dj.train(config_of(identifier), path, resume="auto")
        assert not (path / "result.json").exists()
        assert signal.getsignal(signal.SIGTERM) is before
    signal_at(1000)
    run = dj.resume_run(path)
    assert contents(path) == contents(clean[identifier].directory)
    whole = clean[identifier].result
    assert {name: run.result[name] for name in ("final", "best", "complete")} == {
        name: whole[name] for name in ("final", "best", "complete")
    }
    assert "level" not in run.result
    assert [row["step"] for row in read_rows(path / "timing.jsonl")] == [20, 25, 40, 50, 60]


def test_the_command_exits_with_75_and_resume_goes_on(clean, signal_at, tmp_path, capsys):
    path = tmp_path / "run"
    file = tmp_path / "tiny.toml"
    file.write_text(dump_toml(config_of()))
    signal_at(30)
    assert main(["train", str(file), "--run-dir", str(path)]) == 75
    assert "interrupted after 30 of 60 steps" in capsys.readouterr().err
    assert main(["verify", str(path)]) == 0
    assert "whole, step 30" in capsys.readouterr().out
    assert dj.evaluate(path, 2).shape == (2, 2)  # of the weights it has by now
    signal_at(1000)
    assert main(["resume", str(path)]) == 0
    assert "resumes after 30 of 60 steps, level exact" in capsys.readouterr().out
    assert contents(path) == contents(clean["Pendulum-v1"].directory)
    assert main(["resume", str(path)]) == 0
    assert "is complete after 60 steps" in capsys.readouterr().out
    assert contents(path) == contents(clean["Pendulum-v1"].directory)


@pytest.mark.parametrize("power", [False, True], ids=["the process", "the power"])
@pytest.mark.parametrize("share", [*range(1, 9), 0.1, 0.35, 0.6, 0.85, 1.0])
def test_where_a_run_is_cut_off_at_a_call_the_same_command_ends_it(share, power, clean, tmp_path, monkeypatch):
    """At one of its first calls of the file system, or after a share of them. If the power fails, all that was not
    synced is lost, names too."""
    config, calls = config_of(), []
    if isinstance(share, float):
        with monkeypatch.context() as patch:
            patch.setattr(filesystem, "before", lambda *call: calls.append(call))
            dj.train(config, tmp_path / "counted")
    (tmp_path / "disk").mkdir()
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path / "disk", patch, at=round(share * len(calls)) if calls else share)
        with suppress(Killed):
            dj.train(config, tmp_path / "disk" / "run")
    disk.after_the_power_failed(tmp_path / "disk") if power else disk.forget()
    dj.train(config, tmp_path / "disk" / "run", resume="auto")
    assert contents(tmp_path / "disk" / "run") == contents(clean["Pendulum-v1"].directory)


def test_resume_auto_needs_a_directory(capsys):
    assert main(["train", "--resume", "auto"]) == 2
    assert "--run-dir" in capsys.readouterr().err


def test_a_run_that_was_lost_before_its_first_checkpoint_is_run_again(clean, copied):
    shutil.rmtree(copied / "checkpoints")
    (copied / "result.json").unlink()
    with (copied / "metrics.jsonl").open("a") as file:
        file.write('{"event": "torn')
    dj.resume_run(copied)
    assert contents(copied) == contents(clean["Pendulum-v1"].directory)


def test_a_torn_line_and_repeated_steps_are_cut_off(clean, copied):
    store = CheckpointStore(copied / "checkpoints")
    for name, found in store.examine():
        if found.step > 30:
            shutil.rmtree(copied / "checkpoints" / name)
    (copied / "result.json").unlink()
    whole = (copied / "metrics.jsonl").read_bytes()
    (copied / "metrics.jsonl").write_bytes(whole[:-7])
    dj.resume_run(copied)
    assert (copied / "metrics.jsonl").read_bytes() == whole
    assert contents(copied) == contents(clean["Pendulum-v1"].directory)


def test_a_record_that_is_shorter_than_it_was_is_refused(copied):
    (copied / "metrics.jsonl").write_bytes(b"")
    with pytest.raises(StorageError, match=r"metrics\.jsonl"):
        dj.resume_run(copied, total_steps=70)


def test_a_finished_run_goes_on(clean, copied, caplog):
    longer = dj.train(config_of(total_steps=80), copied.parent / "longer")
    run = dj.resume_run(copied, total_steps=80)
    assert "changed: total_steps: 60 -> 80" in caplog.text
    assert contents(copied)[1] != contents(clean["Pendulum-v1"].directory)[1]
    assert run.result["changes"] == ["at step 60: total_steps: 60 -> 80"]
    rows = [row for row in read_rows(copied / "metrics.jsonl") if (row["event"], row["step"]) != ("evaluation", 60)]
    expected = read_rows(longer.directory / "metrics.jsonl")
    assert [row for row in rows if row["event"] == "episode"] == [r for r in expected if r["event"] == "episode"]
    assert load_final(copied) == load_final(longer.directory)


def test_a_finished_run_that_goes_on_has_no_results_until_it_ends_again(copied, signal_at):
    results = [copied / "result.json", copied / "learning_curve.png", copied / "checkpoints" / "final.safetensors"]
    assert all(path.exists() for path in results)
    signal_at(71)
    with pytest.raises(Interrupted):
        dj.resume_run(copied, total_steps=80)
    assert not any(path.exists() for path in results)


def test_a_run_from_an_earlier_checkpoint_leaves_the_other_as_it_is(clean, copied, tmp_path, capsys):
    before = contents(copied)
    assert main(["resume", str(copied), "--from", "30", "--run-dir", str(tmp_path / "branch")]) == 0
    assert contents(copied) == before == contents(tmp_path / "branch")
    assert main(["resume", str(copied), "--from", "31", "--run-dir", str(tmp_path / "other")]) == 5
    assert "30" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert main(["resume", str(copied), "--from", "30"]) == 2
    with pytest.raises(StorageError, match="not empty"):
        dj.resume_run(copied, step=30, into=tmp_path / "branch")


def test_what_is_no_run_cannot_be_resumed(tmp_path):
    with pytest.raises(StorageError, match="not a run directory"):
        dj.resume_run(tmp_path)


# Ended before there was a checkpoint, or after one that is of no use.


@pytest.fixture
def lost_at(monkeypatch):
    """Ends a run without a word after so many steps."""
    should_snapshot = Checkpointer.should_snapshot

    def at(step):
        def until(self, now):
            if now >= step:
                raise Killed
            return should_snapshot(self, now)

        monkeypatch.setattr(Checkpointer, "wanted", until)

    return at


RARELY = {"checkpoint": {"every": 1000}}


def test_a_run_begun_with_weights_begins_with_them_again(clean, copied, lost_at, tmp_path):
    """Though the run that they are of is gone by then."""
    config = config_of(**RARELY, seeds=[1, 2, 3])
    whole = dj.train(config, tmp_path / "whole", init_from=copied)
    lost_at(40)
    with pytest.raises(Killed):
        dj.train(config, tmp_path / "run", init_from=copied)
    shutil.rmtree(copied)
    lost_at(1000)
    run = dj.resume_run(tmp_path / "run")
    assert contents(run.directory) == contents(whole.directory)
    assert run.result["level"] == "weights"


def test_a_branch_begins_with_its_checkpoint_again(clean, lost_at, tmp_path):
    source, other = clean["Pendulum-v1"].directory, {**RARELY, "algorithm": {"tau": 0.5}}
    whole = dj.resume_run(source, step=30, into=tmp_path / "whole", **other)
    lost_at(50)
    with pytest.raises(Killed):
        dj.resume_run(source, step=30, into=tmp_path / "run", **other)
    lost_at(1000)
    run = dj.resume_run(tmp_path / "run")
    assert contents(run.directory) == contents(whole.directory) != contents(source)
    assert run.result["changes"] == whole.result["changes"]


def test_a_branch_that_could_not_start_can_be_taken_up(clean, tmp_path, monkeypatch):
    source = clean["Pendulum-v1"].directory

    def refused(*args):
        raise ConfigError("no room today")

    with monkeypatch.context() as patch:
        patch.setattr("ddpg_jax.training.resume.start", refused)
        with pytest.raises(ConfigError, match="no room today"):
            dj.resume_run(source, step=30, into=tmp_path / "run")
    assert contents(dj.resume_run(tmp_path / "run").directory) == contents(source)


def listing(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"}


def test_a_run_that_is_further_than_it_shall_go_is_left_alone(copied, tmp_path):
    (copied / "result.json").unlink()
    before = listing(copied)
    with pytest.raises(ConfigError, match="the run is at step 60 already"):
        dj.resume_run(copied, total_steps=40)
    with pytest.raises(ConfigError, match="the run is at step 50 already"):
        dj.resume_run(copied, step=50, into=tmp_path / "branch", total_steps=50)
    assert listing(copied) == before
    assert not (tmp_path / "branch").exists()


def test_a_finished_run_without_checkpoints_is_complete(tmp_path, caplog):
    run = dj.train(config_of(checkpoint={"every": 0}), tmp_path / "run")
    before = listing(run.directory)
    assert dj.resume_run(run.directory).result == json.loads(json.dumps(run.result))
    assert "is complete after 60 steps" in caplog.text
    assert main(["verify", str(run.directory)]) == 0
    with pytest.raises(StorageError, match="holds no checkpoint to go on from"):
        dj.resume_run(run.directory, total_steps=80)
    assert listing(run.directory) == before


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOMEM, errno.ESTALE], ids=errno.errorcode.get)
def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_a_broken_one(code, clean, copied, monkeypatch):
    before, system = listing(copied), filesystem.fault_point

    def denied(operation, path):
        if operation == "read" and path.name == "arrays.safetensors":
            raise OSError(code, os.strerror(code))
        system(operation, path)

    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "before", denied)
        with pytest.raises(StorageError, match=rf"arrays.safetensors cannot be read: {os.strerror(code)}; nothing was"):
            dj.resume_run(copied, total_steps=80)
    assert listing(copied) == before


@LOOPS
def test_the_number_of_evaluation_episodes_may_change(identifier, signal_at, tmp_path, monkeypatch):
    monkeypatch.setattr("ddpg_jax.training.device.loop.FIRST_PIECE", 3)
    monkeypatch.setattr("ddpg_jax.training.device.loop.PIECE_SECONDS", 0.0)
    signal_at(30)
    with pytest.raises(Interrupted):
        dj.train(config_of(identifier), tmp_path / "run")
    signal_at(55)
    with pytest.raises(Interrupted):
        dj.resume_run(tmp_path / "run", evaluation={"episodes": 5})
    signal_at(1000)
    run = dj.resume_run(tmp_path / "run")
    rows = [row for row in read_rows(run.directory / "metrics.jsonl") if row["event"] == "evaluation"]
    assert [(row["step"], len(row["returns"])) for row in rows[::2]] == [(25, 3), (50, 5), (60, 5)]


def test_verify_misses_a_record_that_is_lost_or_too_short(copied, capsys):
    size = (copied / "metrics.jsonl").stat().st_size
    (copied / "metrics.jsonl").write_bytes(b"{}")
    assert main(["verify", str(copied)]) == 5
    assert f"BROKEN: holds 2 bytes of {size}" in capsys.readouterr().out
    (copied / "metrics.jsonl").unlink()
    assert main(["verify", str(copied)]) == 5
    assert f"BROKEN: holds 0 bytes of {size}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("available_cores", 99, "other machine than before, so the last bits may differ: cores {} -> 99\n"),
        ("_version", "0.0", "other versions than before, so the last bits may differ: ddpg-jax {} -> 0.0, jax"),
    ],
    ids=["cores", "versions"],
)
def test_what_may_change_the_last_bits_is_said(name, value, said, copied, monkeypatch):
    result = json.loads((copied / "result.json").read_text())
    before = {"available_cores": result["machine"]["cores"], "_version": result["versions"]["ddpg-jax"]}[name]
    monkeypatch.setattr(f"ddpg_jax.runs.result.{name}", lambda *of: value)
    console = Console(record=True, width=1000)
    dj.resume_run(copied, total_steps=62, console=console)
    lines = console.export_text()
    assert said.format(before) in lines
    assert lines.count("than before") == 1


@pytest.mark.slow
def test_a_resumed_run_is_on_as_many_devices_as_before(tmp_path):
    """In processes of their own, as the tests' own devices are fixed."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    for total in (60, 80):
        code = f"""if True:
            import ddpg_jax as dj, jax
            from tiny_run import tiny_config
            from rich.console import Console
            config = tiny_config(env={{"id": "jax:pendulum"}}, total_steps=60)
            run, console = {str(tmp_path / "run")!r}, Console(width=300)
            if {total} == 60:
                dj.train(config, run, console=console)
            else:
                dj.resume_run(run, total_steps=80, console=console)
            print("devices", jax.device_count())
        """
        words = [sys.executable, "-c", code]
        said = subprocess.run(words, env=environment, cwd="tests", capture_output=True, text=True, check=True).stdout
        assert f"devices {available_cores()}" in said
    assert "other device" not in said


# Begun with the weights of another.


@LOOPS
def test_a_run_may_begin_with_the_weights_of_another(clean, identifier, tmp_path, caplog):
    source = clean[identifier]
    config = config_of(identifier, seeds=[1, 2, 3], total_steps=20)  # which learns nothing yet
    run = dj.train(config, tmp_path / "run", init_from=source.directory)
    assert "begins with the weights of" in caplog.text
    assert run.result["level"] == "weights"
    arrays, theirs = (load_file(r.directory / "checkpoints" / "final.safetensors") for r in (run, source))
    assert arrays.keys() == theirs.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(x, theirs[name][[0, 1, 0]], err_msg=name)
    store = CheckpointStore(run.directory / "checkpoints")
    kept = store.load(store.newest()[0]).arrays
    prefix = "lane/learner" if identifier.startswith("jax:") else "learner"
    assert (kept[f"{prefix}/step"] == 0).all()
    for name, x in kept.items():
        if name.startswith(f"{prefix}/params/"):
            np.testing.assert_array_equal(x, kept[name.replace("/params/", "/target_params/", 1)])


def test_weights_of_another_network_are_refused(clean, tmp_path):
    source = clean["Pendulum-v1"].directory
    with pytest.raises(StorageError, match="does not fit the configuration"):
        dj.train(config_of(algorithm={"hidden": [9]}), tmp_path / "run", init_from=source)


# Changed configurations.


STRUCTURAL = {
    "seeds": {"seeds": [4, 8]},
    "env.num_envs": {"env": {"num_envs": 2}},
    "env.max_episode_steps": {"env": {"max_episode_steps": 14}},
    "env.id": {"env": {"id": "MountainCarContinuous-v0"}},
    "algorithm.name": {"algorithm": {"name": "td3"}},
    "algorithm.hidden": {"algorithm": {"hidden": [9]}},
    "algorithm.critic_hidden": {"algorithm": {"critic_hidden": [9]}},
    "algorithm.normalization": {"algorithm": {"normalization": "layer"}},
    "algorithm.weight_decay": {"algorithm": {"weight_decay": "l2", "critic_weight_decay": 1e-3}},
    "algorithm.updates_per_step": {"algorithm": {"updates_per_step": 2}},
    "exploration.kind": {"exploration": {"kind": "ou"}},
    "replay.kind": {"replay": {"kind": "prioritized"}},
    "replay.capacity": {"replay": {"capacity": 999}},
}


@pytest.mark.parametrize("path", STRUCTURAL)
def test_another_structure_is_refused_with_the_field_named(path, copied):
    before = contents(copied)
    with pytest.raises(ConfigError, match=rf"another structure:\n(.*\n)*  {path}: .* -> "):
        dj.resume_run(copied, **merge({"total_steps": 80}, STRUCTURAL[path]))
    assert contents(copied) == before


def test_what_changes_how_it_learns_is_a_warning_and_what_does_not_is_said(copied, caplog):
    changes = {"total_steps": 80, "algorithm": {"tau": 0.5}, "evaluation": {"episodes": 3}, "logging": {"every": 7}}
    dj.resume_run(copied, **changes)
    assert "warning: changed: algorithm.tau: 0.005 -> 0.5, so the run learns otherwise" in caplog.text
    assert "changed: logging.every: 20 -> 7" in caplog.text
    assert "warning: changed: logging" not in caplog.text
    assert dj.load_config(copied / "config.toml").algorithm.tau == 0.5


def test_another_number_changes_how_it_learns_but_none_instead_of_one_the_structure():
    numbers = [{}, {"max_grad_norm": 1.0}, {"max_grad_norm": 0.5}]
    none, one, half = (config_of(algorithm=algorithm) for algorithm in numbers)
    assert [change.effect for change in compare(one, half)] == [Effect.LEARNING]
    assert [change.effect for pair in ((none, one), (one, none)) for change in compare(*pair)] == [
        Effect.STRUCTURAL,
        Effect.STRUCTURAL,
    ]


def test_changes_are_found_field_by_field():
    one, other = config_of(), config_of(algorithm={"tau": 0.5, "hidden": [9]}, seeds=[4, 9], logging={"every": 3})
    found = compare(one, other)
    assert [(c.path, c.effect) for c in found] == [
        ("algorithm.hidden", Effect.STRUCTURAL),
        ("algorithm.tau", Effect.LEARNING),
        ("logging.every", Effect.HARMLESS),
    ]
    assert compare(one, one) == []
    assert compare(config_of(seeds=2), config_of(seeds=[0, 1])) == []
    assert compare(config_of(loop="auto"), config_of(loop="host")) == []
    widths = list(one.algorithm.hidden)
    same = {"hidden": widths, "critic_hidden": widths, "learning_starts": one.algorithm.warmup_steps}
    assert compare(one, config_of(algorithm=same)) == []
    assert [c.path for c in compare(one, config_of(exploration={"kind": "ou"}))] == ["exploration.kind"]


# Environments that fail, or do not repeat themselves.


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
        {},
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
    """Steps of the episodes in progress at the last checkpoint, of all environments."""
    found = CheckpointStore(path / "checkpoints").newest()[0]
    return 0 if found is None else int(CheckpointStore(path / "checkpoints").load(found).arrays["journal/length"].sum())


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
    assert error.value.__notes__ == ["nor could the run be saved: no room"]


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


# When it is saved, and what if it cannot be.


def fail():
    raise StorageError("no room")


def saver_of(monkeypatch, **checkpoint):
    now, said = [0.0], []
    config = dj.load_config(checkpoint=checkpoint).checkpoint
    stop = StopRequest()
    return Checkpointer(config, stop, 0, said.append, clock=lambda: now[0]), now, said, stop


def test_it_is_wanted_at_multiples_but_not_too_often(monkeypatch):
    checkpointer, now, _, stop = saver_of(monkeypatch, every=100, min_seconds=10)
    assert not checkpointer.should_snapshot(150)
    now[0] = 10
    assert not checkpointer.should_snapshot(99)
    assert checkpointer.should_snapshot(100)
    assert checkpointer.should_snapshot(250)
    stop.requested = True
    assert checkpointer.should_snapshot(1)
    assert not saver_of(monkeypatch, every=0, min_seconds=0)[0].should_snapshot(10**9)


def test_a_save_that_fails_is_tried_again_at_longer_intervals_and_not_for_ever(monkeypatch):
    checkpointer, now, said, _ = saver_of(monkeypatch, every=100, min_seconds=0)

    class Full:
        def save(self, checkpoint):
            fail()

    waits = []
    for _ in range(MAX_FAILURES - 1):
        checkpointer.save(Full(), lambda: None)
        before = now[0]
        while not checkpointer.should_snapshot(100):
            now[0] += 1
        waits.append(now[0] - before)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert len(said) == MAX_FAILURES - 1
    assert "no room; trying again in 5 s, training goes on" in said[0]
    with pytest.raises(StorageError, match="10 checkpoints in a row failed"):
        checkpointer.save(Full(), lambda: None)


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_the_last_save_is_tried_three_times(failures, monkeypatch):
    checkpointer, _, said, _ = saver_of(monkeypatch, every=100, min_seconds=0)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    tries = []

    class FullAtFirst:
        def save(self, checkpoint):
            tries.append(checkpoint)
            return fail() if len(tries) <= failures else SimpleNamespace(step=7)

    if failures == 3:
        with pytest.raises(StorageError, match="no room"):
            checkpointer.save_now(FullAtFirst(), lambda: "made")
    else:
        checkpointer.save_now(FullAtFirst(), lambda: "made")
    assert tries == ["made"] * min(failures + 1, 3)
    assert len(said) == min(failures, 2)


def test_a_run_whose_checkpoints_fail_trains_on(clean, tmp_path, monkeypatch, caplog):
    save, tries = CheckpointStore.save, []

    def sometimes(self, checkpoint):
        tries.append(checkpoint.step)
        return fail() if len(tries) == 1 else save(self, checkpoint)

    monkeypatch.setattr(CheckpointStore, "save", sometimes)
    run = dj.train(config_of(), tmp_path / "run")
    assert "no checkpoint: no room" in caplog.text
    assert tries == [10, 60]  # the second one at the end, as the wait is longer than the run
    assert contents(run.directory) == contents(clean["Pendulum-v1"].directory)


@pytest.mark.parametrize("rows", [3, [3], ["row"], [[["event"]]], {"event": "update"}], ids=str)
def test_untaken_rows_that_are_no_rows_are_refused(rows, copied):
    store = CheckpointStore(copied / "checkpoints")
    kept = store.load(store.newest()[0])
    store.save(kept._replace(facts={**kept.facts, "untaken": rows}))
    with pytest.raises(StorageError, match="the checkpoint's description cannot be read"):
        dj.resume_run(copied, total_steps=80)


def test_a_result_that_is_no_json_is_refused(copied):
    (copied / "result.json").write_text("{")
    with pytest.raises(StorageError, match=r"result\.json cannot be read"):
        dj.resume_run(copied)
    assert json.loads((copied / "metrics.jsonl").read_text().splitlines()[0])
