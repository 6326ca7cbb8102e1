"""Lanes of the host loop: settings beside each other change nothing, and what is stopped goes on to the bit."""

import json

import numpy as np
import pytest
from tiny_run import read_rows
from tiny_sweep import GRID, load_text, tiny_text

import ddpg_jax as dj
from ddpg_jax.cli.main import main
from ddpg_jax.config.load import load_config
from ddpg_jax.config.schema import lane_paths
from ddpg_jax.envs.factory import make_training_envs
from ddpg_jax.errors import ConfigError, EnvironmentFault
from ddpg_jax.training.search.file import load_search
from ddpg_jax.training.search.packs import divide
from ddpg_jax.training.sweep import host_lanes
from ddpg_jax.training.sweep.run import resume_sweep, run_sweep

TINY = tiny_text("Pendulum-v1")
SAVING = {"checkpoint": {"every": 10, "min_seconds": 0}}
LAST = {"algorithm.critic_learning_rate": 1e-2, "exploration.sigma": 0.5}
"""The last combination."""


def load(folder, text=TINY + GRID, **overrides):
    return load_text(folder, text, **overrides)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    return run_sweep(load(folder, **SAVING), folder / "run")


def lane(run, combination, seed):
    """All rows of a lane, without the number of its combination."""
    rows = [row for row in read_rows(run.directory / "metrics.jsonl") if row.pop("combination") == combination]
    return [row for row in rows if row["seed"] == seed]


def left(run):
    assert run.result["complete"]
    assert not (run.directory / "checkpoints").exists()
    files = [(run.directory / name).read_bytes() for name in ("metrics.jsonl", "best.toml", "sweep.toml")]
    return files, json.loads((run.directory / "result.json").read_text())["combinations"]


def settings(*each):
    lines = [["[[settings]]", *(f"{name} = {value}" for name, value in one.items())] for one in each]
    return "\n".join(line for one in lines for line in one)


def test_a_lane_does_not_depend_on_the_settings_and_seeds_beside_it(swept, tmp_path):
    """In as many lanes: one setting with four seeds, and four settings with two seeds, twice of each."""
    alone = run_sweep(load(tmp_path, TINY + settings(LAST), seeds=[1, 4, 2, 9, 0, 5, 6, 7]), tmp_path / "run")
    for seed in (4, 9):
        assert lane(alone, 0, seed) == lane(swept, 3, seed)
    assert len(lane(swept, 3, 4)) > 6
    returns = [lane(swept, number, 4)[-1]["returns"] for number in range(4)]
    assert len({tuple(each) for each in returns}) == 4


def test_a_lane_equals_a_run_of_its_own(swept, tmp_path):
    run = dj.train(load(tmp_path).configs[2], tmp_path / "run", quiet=True)
    for seed in (4, 9):
        mine = [row for row in read_rows(run.directory / "metrics.jsonl") if row["seed"] == seed]
        theirs = lane(swept, 2, seed)
        assert [(row["event"], row["step"]) for row in mine] == [(row["event"], row["step"]) for row in theirs]
        for one, other in zip(mine, theirs, strict=True):
            shared = one.keys() & other.keys() - {"event"}
            for name in shared:
                np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6)


MEMORY = {"memory": {"length": 4, "hidden": 4}}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("exploration.theta", {"exploration": {"kind": "ou"}}),
        pytest.param("algorithm.memory.learning_rate", {"algorithm": MEMORY}, marks=pytest.mark.slow),
    ],
)
def test_noise_with_a_state_and_networks_that_remember_have_lanes(field, changes, tmp_path):
    sweep = load(tmp_path, TINY + settings({field: 0.02}, {field: 0.9}), seeds=[4], **changes)
    assert [group.numbers for group in sweep.groups] == [(0, 1)]
    run = run_sweep(sweep, tmp_path / "run")
    alone = dj.train(sweep.configs[1], tmp_path / "alone", quiet=True)
    last = [row for row in read_rows(alone.directory / "metrics.jsonl") if row["event"] == "evaluation"][-1]
    np.testing.assert_allclose(lane(run, 1, 4)[-1]["returns"], last["returns"], rtol=1e-4)
    assert lane(run, 0, 4)[-1]["returns"] != lane(run, 1, 4)[-1]["returns"]


def test_what_the_replay_of_the_host_computes_with_is_structure(tmp_path):
    config = load_config(replay={"kind": "prioritized"})
    on_device = load_config(replay={"kind": "prioritized"}, env={"id": "jax:pendulum"})
    replay = {"replay.alpha", "replay.beta", "replay.beta_end", "replay.epsilon"}
    assert set(lane_paths(on_device)) - set(lane_paths(config)) == replay | {"algorithm.gamma"}
    text = TINY + "[grid]\nalgorithm.gamma = [0.9, 0.99]\nalgorithm.tau = [0.1, 0.2]\n"
    assert [group.numbers for group in load(tmp_path, text).groups] == [(0, 1), (2, 3)]


