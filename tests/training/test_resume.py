"""Runs that are interrupted, resumed, branched and begun from others, through the same doors as a user."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from power import Disk, Killed
from rich.console import Console
from safetensors.numpy import load_file
from tiny_run import SLOW_ON_DEVICE, config_of, contents, load_final, read_rows

import ddpg_jax as dj
from ddpg_jax.cli.main import main
from ddpg_jax.config.load import dump_toml, merge
from ddpg_jax.errors import ConfigError, Interrupted, StorageError
from ddpg_jax.runs import filesystem
from ddpg_jax.runs.checkpoints.store import CheckpointStore
from ddpg_jax.training.checkpointer import Checkpointer
from ddpg_jax.xla.memory import available_cores


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The run of each loop that nothing happened to."""
    folder = tmp_path_factory.mktemp("clean")
    return {name: dj.train(config_of(name), folder / name[:3]) for name in ("Pendulum-v1", "jax:pendulum")}


@pytest.fixture
def copied(clean, tmp_path):
    """A copy of a clean run, to be changed."""
    return shutil.copytree(clean["Pendulum-v1"].directory, tmp_path / "copied")


# Interrupted, and resumed.


def test_only_the_program_has_its_process_for_its_run_alone(copied, tmp_path, monkeypatch, capsys):
    def seen(config, *, tune_process):
        if tune_process:
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


@SLOW_ON_DEVICE
def test_a_run_that_signals_ended_again_and_again_ends_with_the_same_bits(
    clean, identifier, signal_at, tmp_path, monkeypatch
):
    monkeypatch.setattr("ddpg_jax.training.device.loop.FIRST_PIECE", 3)
    monkeypatch.setattr("ddpg_jax.training.device.loop.PIECE_SECONDS", 0.0)
    path, before = tmp_path / "run", signal.getsignal(signal.SIGTERM)
    for step, number in ((7, signal.SIGTERM), (26, signal.SIGINT), (41, signal.SIGUSR1)):
        signal_at(step, number)
        with pytest.raises(Interrupted, match=rf"of 60 steps; to go on: ddpg_jax.resume_run\('{path}'\)"):
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


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """How often a run calls the file system."""
    counted = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filesystem, "fault_point", lambda *call: counted.append(call))
        dj.train(config_of(), tmp_path_factory.mktemp("counted") / "run")
    return len(counted)


SHARES = [1, 4, 0.35, 0.85, 1.0]
MORE_SHARES = [pytest.param(each, marks=pytest.mark.slow) for each in (2, 3, 5, 6, 7, 8, 0.1, 0.6)]


@pytest.mark.parametrize("share", [*SHARES, *MORE_SHARES])
def test_where_a_run_is_cut_off_at_a_call_the_same_command_ends_it(share, calls, clean, tmp_path, monkeypatch):
    """At one of its first calls of the file system, or after a share of them. If the power fails, all that was not
    synced is lost, names too; if only the process ends, nothing is."""
    config, place, process = config_of(), tmp_path / "disk", tmp_path / "process"
    place.mkdir()
    with monkeypatch.context() as patch:
        disk = Disk(place, patch, at=round(share * calls) if isinstance(share, float) else share)
        with suppress(Killed):
            dj.train(config, place / "run")
    shutil.copytree(place, process)
    disk.after_the_power_failed(place)
    for left in (process, place):
        dj.train(config, left / "run", resume="auto")
        assert contents(left / "run") == contents(clean["Pendulum-v1"].directory)


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


def test_a_finished_run_goes_on(clean, copied, caplog):
    longer = dj.train(config_of(total_steps=80), copied.parent / "longer")
    run = dj.resume_run(copied, total_steps=80)
    assert "changed: total_steps: 60 -> 80" in caplog.text
    assert contents(copied)[1] != contents(clean["Pendulum-v1"].directory)[1]
    assert "changes" not in run.result  # under constant schedules it learns what a run of so many steps does
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
    should_save = Checkpointer.should_save

    def at(step):
        def until(self, now):
            if now >= step:
                raise Killed
            return should_save(self, now)

        monkeypatch.setattr(Checkpointer, "should_save", until)

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


def test_fewer_steps_than_a_finished_run_has_made_are_refused_and_nothing_else_is_said(copied, capsys):
    before = listing(copied)
    assert main(["resume", str(copied), "--total-steps", "40", "--logging.every", "7"]) == 2
    said = capsys.readouterr()
    assert "the run is at step 60 already: give more --total-steps" in said.err
    assert "changed" not in said.out
    assert listing(copied) == before


def test_more_steps_under_constant_schedules_are_no_change_of_learning(copied, caplog):
    dj.resume_run(copied, total_steps=80)
    assert "changed: total_steps: 60 -> 80" in caplog.text
    assert "learns otherwise" not in caplog.text


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOMEM, errno.ESTALE], ids=errno.errorcode.get)
def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_a_broken_one(code, clean, copied, monkeypatch):
    before, system = listing(copied), filesystem.fault_point

    def denied(operation, path):
        if operation == "read" and path.name == "arrays.safetensors":
            raise OSError(code, os.strerror(code))
        system(operation, path)

    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "fault_point", denied)
        with pytest.raises(StorageError, match=rf"arrays.safetensors cannot be read: {os.strerror(code)}; nothing was"):
            dj.resume_run(copied, total_steps=80)
    assert listing(copied) == before


@SLOW_ON_DEVICE
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
        said = subprocess.run(
            words, env=environment, cwd="tests/helpers", capture_output=True, text=True, check=True
        ).stdout
        assert f"devices {available_cores()}" in said
    assert "other device" not in said


# Begun with the weights of another.


@SLOW_ON_DEVICE
def test_a_run_may_begin_with_the_weights_of_another(clean, identifier, tmp_path, caplog):
    source = clean[identifier]
    config = config_of(identifier, seeds=[1, 2, 3], total_steps=20)  # which learns nothing yet
    run = dj.train(config, tmp_path / "run", init_from=source.directory)
    assert "begins with the weights of" in caplog.text
    assert "warning: nothing is learned in total_steps=20" in caplog.text
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


# What is kept, and cannot be written or read.


def test_a_run_whose_checkpoints_fail_trains_on(clean, tmp_path, monkeypatch, caplog):
    save, tries = CheckpointStore.save, []

    def sometimes(self, checkpoint):
        tries.append(checkpoint.step)
        if len(tries) == 1:
            raise StorageError("no room")
        return save(self, checkpoint)

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
