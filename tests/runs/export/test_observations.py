"""Policies whose observation is put together: of the arrays of a Dict, of stacked pictures, of numbers below them."""

import json
import re

import jax.export
import numpy as np
import pytest
from stored_policies import UNEQUAL, read_arrays, store_run

import ddpg_jax as dj
from ddpg_jax.envs.mixed import number_rows, put_below
from ddpg_jax.errors import ConfigError
from ddpg_jax.runs.export import numpy_policy
from ddpg_jax.runs.export.golden import Golden, differences
from ddpg_jax.types import ObsPart

DICT = UNEQUAL._replace(
    layout=(
        ObsPart(("arm", "joints"), 0, 2, (2,), "float64"),
        ObsPart(("arm", "lost"), 2, 3, (1, 1), "float32"),
        ObsPart(("goal", "0"), 3, 4, (1,), "float32"),
        ObsPart(("goal", "1"), 4, 5, (), "float32"),
    )
)
MATRIX = UNEQUAL._replace(obs_shape=(6,), layout=(ObsPart((), 0, 6, (2, 3), "float32"),))
STACK, SIZE, NUMBERS = 2, 17, 3
ROWS = number_rows(NUMBERS, (SIZE, 1))
SEEN = UNEQUAL._replace(obs_shape=(STACK, SIZE, SIZE, 1), obs_dtype="uint8", stack=STACK)
FELT = SEEN._replace(obs_shape=(STACK, SIZE + ROWS, SIZE, 1), proprioception=NUMBERS)
PIXELS = {
    "name": "drqv2",
    "hidden": (6, 6),
    "encoder": {"kind": "drqv2", "channels": 3, "features": 5, "shift": 2},
}


def as_dict(obs):
    """Vectors as the environment would give them, in another order; the goal is a tuple."""
    joints, lost, goal = obs[..., :2], obs[..., 2:3, None], (obs[..., 3:4], obs[..., 4])
    return {"goal": goal, "arm": {"lost": lost, "joints": joints.astype(np.float64)}}


def exported(path, to, spec, **settings):
    """The folder, its golden observations and actions, and the policy in Python."""
    run = store_run(path / "run", spec, **settings)
    dj.export_policy(run, to=to, out=path / "out")
    arrays = read_arrays(path / "out" / "golden.npz")
    return path / "out", Golden(arrays["obs"], arrays["action"]), dj.load_policy(run)


def stablehlo(folder):
    program = jax.export.deserialize(bytearray((folder / "policy.stablehlo").read_bytes()))
    return lambda obs: np.asarray(program.call(obs))


def check_ordinary(spec, golden, action):
    usual = Golden(golden.obs[:600], golden.action[:600])
    assert differences(spec, usual, action[:600]).max() < 1e-6


def test_a_policy_that_observes_a_dict_takes_vectors_and_what_the_environment_gives(tmp_path):
    folder, golden, policy = exported(tmp_path, ("numpy", "stablehlo"), DICT, normalize_observations=True)
    few = golden.obs[:9]
    np.testing.assert_array_equal(policy(as_dict(golden.obs)), golden.action)
    check_ordinary(DICT, golden, stablehlo(folder)(golden.obs))
    act = numpy_policy.load_policy(folder / "policy.safetensors")
    check_ordinary(DICT, golden, act(golden.obs))
    np.testing.assert_array_equal(act(as_dict(few)), act(few))
    np.testing.assert_array_equal(act(as_dict(few[3])), act(few[3]))
    with pytest.raises(KeyError, match="arm"):
        act({"goal": few})
    spec = json.loads((folder / "spec.json").read_text())["env"]
    assert [(part["path"], part["start"], part["stop"]) for part in spec["obs_layout"]] == [
        (["arm", "joints"], 0, 2),
        (["arm", "lost"], 2, 3),
        (["goal", "0"], 3, 4),
        (["goal", "1"], 4, 5),
    ]
    card = (folder / "README.md").read_text()
    assert '| 2 to 2 | `["arm"]["lost"]` | (1, 1) | float32 |' in card
    assert "It takes observations put together as said below" in card