@pytest.mark.slow
def test_structure_runs_group_by_group_and_goes_on_to_the_bit(tmp_path):
    """Stopped twice in the first group, and in the second."""
    text = TINY + "[grid]\nalgorithm.tau = [0.1, 0.2]\nalgorithm.n_step = [1, 2]\n"
    (tmp_path / "clean").mkdir()
    clean = run_sweep(load(tmp_path / "clean", text, **SAVING), tmp_path / "clean" / "run")
    for at, reached in ((20, [20, 0]), (40, [40, 0]), (20, [60, 20])):

        def stop(report, at=at):
            if report.step == at:
                report.stop()

        run = run_sweep(load(tmp_path, text, **SAVING), tmp_path / "run", resume="auto", callbacks=[stop])
        assert not run.result["complete"]
        steps = {entry["combination"]: entry["step"] for entry in run.result["combinations"]}
        assert [steps[0], steps[1]] == reached
    assert left(resume_sweep(tmp_path / "run")) == left(clean)


def test_a_diverged_lane_ranks_last_and_disturbs_nobody(swept, tmp_path):
    sweep = load(tmp_path, **SAVING)
    (group,) = sweep.groups
    group.hyper["algorithm.critic_learning_rate"][2] = np.inf
    run = run_sweep(sweep, tmp_path / "run")
    last = run.result["combinations"][-1]
    assert (last["combination"], last["interquartile_mean"], last["diverged_seeds"]) == (2, None, 2)
    for number in (0, 1, 3):
        assert lane(run, number, 9) == lane(swept, number, 9)


class Breaks(Exception):
    """What an environment raises that is at fault."""


def test_an_environment_that_fails_ends_the_sweep_saved(swept, tmp_path):
    import gymnasium

    steps, healed = [0], []

    class Failing(gymnasium.Wrapper):
        def step(self, action):
            steps[0] += 1
            if steps[0] > 200 and not healed:
                raise Breaks("no contact")
            return super().step(action)

    def make(**kwargs):
        return Failing(gymnasium.make("Pendulum-v1", **kwargs).unwrapped)

    text = TINY.replace('env.id = "Pendulum-v1"\n', "") + GRID
    whole = tmp_path / "whole"
    whole.mkdir()
    with pytest.raises(EnvironmentFault, match="no contact"):
        run_sweep(load(tmp_path, text, **SAVING), tmp_path / "run", env=make)
    healed.append(True)
    again = resume_sweep(tmp_path / "run", env=make)
    clean = run_sweep(load(whole, text, **SAVING), whole / "run", env=make)
    assert left(again) == left(clean)
    assert lane(clean, 3, 9) == lane(swept, 3, 9)


@pytest.mark.slow
def test_lanes_run_in_turns_where_memory_or_instances_are_few(swept, tmp_path, monkeypatch):
    sweep = load(tmp_path)
    with_room = host_lanes.most_lanes(sweep.configs[0], _spec(sweep.configs[0]), 8)
    few = load(tmp_path, env={"max_instances": 5})
    assert (with_room, host_lanes.most_lanes(few.configs[0], _spec(few.configs[0]), 8)) == (8, 4)
    free = 4000
    monkeypatch.setattr("ddpg_jax.replay.host.ring.available_bytes", lambda: 8 * free)
    assert host_lanes.most_lanes(sweep.configs[0], _spec(sweep.configs[0]), 8) == 8
    monkeypatch.setattr("ddpg_jax.replay.host.ring.available_bytes", lambda: 3 * free)
    assert host_lanes.most_lanes(sweep.configs[0], _spec(sweep.configs[0]), 8) == 3
    run = run_sweep(sweep, tmp_path / "run")
    for number in (0, 3):
        mine, theirs = lane(run, number, 9), lane(swept, number, 9)
        np.testing.assert_allclose(mine[-1]["returns"], theirs[-1]["returns"], rtol=1e-4)
    monkeypatch.setattr("ddpg_jax.replay.host.ring.available_bytes", lambda: 10)
    with pytest.raises(ConfigError, match=r"replay.capacity=100 needs .* for 1 seeds"):
        run_sweep(sweep, tmp_path / "none")


def _spec(config):
    made = make_training_envs(config.model_copy(update={"seeds": 1}))
    made.close()
    return made.spec


def test_a_search_packs_settings_side_by_side_in_equal_parts(tmp_path):
    """Six settings of three seeds are two programs; one of a structure of its own is a run of its own."""
    text = TINY.replace("[4, 9]", "3") + "[search]\n[search.space]\nalgorithm.tau = { low = 0.01, high = 0.9 }\n"
    (tmp_path / "search.toml").write_text(text)
    search = load_search(tmp_path / "search.toml")
    packs = divide(search, {i: {"algorithm.tau": 0.1 + i / 100} for i in range(6)} | {8: {"algorithm.tau": 0.5}})
    assert [(pack.command, pack.trials) for pack in packs] == [("sweep", (0, 1, 2, 3)), ("sweep", (4, 5, 8))]
    other = {0: {"algorithm.tau": 0.1}, 1: {"algorithm.tau": 0.2, "algorithm.n_step": 2}}
    assert [(pack.command, pack.trials) for pack in divide(search, other)] == [("train", (0,)), ("train", (1,))]


def test_the_command_trains_and_shows_a_table(tmp_path, capsys):
    (tmp_path / "sweep.toml").write_text(TINY + "[grid]\nalgorithm.tau = [0.1, 0.2]\n")
    assert main(["sweep", str(tmp_path / "sweep.toml"), "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "2 combinations on Pendulum-v1" in shown
    assert max(map(len, shown.splitlines())) <= 80 or "ranking.png" in shown
    assert (tmp_path / "run" / "ranking.png").stat().st_size > 1000
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert "is complete" in capsys.readouterr().out
