"""Wrappers, ranges of actions and modules, in whatever way they are written."""

import tomllib

import pytest

from ddpg_jax.cli.arguments import parse_config
from ddpg_jax.config.load import dump_toml, load_config, resolve
from ddpg_jax.errors import ConfigError

CLIP = {"name": "ClipReward", "kwargs": {"min_reward": -1, "max_reward": None}}


def test_wrappers_are_tables_names_or_both_and_come_back_from_a_file():
    config = load_config(env={"wrappers": [CLIP, "FlattenObservation"]})
    assert [(each.name, each.kwargs) for each in config.env.wrappers] == [
        ("ClipReward", {"min_reward": -1, "max_reward": None}),
        ("FlattenObservation", {}),
    ]
    assert resolve(tomllib.loads(dump_toml(config)), {}, source="dumped") == config


def test_wrappers_ranges_and_nested_arguments_are_written_on_the_command_line():
    text = '[{name="ClipReward", kwargs={min_reward=-1}}]'
    words = ["--env.wrappers", text, "--env.action-range=-2,2", "--env.kwargs.a.b", "1", "--env.kwargs.a.c.d", "x"]
    env = parse_config([], [*words, "--env.info-keys", "is_success,distance", "--env.max-instances", "9"]).env
    assert [(each.name, each.kwargs) for each in env.wrappers] == [("ClipReward", {"min_reward": -1})]
    assert (env.action_range, env.kwargs, env.max_instances) == (((-2, 2),), {"a": {"b": 1, "c": {"d": "x"}}}, 9)
    assert env.info_keys == ("is_success", "distance")
    assert parse_config([], ["--env.action-range", "[[-2, 2], [0, 1]]"]).env.action_range == ((-2, 2), (0, 1))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--env.wrappers", '[{name="ClipRewards"}]'], r"env\.wrappers\.0 = .*'ClipRewards'.*did you mean ClipReward"),
        (["--env.wrappers", "ClipReward"], "env.wrappers = 'ClipReward' .*must be a list"),
        (["--env.action-range", "2,-2"], r"env.action_range = \[2, -2\] \(command line\): 2.0 is not below -2.0"),
        (["--env.action-range", "1,2,3"], "env.action_range = .*must be the lowest and the highest action"),
        (["--env.action-range", "wide"], "env.action_range = 'wide'"),
        (["--env.info-keys", "is success"], "env.info_keys"),
        (["--exploration.kind", "ou", "--exploration.theta", "2"], "theta=2.0 with dt=1.0 .*theta·dt must be below 2"),
        (["--env.id", "jax:pendulum", "--env.max-instances", "1"], "env.max_instances = 1 .*no effect.*leave it out"),
        (
            ["--env.id", "jax:pendulum", "--env.wrappers", '["ClipReward"]'],
            "'ClipReward' is not for .* are HideOb",
        ),
    ],
)
def test_nonsense_is_refused_in_a_line(words, said):
    from ddpg_jax.config.wording import command_line

    with command_line(), pytest.raises(ConfigError, match=said) as caught:
        parse_config([], words)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["my_module:Mine", "jax:Mine"])
def test_a_file_may_name_a_wrapper_of_gymnasium_but_no_module(name, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[[env.wrappers]]\nname = "ClipReward"\nkwargs = {min_reward = -1}\n')
    assert len(load_config(path).env.wrappers) == 1
    path.write_text(path.read_text() + f'\n[[env.wrappers]]\nname = "{name}"\n')
    said = r"env\.wrappers\.1 = .*: a module to import may be named by an argument only: env={.wrappers.: \[.*Mine.\]}"
    with pytest.raises(ConfigError, match=said):
        load_config(path)
    assert load_config(path, env={"wrappers": [{"name": name}]}).env.wrappers[0].name == name
