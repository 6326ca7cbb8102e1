"""What a space holds, which of its paths are active, how points and grids become settings, and what is refused."""

import math
import tomllib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from ddpg_jax.errors import ConfigError
from ddpg_jax.training.search.space import (
    Choice,
    Range,
    active,
    contains,
    from_unit,
    grid,
    parse_space,
    to_unit,
)

TABLE = """
"algorithm.policy_delay" = { choice = [1, 2], when = { "algorithm.name" = ["td3"] } }
"algorithm.name" = { choice = ["ddpg", "td3", "sac"] }
"algorithm.actor_learning_rate" = { low = 1e-5, high = 1e-1, log = true }
"algorithm.batch_size" = { low = 1, high = 4, integer = true }
"algorithm.hidden" = { choice = [[64, 64], [256, 256]] }
"env.kwargs.g" = { low = -1, high = 3 }
"""


def space_of(text):
    return parse_space(tomllib.loads(text), "sweep.toml")


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        space_of(text)
    return str(caught.value)


SPACE = space_of(TABLE)
NAMES = '"algorithm.name" = { choice = ["ddpg", "td3"] }\n'


def test_a_space_keeps_the_order_of_its_file_and_what_stands_there():
    assert list(SPACE) == list(tomllib.loads(TABLE))
    assert SPACE["algorithm.hidden"] == Choice(choice=[[64, 64], [256, 256]])
    assert SPACE["algorithm.actor_learning_rate"] == Range(low=1e-5, high=1e-1, log=True)
    assert SPACE["algorithm.policy_delay"].when == {"algorithm.name": ["td3"]}


def test_quoted_paths_and_dotted_keys_are_the_same():
    quoted = NAMES + '"algorithm.tau" = { low = 0.1, high = 0.2, when = { "algorithm.name" = ["td3"] } }'
    dotted = 'algorithm.name.choice = ["ddpg", "td3"]\nalgorithm.tau = { low = 0.1, high = 0.2, '
    assert space_of(quoted) == space_of(dotted + 'when.algorithm.name = ["td3"] }')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "search.space is empty: there is nothing to search"),
        ("algorithm.tau = { low = 2, high = 1 }", "algorithm.tau: low=2, high=1: low must be below high"),
        ("algorithm.tau = { low = 0, high = 1, log = true }", "must be below high, and positive for log = true"),
        ("algorithm.tau = { low = -1.5e308, high = 1.5e308 }", "high - low must be finite"),
        ("algorithm.tau = { low = 0, high = inf }", "algorithm.tau.high: must be a finite number"),
        ("algorithm.tau = { low = true, high = 2 }", "algorithm.tau.low: must be a valid number"),
        ("algorithm.tau = { low = '1', high = 2 }", "algorithm.tau.low: must be a valid number"),
        ("algorithm.tau = { low = 1 }", "algorithm.tau.high: must be given"),
        ("algorithm.tau = { low = 1, hihg = 2 }", "algorithm.tau: unknown key hihg; did you mean high?"),
        ("algorithm.tau = { low = 1, high = 2, choice = [1] }", "algorithm.tau: has both choice and low"),
        ("algorithm.tau = { low = 1, high = 2, points = 1 }", "tau.points: must be greater than or equal to 2"),
        ("algorithm.tau = 0.1", "algorithm.tau = 0.1: must be { low = ..., high = ... } or { choice = [...] }"),
        ("algorithm.tau = { choice = [] }", "algorithm.tau.choice: List should have at least 1 item"),
        ("algorithm.tau = { choice = [[1], [2], [1]] }", "algorithm.tau: [1] stands in it twice"),
        ("algorithm.batch_size = { low = 8, high = 64 }", "batch_size: takes no fractions; add integer = true"),
        ("algorithm.batch_size = { low = 8, high = 9.5, integer = true }", "must be whole numbers up to 2**53"),
        ("algorithm.batch_size = { low = 8, high = 1e17, integer = true }", "must be whole numbers up to 2**53"),
        ("'a.b' = { choice = [1] }\na.b = { choice = [2] }", "a.b: stands there twice"),
        (NAMES + 'b = { choice = [1], when = { "algorithm.nam" = ["td3"] } }', "did you mean algorithm.name?"),
        (NAMES + 'b = { choice = [1], when = { "algorithm.name" = ["sac"] } }', "'sac' is no choice of algorithm.name"),
        (NAMES + 'b = { choice = [1], when = { "algorithm.name" = [] } }', "b.when.algorithm.name: List should"),
        ("a = { low = 0, high = 1 }\nb = { choice = [1], when = { a = [0] } }", "b.when: a is a range; a condition"),
        ("a = { choice = [1], when = { a = [1] } }", "a.when: waits for itself: a needs a"),
        (
            "a = { choice = [1], when = { b = [1] } }\nb = { choice = [1], when = { c = [1] } }\n"
            "c = { choice = [1], when = { b = [1] } }",
            "b.when: waits for itself: b needs c needs b",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(text, said):
    message = refusal(text)
    assert said in message
    assert message.startswith("sweep.toml is not a search:\n  search.space")


def test_all_mistakes_are_listed_and_too_many_are_counted():
    message = refusal(
        "a = { low = 2, high = 1 }\nb = { choice = [] }\nc = { choice = [1], when = { a = [1], d = [1] } }"
    )
    assert [line.split(":")[0] for line in message.splitlines()[1:]] == [
        "  search.space.a", "  search.space.b.choice", "  search.space.c.when"
    ]  # fmt: skip  # a is there, only wrong; so nothing is said of the condition on it
    message = refusal("\n".join(f"a{i} = 1" for i in range(30)))
    assert len(message.splitlines()) == 22
    assert message.endswith("... and 10 more")


def test_messages_show_no_control_characters():
    assert "\x1b" not in refusal('"a\\u001b[2J" = 1')


def test_a_chain_of_conditions_may_be_long():
    text = "".join(f"a{i} = {{ choice = [1], when = {{ a{i + 1} = [1] }} }}\n" for i in range(1200))
    space = space_of(text + "a1200 = { choice = [1] }")
    assert active(space, {}) == ["a1200"]
    assert len(from_unit(space, np.zeros(1201))) == 1201


def test_paths_are_active_after_what_they_wait_for():
    others = [path for path in SPACE if path not in ("algorithm.policy_delay", "algorithm.name")]
    assert active(SPACE, {}) == ["algorithm.name", *others]
    assert active(SPACE, {"algorithm.name": "ddpg"}) == ["algorithm.name", *others]
    assert active(SPACE, {"algorithm.name": "td3"}) == ["algorithm.name", "algorithm.policy_delay", *others]


def test_what_waits_for_an_inactive_path_is_inactive():
    space = space_of(
        "a = { choice = [1, 2] }\nb = { choice = [1], when = { a = [2] } }\nc = { choice = [1], when = { b = [1] } }"
    )
    assert active(space, {"a": 1, "b": 1, "c": 1}) == ["a"]
    assert from_unit(space, np.zeros(3)) == {"a": 1}
    assert from_unit(space, np.array([0.5, 0, 0])) == {"a": 2, "b": 1, "c": 1}


def test_points_become_settings():
    assert from_unit(SPACE, np.array([0.5, 0.34, 0.5, 0.0, 0.49, 0.25])) == {
        "algorithm.policy_delay": 2,
        "algorithm.name": "td3",
        "algorithm.actor_learning_rate": pytest.approx(1e-3),  # the middle of the logarithms
        "algorithm.batch_size": 1,
        "algorithm.hidden": [64, 64],
        "env.kwargs.g": 0.0,
    }
    ends = from_unit(SPACE, np.full(6, np.nextafter(1, 0)))
    assert ends["algorithm.batch_size"] == 4
    assert ends["algorithm.hidden"] == [256, 256]
    assert ends["algorithm.actor_learning_rate"] <= 1e-1
    assert "algorithm.policy_delay" not in ends


def test_each_whole_number_and_each_choice_has_an_equal_share():
    space = space_of("a = { low = 1, high = 4, integer = true }\nb = { choice = [1, 2, 3, 4] }")
    found = [from_unit(space, np.full(2, (i + 0.5) / 400)) for i in range(400)]
    for path in space:
        assert [sum(values[path] == each for values in found) for each in (1, 2, 3, 4)] == [100] * 4
        assert all(type(values[path]) is int for values in found)


@settings(max_examples=50)
@given(unit=st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6))
def test_every_point_is_a_setting_of_the_space_and_finds_back(unit):
    values = from_unit(SPACE, np.array(unit))
    assert contains(SPACE, values)
    for path in ("algorithm.actor_learning_rate", "env.kwargs.g"):
        assert math.isclose(to_unit(SPACE[path], values[path]), unit[list(SPACE).index(path)], abs_tol=1e-9)
    share = to_unit(SPACE["algorithm.batch_size"], values["algorithm.batch_size"])
    assert abs(share - unit[3]) <= 0.125 + 1e-9


