"""The presets: what each pair of a task and a way to learn comes to, and how they are found and joined."""

import json
import subprocess
import sys
import tomllib
import zipfile
from itertools import product
from pathlib import Path

import pytest

from ddpg_jax.cli.arguments import parse_config
from ddpg_jax.config.algorithms import CategoricalConfig
from ddpg_jax.config.diff import compare
from ddpg_jax.config.load import dump_toml, load_config, resolve
from ddpg_jax.config.presets import is_preset, preset_names, read_preset, summarize_preset
from ddpg_jax.config.schema import Config
from ddpg_jax.errors import ConfigError
from ddpg_jax.training.sweep.grid import read_base

ROOT = Path(__file__).parents[2]
FROZEN = json.loads((Path(__file__).parent / "presets.json").read_text())
"""`learned`: all fields of HalfCheetah under each way to learn; `task`: in which fields other tasks differ from it."""

WITH_PICTURES = ("ddpg_pixels", "drqv2", "drqv2_small")


def goes_together(task: str, algorithm: str) -> bool:
    """Who sees pictures is not disturbed by what hides observations."""
    return algorithm not in WITH_PICTURES or not task.endswith(("no_velocity", "no_angle"))


PAIRS = [pair for pair in product(*preset_names().values()) if goes_together(*pair)]


IN_JAX = (
    "hidden_pendulum",
    "jax_cartpole_swingup",
    "jax_pendulum",
    "jax_pendulum_no_angle",
    "jax_pendulum_no_velocity",
    "jax_reacher",
    "recall",
    "tmaze",
)


def load_pair(task: str, algorithm: str) -> Config:
    """FastTD3 asks for worker processes, which an environment written in JAX has no use for."""
    changes = {"env": {"workers": 0}} if task in IN_JAX and algorithm.startswith("fasttd3") else {}
    return load_config(task, algorithm, **changes)


def flat(config: Config) -> dict[str, object]:
    values = config.model_dump(mode="json")
    inner = {
        f"{name}.{field}": v for name, table in values.items() if isinstance(table, dict) for field, v in table.items()
    }
    for table in ("algorithm.memory", "algorithm.encoder", "env.pixels"):
        inner |= {f"{table}.{field}": value for field, value in (inner.pop(table) or {}).items()}
    return {name: value for name, value in values.items() if not isinstance(value, dict)} | inner


def test_there_are_all_pairs():
    tasks, algorithms = preset_names().values()
    assert len(PAIRS) == 499
    assert sorted(FROZEN["learned"]) == sorted(algorithms)
    assert sorted(FROZEN["task"]) == sorted(tasks)


@pytest.mark.parametrize(("task", "algorithm"), PAIRS)
def test_a_pair_is_what_it_was(task, algorithm):
    """What is changed on purpose is changed in the frozen file too; fields that were added since are not in it."""
    frozen = FROZEN["learned"][algorithm] | FROZEN["task"][task]["all"] | FROZEN["task"][task].get(algorithm, {})
    fields = flat(load_pair(task, algorithm))
    assert {name: fields.get(name, "gone") for name in frozen} == frozen


@pytest.mark.parametrize(("task", "algorithm"), PAIRS)
def test_a_resolved_pair_reads_back_equal(task, algorithm):
    config = load_pair(task, algorithm)
    assert resolve(tomllib.loads(dump_toml(config)), {}, source="dumped") == config


def test_tasks_written_in_jax_are_known_and_need_no_workers():
    assert [task for task in preset_names()["tasks"] if load_config(task).on_device] == list(IN_JAX)
    with pytest.raises(ConfigError, match=r"env\.workers = 8 .*set it to 0"):
        load_config("tmaze", "fasttd3")


def test_a_preset_says_in_a_line_what_it_is():
    for names in preset_names().values():
        for name in names:
            assert read_preset(name).startswith(f"# {summarize_preset(name)}\n")
            assert 10 < len(summarize_preset(name)) <= 50


def test_presets_are_words_and_files_have_a_dot_or_a_slash():
    assert is_preset("half_cheetah")
    for path in ("my.toml", "./mine", "a/b", Path("mine"), ".."):
        assert not is_preset(path)
    with pytest.raises(ConfigError, match=r"no preset half_chetah; did you mean half_cheetah\?.*\./half_chetah"):
        load_config("half_chetah")


def test_files_are_joined_in_order(tmp_path):
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text("seeds = 2\ntotal_steps = 7\n[algorithm]\ntau = 0.1\ngamma = 0.5\n")
    two.write_text("seeds = 3\n[algorithm]\ntau = 0.2\n")
    config = load_config("hopper", one, two, algorithm={"gamma": 0.6})
    assert (config.env.id, config.seeds, config.total_steps) == ("Hopper-v5", 3, 7)
    assert (config.algorithm.tau, config.algorithm.gamma, config.algorithm.warmup_steps) == (0.2, 0.6, 1000)
    with pytest.raises(ConfigError) as caught:
        load_config(one, two, "hopper", algorithm={"tua": 0.6}, total_steps=0)
    one.write_text("[algorithm]\ngama = 1\ntau = 3\n")
    with pytest.raises(ConfigError) as caught:
        load_config(one, two, seeds=0)
    for line in (f"algorithm.gama = 1 ({one}): unknown key; did you mean gamma?", "seeds = 0 (arguments): must be"):
        assert line in str(caught.value)
    assert "algorithm.tau" not in str(caught.value)


