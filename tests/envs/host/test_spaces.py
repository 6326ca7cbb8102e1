"""Observations of several arrays become one vector whose order is known, and actions have the shape of their space."""

import json
from typing import Any

import custom_envs as custom
import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Tuple, flatten

from ddpg_jax.envs.host.make import describe
from ddpg_jax.envs.host.spaces import as_vectors
from ddpg_jax.envs.host.vector import VectorEnv
from ddpg_jax.errors import EnvironmentFault, StorageError
from ddpg_jax.runs.weights import as_spec
from ddpg_jax.types import ObsPart

ARM = Dict(
    {
        "wrist": Box(-9, 9, (2, 3), np.float64),
        "base": Dict({"y": Box(-1, 1, (), np.float32), "x": Box(0, 99, (2,), np.int64)}),
        "hand": Tuple((Box(-1, 1, (1,)), Box(0, 255, (2, 2), np.uint8))),
    }
)
LAYOUT = (
    ObsPart(("base", "x"), 0, 2, (2,), "int64"),
    ObsPart(("base", "y"), 2, 3, (), "float32"),
    ObsPart(("hand", "0"), 3, 4, (1,), "float32"),
    ObsPart(("hand", "1"), 4, 8, (2, 2), "uint8"),
    ObsPart(("wrist",), 8, 14, (2, 3), "float64"),
)


class Arm(gymnasium.Env):
    """Reports samples of a space, and keeps the actions it was given."""

    def __init__(self, space: gymnasium.Space = ARM, action: tuple[int, ...] = (2, 3), change: Any = lambda obs: obs):
        self.observation_space, self._change = space, change
        self.action_space = Box(-2, 2, action, np.float32)
        self.seen, self.actions = [], []

    def _obs(self) -> Any:
        self.seen.append(self.observation_space.sample())
        return self._change(self.seen[-1])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        self.observation_space.seed(seed)
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        self.actions.append(action)
        return self._obs(), 0.0, False, False, {}


def lanes_of(env: Arm) -> VectorEnv:
    return VectorEnv(lambda: env, (1, 1), custom.lane_seed)


def test_the_layout_says_where_each_array_lies_in_the_order_of_the_space():
    spec = describe(Arm())
    assert (spec.obs_shape, spec.obs_dtype, spec.layout) == ((14,), "float32", LAYOUT)
    assert (spec.part("base.x"), spec.part("base")) == (LAYOUT[0], None)


@pytest.mark.parametrize("space", [ARM, Box(-5, 5, (2, 3, 4), np.int32), Box(-1, 1, ()), Tuple((ARM, ARM))], ids=str)
def test_observations_are_flattened_as_gymnasium_flattens_them(space):
    env = Arm(space)
    lanes = lanes_of(env)
    first, step = lanes.reset()[0, 0], lanes.step(np.zeros((1, 1, 6), np.float32))
    for mine, theirs in zip((first, step.obs[0, 0]), env.seen, strict=True):
        np.testing.assert_array_equal(mine, flatten(space, theirs).astype(np.float32), strict=True)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 3)], ids=str)
def test_an_action_has_the_shape_and_dtype_of_its_space(shape):
    env = Arm(PLAIN := custom.PLAIN, shape)
    lanes, size = lanes_of(env), int(np.prod(shape))
    assert lanes.spec.action_size == size
    lanes.reset()
    lanes.step(np.linspace(-1, 1, size, dtype=np.float32)[None, None])
    assert env.action_space.contains(env.actions[0])
    np.testing.assert_allclose(env.actions[0].ravel(), np.linspace(-2, 2, size), rtol=1e-6)
    assert PLAIN is lanes_of(env)._envs[0].observation_space


WRONG = {
    "a key is missing": lambda obs: {key: obs[key] for key in ("wrist", "base")},
    "a key is new": lambda obs: dict(obs) | {"more": np.zeros(1)},
    "a key within is missing": lambda obs: dict(obs) | {"base": {"x": obs["base"]["x"]}},
    "an array is longer": lambda obs: dict(obs) | {"wrist": np.zeros((3, 3))},
    "an array has more axes": lambda obs: dict(obs) | {"wrist": np.zeros((1, 2, 3))},
    "a text": lambda obs: dict(obs) | {"wrist": "left"},
    "all have more axes": lambda obs: {"wrist": np.zeros((1, 2, 3)), "base": obs["base"], "hand": obs["hand"]},
    "an array": lambda obs: np.zeros(14, np.float32),
    "a tuple is short": lambda obs: dict(obs) | {"hand": obs["hand"][:1]},
    "nothing": lambda obs: None,
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_an_observation_that_is_not_of_its_space_is_refused_in_a_line(change):
    with pytest.raises(EnvironmentFault, match=r"as observation; expected arrays base\.x \[2\], base") as caught:
        lanes_of(Arm(change=change)).reset()
    assert "\n" not in str(caught.value)


def test_a_policy_takes_observations_as_the_environment_gives_them():
    env, spec = Arm(), describe(Arm())
    one, other = env._obs(), env._obs()
    flat = [flatten(ARM, each).astype(np.float32) for each in (one, other)]
    both = {
        "wrist": np.stack([one["wrist"], other["wrist"]]),
        "base": {key: np.stack([one["base"][key], other["base"][key]]) for key in ("x", "y")},
        "hand": tuple(np.stack([one["hand"][i], other["hand"][i]]) for i in (0, 1)),
    }
    for given, wanted in ((one, flat[0]), (both, np.stack(flat)), (flat[1], flat[1])):
        np.testing.assert_array_equal(as_vectors(given, spec), wanted, strict=True)
    assert as_vectors({"wrist": one["wrist"]}, spec).shape == ()


def test_a_description_is_read_back_and_a_plain_one_is_stored_as_before():
    spec = describe(Arm())
    assert as_spec(json.loads(json.dumps(spec.stored()))) == spec
    assert set(describe(custom.Walk()).stored()) == {"obs_shape", "obs_dtype", "action_low", "action_high"}


@pytest.mark.parametrize(
    "change",
    [
        {"action_shape": [2, 2]},
        {"layout": [[["a"], 0, 13, [13], "float32"]]},
        {"layout": [[["a"], 0, 8, [8], "float32"], [["b"], 9, 14, [5], "float32"]]},
        {"layout": [[["a"], 0, 14, [2, 6], "float32"]]},
        {"layout": [[["a"], 0, 14]]},
    ],
    ids=str,
)
def test_a_stored_layout_that_contradicts_itself_is_refused(change):
    with pytest.raises(StorageError, match="description of the environment cannot be read"):
        as_spec(describe(Arm()).stored() | change)


def test_another_order_is_a_difference_by_name():
    other = describe(Arm(Dict({"b": Box(-1, 1, (1,)), "a": Box(-1, 1, (2,))})))
    again = other._replace(layout=(ObsPart(("b",), 0, 1, (1,), "float32"), ObsPart(("a",), 1, 3, (2,), "float32")))
    assert other.differences(again) == [
        "layout: a[0:2] float32[2], b[2:3] float32[1] -> b[0:1] float32[1], a[1:3] float32[2]"
    ]