def test_settings_of_another_space_are_known():
    values = from_unit(SPACE, np.zeros(6))
    assert contains(SPACE, values)
    for path, other in (
        ("algorithm.name", "td3"),  # which misses its delay
        ("algorithm.policy_delay", 1),
        ("algorithm.hidden", [64]),
        ("algorithm.batch_size", 2.5),
        ("env.kwargs.g", 4.0),
        ("env.kwargs.g", "0"),
        ("algorithm.gamma", 0.9),
    ):
        assert not contains(SPACE, values | {path: other})
    assert not contains(SPACE, {path: value for path, value in values.items() if path != "algorithm.hidden"})


def test_a_grid_is_the_product_with_each_setting_once():
    space = space_of(
        NAMES
        + '"algorithm.policy_delay" = { choice = [1, 2], when = { "algorithm.name" = ["td3"] } }\n'
        + "algorithm.tau = { low = 0.001, high = 0.1, log = true, points = 3 }"
    )
    settings = [tuple(values.values()) for values in grid(space)]
    assert settings == [
        ("ddpg", 0.001), ("ddpg", pytest.approx(0.01)), ("ddpg", 0.1),
        ("td3", 1, 0.001), ("td3", 1, pytest.approx(0.01)), ("td3", 1, 0.1),
        ("td3", 2, 0.001), ("td3", 2, pytest.approx(0.01)), ("td3", 2, 0.1),
    ]  # fmt: skip
    assert all(contains(space, values) for values in grid(space))


def test_whole_points_of_a_grid_stand_there_once():
    assert grid(space_of("a = { low = 1, high = 3, integer = true, points = 9 }")) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert grid(space_of("a = { low = 1, high = 64, integer = true, log = true, points = 4 }")) == [
        {"a": 1}, {"a": 4}, {"a": 16}, {"a": 64}
    ]  # fmt: skip


def test_a_grid_needs_points_and_an_end():
    with pytest.raises(ConfigError, match=r"a grid needs points = n in each range, .*: a, b$"):
        grid(space_of("a = { low = 1, high = 3 }\nb = { low = 1, high = 3 }\nc = { choice = [1] }"))
    many = space_of("".join(f"a{i} = {{ low = 0, high = 1, points = 1000 }}\n" for i in range(9)))
    with pytest.raises(ConfigError, match="a grid of 1000000 settings or more; at most 65536"):
        grid(many)
