"""What is read of a run, and of which group it is."""

import shutil

import pytest
from recorded_runs import write_run

from ddpg_jax.errors import StorageError
from ddpg_jax.runs.compare.evaluations import NEVER, group_runs, read_run

ATOMS = {"v_min": -1500.0, "v_max": 0.0}


@pytest.fixture
def make(tmp_path):
    """`(name, **config) -> path` of a run that was evaluated once."""
    return lambda name, **config: write_run(tmp_path / name, [10], [[1.0, 2.0]], **config)


def sizes(groups):
    return {name: len(found) for name, found in groups.items()}


def test_a_real_run_is_read(run):
    found = read_run(run.directory)
    assert found.task == "Pendulum-v1"
    assert found.steps.tolist() == [25, 50, 60]
    assert found.returns.shape == (3, 2)
    assert found.returns[-1].tolist() == pytest.approx(run.result["final"]["per_seed"])
    assert (found.seconds[1:] > found.seconds[:-1]).all()
    assert found.machine.endswith(run.result["versions"]["jax"])
    assert found.diverged.tolist() == [NEVER, NEVER]


def test_runs_are_grouped_by_algorithm_whatever_their_seeds_and_records(make):
    runs = [
        make("a", algorithm={"name": "td3"}),
        make("b", algorithm={"name": "td3"}, logging={"every": 7}, checkpoint={"every": 5}, evaluation={"every": 3}),
        make("c", algorithm={"name": "td3"}, env={"id": "MountainCarContinuous-v0"}),
        make("d", algorithm={"name": "d4pg", **ATOMS}),
    ]
    groups = group_runs(runs)
    assert sizes(groups) == {"td3": 3, "d4pg": 1}
    assert [each.task for each in groups["td3"]] == ["Pendulum-v1", "Pendulum-v1", "MountainCarContinuous-v0"]


def test_what_differs_is_in_the_name(make):
    runs = [
        make("a", algorithm={"tau": 0.01}),
        make("b", algorithm={"tau": 0.02}),
        make("c", algorithm={"tau": 0.02}, exploration={"kind": "ou"}),
        make("d", algorithm={"name": "td3"}),
        make("e", env={"id": "module:Own-v0"}, algorithm={"tau": 0.01}),
        make("f", algorithm={"name": "no_such_module:make_agent"}),
    ]
    assert list(sizes(group_runs(runs))) == [
        "ddpg, tau 0.01, kind gaussian",
        "ddpg, tau 0.02, kind gaussian",
        "ddpg, tau 0.02, kind ou",
        "td3",
        "no_such_module:make_agent",
    ]


def test_many_differences_are_named_by_the_directory(make):
    other = {"tau": 0.5, "gamma": 0.5, "batch_size": 5, "critic_learning_rate": 0.5}
    assert list(group_runs([make("a"), make("b", algorithm=other)])) == ["ddpg, a", "ddpg, b"]


def test_a_configuration_that_this_version_cannot_read_is_compared_as_text(make):
    runs = [make("a"), make("b"), make("c")]
    for path, number in zip(runs, (1, 1, 2), strict=True):
        text = (path / "config.toml").read_text()
        (path / "config.toml").write_text(text.replace("[algorithm]", f"[algorithm]\nown = {number}"))
    assert sizes(group_runs(runs)) == {"ddpg, own 1": 2, "ddpg, own 2": 1}


def test_the_processes_of_a_job_are_its_seeds(make, tmp_path):
    whole = tmp_path / "job"
    for i in range(2):
        shutil.copytree(make(f"part-{i}"), whole / f"process-{i}")
    assert sizes(group_runs([whole])) == {"ddpg": 2}


def test_diverged_seeds_are_read(tmp_path):
    path = write_run(tmp_path / "run", [10, 20], [[1.0, 2.0], [3.0, 4.0]], diverged={1: 15})
    assert read_run(path).diverged.tolist() == [NEVER, 15]


def test_a_run_without_an_evaluation_is_refused(make):
    path = make("a")
    (path / "metrics.jsonl").write_text("")
    with pytest.raises(StorageError, match="has no evaluation yet"):
        read_run(path)