def test_a_policy_that_observes_a_matrix_takes_it_and_its_numbers(tmp_path):
    folder, golden, policy = exported(tmp_path, "numpy", MATRIX)
    act, matrices = numpy_policy.load_policy(folder / "policy.safetensors"), golden.obs.reshape(-1, 2, 3)
    np.testing.assert_array_equal(policy(matrices), golden.action)
    np.testing.assert_array_equal(act(matrices), act(golden.obs))
    assert act(matrices[0]).shape == (3,)
    assert "| 0 to 5 | `all of it` | (2, 3) | float32 |" in (folder / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SEEN, FELT], ids=["pictures", "pictures and numbers"])
def test_a_policy_that_sees_pictures_is_exported_where_its_encoder_can_go(spec, tmp_path):
    env = {"pixels": {"size": SIZE, "gray": True, "stack": STACK, "proprioception": bool(spec.proprioception)}}
    to = ("safetensors", "stablehlo")
    folder, golden, policy = exported(tmp_path, to, spec, env=env, **PIXELS)
    act = stablehlo(folder)
    np.testing.assert_array_equal(policy(golden.obs), golden.action)
    check_ordinary(spec, golden, act(golden.obs))
    assert np.ptp(golden.action[:600], 0).min() > 0
    assert act(golden.obs[:0]).shape == (0, 3)
    spoken = json.loads((folder / "spec.json").read_text())["env"]
    assert (spoken["obs_stack"], spoken["proprioception"]) == (STACK, spec.proprioception)
    assert f"the last {STACK} pictures of the episode, the oldest first" in (folder / "README.md").read_text()


def test_the_numbers_below_a_picture_are_put_there_as_the_card_says_and_are_read(tmp_path):
    env = {"pixels": {"size": SIZE, "gray": True, "stack": STACK, "proprioception": True}}
    folder, golden, _ = exported(tmp_path, ("safetensors", "stablehlo"), FELT, env=env, **PIXELS)
    (block,) = re.findall(r"```python\n(import numpy.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    picture, act = golden.obs[0, -1, :SIZE], stablehlo(folder)
    actions = []
    for numbers in (np.zeros(NUMBERS), np.arange(NUMBERS) + 0.5):
        names = {"numbers": numbers, "picture": picture}
        exec(block, names)  # noqa: S102  it is our own card
        np.testing.assert_array_equal(names["picture"], put_below(picture, numbers))
        actions.append(act(np.stack([golden.obs[0, 0], names["picture"]])[None]))
    assert (actions[0] != actions[1]).any()


@pytest.mark.parametrize("to", ["numpy", "onnx"])
def test_a_policy_that_sees_pictures_is_refused_where_its_encoder_cannot_go(to, tmp_path, monkeypatch):
    monkeypatch.setattr("ddpg_jax.runs.export.export.check_forms", lambda to: (to,))  # onnx may not be installed
    env = {"pixels": {"size": SIZE, "gray": True, "stack": STACK}}
    run = store_run(tmp_path / "run", SEEN, env=env, **PIXELS)
    with pytest.raises(
        ConfigError, match=r"^a policy that sees pictures can be exported to safetensors and"
    ) as refused:
        dj.export_policy(run, to=to, out=tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "own", [{"name": "td7", "input_width": 5}, {"name": "mrq", "critic_hidden": (6,), "action_embedding": 4}]
)
def test_a_policy_that_sees_embeddings_is_exported_where_its_encoder_can_go(own, tmp_path):
    shared = {"hidden": (6, 6), "embedding_size": 4, "encoder_hidden": (6,)}
    folder, golden, policy = exported(tmp_path, ("safetensors", "stablehlo"), UNEQUAL, **shared, **own)
    np.testing.assert_array_equal(policy(golden.obs), golden.action)
    check_ordinary(UNEQUAL, golden, stablehlo(folder)(golden.obs))
    with pytest.raises(ConfigError, match=r"^a policy that sees embeddings can be exported to safetensors and"):
        dj.export_policy(tmp_path / "run", to="numpy", out=tmp_path / "other")
