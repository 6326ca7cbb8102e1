"""What a pack is called, what trains it, and what its settings have reached by its record."""

import json
import sys

import pytest

from ddpg_jax.config.load import load_config
from ddpg_jax.errors import StorageError
from ddpg_jax.training.search.packs import Pack, alone, make_task, read_reached, write_pack

PACK = Pack("ab", "train", "", (4,), (0, 7))
LANES = Pack("cd", "sweep", "", (4, 9), (0,))


def evaluation(step, figure, seed=0, **more):
    return {"event": "evaluation", "seed": seed, "step": step, "mean_return": figure, **more}


def write_rows(folder, *rows, torn=""):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)


def test_scores_are_those_of_a_step_or_the_mean_up_to_it(tmp_path):
    both = [evaluation(step, figure + seed, seed) for step, figure in ((10, 1), (20, 4), (30, 9)) for seed in (0, 7)]
    write_rows(tmp_path, {"event": "update", "seed": 0, "step": 30}, *both, torn='{"event": "evalu')
    (reached,) = read_reached(tmp_path, PACK, 20, "final")
    assert (reached.score, reached.per_seed) == (7.5, (4, 11))
    (reached,) = read_reached(tmp_path, PACK, 20, "area")
    assert (reached.score, reached.per_seed) == (6, (2.5, 9.5))
    assert read_reached(tmp_path, PACK, 25, "final")[0] == (None, (None, None))
    assert read_reached(tmp_path / "nowhere", PACK, 20, "final")[0].score is None


def test_a_seed_that_diverged_takes_the_score_of_its_setting(tmp_path):
    write_rows(tmp_path, evaluation(10, 1.0), evaluation(10, 2.0, 7), {"event": "diverged", "seed": 7, "step": 10})
    assert read_reached(tmp_path, PACK, 10, "final")[0] == (None, (1.0, None))


def test_lanes_are_told_apart(tmp_path):
    write_rows(tmp_path, evaluation(10, 1.0, combination=0), evaluation(10, 2.0, combination=1))
    assert [each.score for each in read_reached(tmp_path, LANES, 10, "final")] == [1, 2]


def test_a_line_that_is_no_row_is_told(tmp_path):
    write_rows(tmp_path, evaluation(10, 1.0))
    (tmp_path / "metrics.jsonl").write_text("what\n" + (tmp_path / "metrics.jsonl").read_text())
    with pytest.raises(StorageError, match=r"metrics.jsonl, line 1: is no row"):
        read_reached(tmp_path, PACK, 10, "final")


def test_the_same_configuration_is_the_same_directory(tmp_path):
    config = load_config(seeds=2)
    pack = alone(3, config)
    assert pack.name == alone(5, load_config(seeds=2)).name != alone(3, load_config(seeds=3)).name
    write_pack(pack, tmp_path)
    assert load_config(tmp_path / f"{pack.name}.toml") == config
    task = make_task(pack, tmp_path, 100, ("--plugin", "mine"))
    assert task.directory == tmp_path / pack.name
    assert task.command[:5] == (sys.executable, "-m", "ddpg_jax", "train", str(tmp_path / f"{pack.name}.toml"))
    assert task.command[-4:] == ("--plugin", "mine", "--until", "100")


def test_a_run_may_import_what_the_driver_was_allowed_to(tmp_path):
    """Its file names a module, which a file alone may not."""
    own = alone(0, load_config(env={"id": "brought_envs:Reach"}))
    assert make_task(own, tmp_path, None).command[-1] == "--allow-imports"
    assert make_task(own, tmp_path, None, ("--allow-imports",)).command.count("--allow-imports") == 1
    assert "--allow-imports" not in make_task(alone(0, load_config()), tmp_path, None).command
