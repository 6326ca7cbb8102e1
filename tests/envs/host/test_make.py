"""Which environments are made, and which are refused, with what words."""

import json
import re
import subprocess
import sys

import custom_envs as custom
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Tuple

from ddpg_jax.envs.host.make import describe, make_env, unknown_id
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import EnvSpec


def _fresh(code):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


QUIET = """if True:
    import logging, sys
    from ddpg_jax.envs.host.make import make_env
    logging.basicConfig(level=sys.argv[1], stream=sys.stdout, format="%(name)s: %(message)s")
    make_env("HalfCheetah-v5", None, {}).close()
    import mujoco
    assert mujoco.get_mju_user_warning() is None
    mujoco.set_mju_user_warning(print)
    make_env("HalfCheetah-v5", None, {}).close()
    assert mujoco.get_mju_user_warning() is print
    mujoco.set_mju_user_warning(None)
    sys.path.append(sys.argv[2])
    make_env("mujoco_handler:Own-v0", None, {}).close()
    assert mujoco.get_mju_user_warning() is print
"""


OWN = """import gymnasium, mujoco
class Own(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))
    def __init__(self):
        mujoco.set_mju_user_warning(print)
gymnasium.register("Own-v0", entry_point=Own)
"""


def test_what_mujoco_says_of_a_model_that_is_loaded_goes_to_the_logger(tmp_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "mujoco_handler.py").write_text(OWN)
    plain = "import gymnasium; gymnasium.make('HalfCheetah-v5').close()"
    said = subprocess.run(
        [sys.executable, "-c", plain], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stderr
    if "deprecated" not in said:
        pytest.skip("this MuJoCo says nothing of that model")
    (tmp_path / "MUJOCO_LOG.TXT").unlink()
    for level, logged in (("WARNING", 0), ("INFO", 1)):
        words = [sys.executable, "-c", QUIET, level, str(folder)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert done.stdout.count("ddpg_jax: MuJoCo: compiler attribute") == logged
        assert done.stdout.count("deprecated") == logged + 1  # a handler of the user's own hears it
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", custom.REFUSED)
def test_spaces_that_cannot_be_trained_are_refused_and_the_environment_is_closed(which):
    message = custom.REFUSED[which][2]
    with pytest.raises(EnvironmentFault, match=message):
        describe(custom.Refused(which))
    closed = custom.Refused.closed
    with pytest.raises(EnvironmentFault, match=message):
        make_env("Refused-v0", None, {"which": which})
    assert custom.Refused.closed == closed + 1


def test_a_described_environment_has_the_bounds_of_each_component():
    low, high = np.array([-2, 0.1], np.float32), np.array([0.5, 7], np.float32)
    spec = describe(custom.Recorder(low, high))
    assert spec == EnvSpec((3,), "float32", tuple(low.tolist()), tuple(high.tolist()))
    assert spec.action_size == 2


@pytest.mark.parametrize(
    ("space", "shape", "dtype"),
    [
        (Box(-np.inf, np.inf, (5,), np.float64), (5,), "float32"),
        (Box(0, 255, (84, 84, 4), np.uint8), (84, 84, 4), "uint8"),
        (Box(0, 255, (7,), np.uint8), (7,), "float32"),  # bytes that are no image
        (Box(0, 255, (84, 84), np.uint8), (7056,), "float32"),
        (Box(-5, 5, (2, 2), np.int64), (4,), "float32"),
        (Box(-1, 1, (), np.float32), (1,), "float32"),
        (Dict(place=Box(-1, 1, (2, 3)), at=Box(0, 9, (), np.int64)), (7,), "float32"),
        (Tuple((Box(-1, 1, (2,)), Dict(a=Box(0, 1, (1,))))), (3,), "float32"),
    ],
    ids=str,
)
def test_dtypes_of_observations(space, shape, dtype):
    env = custom.Walk()
    env.observation_space = space
    assert describe(env)[:2] == (shape, dtype)


def test_half_cheetah_has_float64_observations_that_become_float32(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs into the working directory
    env = make_env("HalfCheetah-v5", None, {})
    assert env.observation_space.dtype == np.float64
    assert describe(env) == EnvSpec((17,), "float32", (-1.0,) * 6, (1.0,) * 6)
    env.close()


@pytest.mark.parametrize(("limit", "expected"), [(None, 200), (7, 7)])
def test_the_time_limit_is_the_environments_own_or_the_one_given(limit, expected):
    env = make_env("Pendulum-v1", limit, {"g": 9.5})
    assert env.unwrapped.g == 9.5
    env.reset(seed=0)
    steps = next(t for t in range(1, 1000) if env.step(np.zeros(1, np.float32))[3])
    assert steps == expected
    env.close()


@pytest.mark.parametrize(
    ("identifier", "near"),
    [("Pendulm-v1", "Pendulum-v1"), ("HalfCheetah-v55", "HalfCheetah-v5"), ("Pendulum", "Pendulum-v1")],
)
def test_an_unknown_id_is_told_with_its_neighbours(identifier, near):
    assert re.search(rf"did you mean .*\b{near}\b", unknown_id(identifier))


def test_an_id_that_resembles_none_is_told_without_neighbours():
    assert "did you mean" not in unknown_id("@@@@@@@@")


@pytest.mark.parametrize("identifier", ["Pendulum-v1", "HalfCheetah-v5", "Walk-v0", "some.module:Thing-v0"])
def test_known_ids_and_ids_with_a_module_pass(identifier):
    assert unknown_id(identifier) is None


def test_an_id_that_is_unknown_is_told_how_to_name_its_module():
    assert unknown_id("Mine-v0").endswith("one of your own is named with its module, as in my_module:Mine-v0")


def test_a_class_may_be_named_without_being_registered():
    env = make_env("custom_envs:Walk", 7, {})
    assert isinstance(env.unwrapped, custom.Walk)
    assert env.spec.max_episode_steps == 7
    env.close()


def test_ids_are_looked_up_and_environments_made_without_jax():
    code = """
import json, sys
import ddpg_jax.envs.factory
from ddpg_jax.envs.host.make import make_env, unknown_id
make_env("Pendulum-v1", 5, {})
print(json.dumps([unknown_id("Pendulum-v1"), unknown_id("Pendulm-v1"), "jax" in sys.modules]))
"""
    known, unknown, jax_imported = json.loads(_fresh(code))
    assert known is None
    assert "Pendulum-v1" in unknown
    assert not jax_imported


@pytest.mark.parametrize(
    ("identifier", "kwargs", "message"),
    [
        ("Pendulm-v1", {}, "Pendulum"),
        ("no_such_module_of_ours:Thing-v0", {}, "no_such_module_of_ours"),
        ("Pendulum-v1", {"gravity": 1.0}, "gravity"),
    ],
)
def test_what_cannot_be_made_is_an_environment_fault_that_names_the_id(identifier, kwargs, message):
    with pytest.raises(EnvironmentFault, match=rf"(?s)env\.id='{identifier}' cannot be made: .*{message}") as error:
        make_env(identifier, None, kwargs)
    assert error.value.exit_code == 3


@pytest.mark.parametrize(
    ("identifier", "absent", "package"),
    [
        ("HalfCheetah-v5", "mujoco", "ddpg-jax[mujoco]"),
        ("BipedalWalker-v3", "Box2D", "gymnasium[box2d]"),
        ("LunarLanderContinuous-v3", "Box2D", "gymnasium[box2d]"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(identifier, absent, package):
    code = f"""
import sys
sys.modules[{absent!r}] = None  # as if it were not installed
from ddpg_jax.envs.host.make import make_env
from ddpg_jax.errors import EnvironmentFault
try:
    make_env({identifier!r}, None, {{}})
except EnvironmentFault as error:
    print(error)
"""
    assert f'pip install "{package}"' in _fresh(code)


def test_what_installs_dm_control_is_named_as_pip_finds_it(monkeypatch):
    """Pip before 23.3 finds an extra by its normal name alone."""
    monkeypatch.setitem(sys.modules, "shimmy", None)
    assert unknown_id("dm_control/no-such-task-v0").endswith('pip install "ddpg-jax[dm-control]"')