@pytest.mark.parametrize("words", [("inverted_pendulum", "td3_paper"), ("td3_paper", "inverted_pendulum")])
def test_what_holds_of_a_pair_wins_over_both_and_yields_to_what_comes_later(words, tmp_path):
    """Noise of 0.1, 0.2 and at most 0.5 in units of an action within +-3, as TD3's authors have it."""
    config = load_config(*words)
    noise = config.exploration.sigma, config.algorithm.target_noise, config.algorithm.target_noise_clip
    assert [3 * each for each in noise] == pytest.approx([0.1, 0.2, 0.5], rel=1e-12)
    file = tmp_path / "mine.toml"
    file.write_text("[exploration]\nsigma = 0.2\n")
    assert load_config(*words, file).exploration.sigma == 0.2
    assert load_config("hopper", "td3_paper").exploration.sigma == 0.1
    assert parse_config(words, []) == config
    assert read_base(words, tmp_path)["exploration"]["sigma"] == config.exploration.sigma


def test_td3_as_published_learns_while_actions_are_still_uniform():
    for config in (load_config("half_cheetah", "td3_paper"), load_config(ROOT / "configs/pendulum/td3_paper.toml")):
        assert config.algorithm.learning_begins == config.algorithm.batch_size == 100 < config.algorithm.warmup_steps


def test_files_have_the_lengths_and_layers_of_what_they_name():
    cheetah = load_config(ROOT / "configs/playground/cheetah_run/fasttd3.toml")
    assert cheetah.total_steps == 150_000 * cheetah.env.num_envs
    tutorial = load_config(ROOT / "configs/pendulum/tutorial.toml").algorithm
    assert (tutorial.initializer, tutorial.final_scale) == ("truncated_normal", 3e-3)


def test_a_mistake_is_not_hidden_by_another_kind(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text("[algorithm]\nname = 'td3'\npolcy_delay = 3\nnum_critics = 3\n[exploration]\nsgma = 1\nsigma = 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(mine, "ddpg_paper")
    said = str(caught.value)
    assert said.startswith("2 mistakes")
    assert "algorithm.polcy_delay = 3" in said
    assert "exploration.sgma = 1" in said


@pytest.mark.parametrize("algorithm", ["d4pg", "fasttd3"])
def test_categorical_critics_take_the_range_of_the_task(algorithm):
    config = load_config(env={"value_range": [-3, 4]}, algorithm={"name": algorithm, "v_max": 9.5})
    assert (config.algorithm.v_min, config.algorithm.v_max) == (-3.0, 9.5)
    assert isinstance(config.algorithm, CategoricalConfig)
    with pytest.raises(ConfigError) as caught:
        load_config(algorithm={"name": algorithm})
    for field in ("v_min", "v_max"):
        assert f"algorithm.{field}: must be given, or env.value_range" in str(caught.value)
    with pytest.raises(ConfigError, match=r"algorithm\.name"):
        load_config(algorithm={"name": [algorithm]}, env={"value_range": [2, 3]})
    with pytest.raises(ConfigError) as caught:
        load_config(algorithm={"name": algorithm}, env={"value_range": [3, 2]})
    assert str(caught.value).splitlines()[1:] == ["  env.value_range = [3, 2] (arguments): 3.0 is not below 2.0"]


def test_what_is_said_last_of_the_range_holds(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("[algorithm]\nv_min = -5\nv_max = 5\n")
    config = load_config("ant", "d4pg", file)
    assert (config.algorithm.v_min, config.algorithm.v_max) == (-5.0, 5.0)
    config = load_config("ant", "d4pg", file, env={"value_range": [-1, 1]})
    assert (config.algorithm.v_min, config.algorithm.v_max) == (-1.0, 1.0)


def test_a_run_from_before_the_range_was_a_field_of_the_task_goes_on():
    """The ends of its atoms stand in its file; that its task has a range too is no difference."""
    now = load_config("hopper", "d4pg")
    stored = now.model_dump(mode="json", exclude_none=True)
    del stored["env"]["value_range"]
    before = Config.model_validate(stored)
    assert before.env.value_range is None
    assert compare(before, now) == compare(now, before) == []
    changed = resolve(stored, {"env": {"value_range": [0, 9]}}, source="config.toml")
    assert [change.path for change in compare(before, changed)] == ["algorithm.v_min", "algorithm.v_max"]


@pytest.mark.slow
def test_the_wheel_holds_the_presets(tmp_path):
    words = (
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    )
    subprocess.run([sys.executable, *words], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    for kind, names in preset_names().items():
        assert {f"ddpg_jax/config/presets/{kind}/{name}.toml" for name in names} <= held
    assert "ddpg_jax/config/presets/pairs/inverted_pendulum+td3_paper.toml" in held
