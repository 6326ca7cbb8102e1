"""What docs/sweeps.md says can be typed: its file is a sweep, and its Python runs."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import ddpg_jax as dj
from ddpg_jax.config.load import read_toml
from ddpg_jax.config.marks import traced_fields
from ddpg_jax.config.schema import sections
from ddpg_jax.config.sweep_file import PopulationConfig
from ddpg_jax.training.search.file import is_search, load_search
from ddpg_jax.training.sweep.grid import load_sweep

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sweeps.md").read_text()


def block(language, number=0):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[number]


def test_the_file_shown_is_a_sweep(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(block("toml").replace("../pendulum", str(ROOT / "configs" / "pendulum")))
    sweep = load_sweep(path)
    assert len(sweep.combinations) == 64
    assert len(sweep.groups) == 2


def test_the_start_shown_is_one(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(block("toml", 1) + '[config]\nenv.id = "jax:pendulum"\n')
    sweep = load_sweep(path)
    assert [values["algorithm.tau"] for values in sweep.combinations] == [0.01, 0.05]
    assert (sweep.start.step, [source.run for source in sweep.start.sources]) == (4000, ["first", "second"])


def test_the_population_shown_is_one_with_the_defaults_written_out(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(block("toml", 2))
    sweep = load_sweep(path)
    assert len(sweep.combinations) == 16
    assert sweep.population.config == PopulationConfig(every=2000)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "sweeps").glob("*.toml")), ids=lambda path: path.name)
def test_the_files_in_configs_are_sweeps(path):
    if is_search(read_toml(path)):
        search = load_search(path)
        assert len(search.sample([], 0, search.settings.trials)) > 1
    else:
        assert len(load_sweep(path).combinations) > 1


def test_every_number_that_may_be_a_lane_is_named():
    found = [section for name in ("algorithm", "exploration", "replay") for section in sections()[name]]
    assert len(found) > 9
    for section in found:
        assert all(f"`{field}`" in PAGE or f".{field}`" in PAGE for field in traced_fields(section))


@pytest.mark.slow
def test_the_python_shown_runs(monkeypatch):
    tiny = dj.load_config(
        total_steps=30,
        env={"id": "jax:pendulum", "max_episode_steps": 5},
        algorithm={"hidden": [8], "batch_size": 4, "warmup_steps": 10},
        replay={"capacity": 50},
        evaluation={"every": 15, "episodes": 3},
    )
    monkeypatch.setattr(dj, "load_config", lambda **_: tiny, raising=False)
    names = {}
    with jax.numpy_dtype_promotion("standard"):
        exec(block("python"), names)  # noqa: S102  it is our own page
    assert names["history"].returns.shape == (4, 4, 2, 3)
    critics = jax.tree.leaves(names["states"].params.critic)[0].reshape(16, -1)
    assert len(np.unique(critics, axis=0)) == 16
