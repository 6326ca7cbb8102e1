"""Parts of one's own are found by their names, and one that is missing is named."""

import sys
from functools import partial

import pytest

from ddpg_jax.config import plugins
from ddpg_jax.config.load import dump_toml, load_config
from ddpg_jax.config.parts import DEVICE_ENV, Parts
from ddpg_jax.config.schema import Config
from ddpg_jax.errors import ConfigError
from ddpg_jax.types import DeviceEnv

ENV = DeviceEnv(lambda key: None, lambda state, action, key: None, None, 7)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user's on the path."""
    (tmp_path / "users_parts.py").write_text("class Inner:\n    part = 5\ndef made(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_parts"
    sys.modules.pop("users_parts", None)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(plugins, "_REGISTERED", {})
    return plugins.register


def said(call, *arguments, lines=1):
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    assert str(caught.value).count("\n") == lines - 1
    return str(caught.value)


def test_a_part_is_imported_by_its_name(module):
    assert plugins.load("agent", f"{module}:Inner.part", "algorithm.make_agent") == 5
    assert plugins.find("agent", f"{module}:made") is None  # which imports nothing


def test_what_is_handed_over_wins_over_what_is_registered_and_that_over_a_module(module, registered):
    name = f"{module}:made"
    registered("agent", "mine", 1)
    assert plugins.load("agent", "mine", "x") == 1
    with plugins.hand_over({("agent", "mine"): 2, ("agent", name): 3}):
        assert plugins.load("agent", "mine", "x") == 2
        assert plugins.load("agent", name, "x") == 3
        with plugins.hand_over({("env", "e"): 4}):
            assert plugins.load("agent", "mine", "x") == 2
    assert plugins.load("agent", "mine", "x") == 1
    assert callable(plugins.load("agent", name, "x"))


def test_a_part_that_is_missing_is_named(module, registered):
    registered("agent", "quantiles", 1)
    assert "no module nowhere here" in said(plugins.load, "agent", "nowhere:f", "algorithm.make_agent")
    assert "did you mean made?" in said(plugins.load, "agent", f"{module}:mad", "algorithm.make_agent")
    assert "did you mean quantiles?" in said(plugins.load, "agent", "quantile", "algorithm.make_agent")
    assert "--plugin" in said(plugins.load, "logger", "x", "logging.loggers")
    text = said(plugins.load, "env", "__main__:main.<locals>.make", "env.id")
    assert "hand it over again, as env=..." in text


def test_a_module_that_breaks_says_why(tmp_path, monkeypatch):
    (tmp_path / "breaks_here.py").write_text("import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "nothing_of_this_name" in said(plugins.load, "agent", "breaks_here:f", "algorithm.make_agent")
    assert "nothing_of_this_name" in said(plugins.import_plugins, ["breaks_here"])
    assert "not the name of a module" in said(plugins.import_plugins, ["a/b.py"])


@pytest.mark.parametrize(("kind", "name"), [("actor", "x"), ("env", "a:b"), ("env", "")])
def test_nonsense_is_not_registered(kind, name):
    with pytest.raises(ValueError, match="expected"):
        plugins.register(kind, name, 1)


NAMED = {
    "env.id": {"env": {"id": "os:x"}},
    "env.id of the device loop": {"env": {"id": "jax:os:x"}},
    "algorithm.make_agent": {"algorithm": {"make_agent": "os:x"}},
    "algorithm.make_agent by its name": {"algorithm": {"name": "os:x"}},
    "algorithm.make_networks": {"algorithm": {"make_networks": "os:x"}},
    "logging.sinks": {"logging": {"sinks": ["wandb", "os:x"]}},
    "logging.loggers": {"logging": {"loggers": ["mine", "os:x"]}},
    "logging.callbacks": {"logging": {"callbacks": ["os:x"]}},
}


@pytest.mark.parametrize("what", NAMED)
def test_a_file_names_modules_only_where_that_is_allowed(what, tmp_path):
    config = load_config(**NAMED[what])
    path = tmp_path / "mine.toml"
    path.write_text(dump_toml(config))
    text = said(load_config, path, lines=2)
    assert f"{what.split(' ')[0]} = " in text
    assert "by an argument only" in text
    assert "allow_imports=True" in text
    assert load_config(path, allow_imports=True) == config
    assert load_config(path, **NAMED[what]) == config


def test_the_name_of_an_agent_of_ones_own_is_a_name_of_an_algorithm(registered):
    registered("agent", "mine", 1)
    for name in ("mine", "os:x"):
        config = load_config(algorithm={"name": name, "tau": 0.5, "kwargs": {"n": [1, None]}})
        assert (config.algorithm.name, config.algorithm.make_agent) == ("ddpg", name)
        assert config.algorithm_name == name
        assert config.algorithm.kwargs == {"n": [1, None]}
        assert load_config(algorithm={"name": "td3", "make_agent": name}).algorithm.policy_delay == 2
    assert "'ddpg', 'td3'" in said(partial(load_config, algorithm={"name": "mime"}), lines=2)


def test_an_algorithm_that_is_named_later_is_not_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[algorithm]\nname = "os:x"\nkwargs = {n = 1}\ntau = 0.5\n')
    config = load_config(path, algorithm={"name": "td3"})
    assert (config.algorithm.name, config.algorithm.make_agent, config.algorithm.tau) == ("td3", None, 0.5)
    assert config.algorithm.kwargs == {}


def test_arguments_for_an_agent_of_the_package_are_refused():
    assert "has no effect" in said(partial(load_config, algorithm={"kwargs": {"n": 1}}), lines=2)


def test_what_is_handed_over_is_named_as_it_could_be_imported():
    config = Parts(test_nonsense_is_not_registered, dump_toml).name_in(Config())
    assert config.env.id == f"{__name__}:test_nonsense_is_not_registered"
    assert config.algorithm.make_agent == "ddpg_jax.config.load:dump_toml"
    assert Parts(ENV).name_in(Config()).env.id == DEVICE_ENV
    assert Parts(ENV).name_in(Config()).on_device
    assert "<lambda>" in Parts(lambda: None).name_in(Config()).env.id
    assert Parts().name_in(config) is config


def test_what_is_handed_over_fits_the_run():
    host, device = {"env": {"id": "a:b"}}, {"env": {"id": DEVICE_ENV}}
    own = {"algorithm": {"name": "ddpg", "make_agent": "a:b"}}
    assert Parts(ENV).by_name(device) == {("env", "own"): ENV}
    assert Parts(max, min).by_name(host | own) == {("env", "a:b"): max, ("agent", "a:b"): min}
    assert "not written in JAX" in said(Parts(ENV).by_name, host)
    assert "written in JAX" in said(Parts(max).by_name, device)
    assert "trained by algorithm.name='ddpg'" in said(Parts(None, max).by_name, {"algorithm": {"name": "ddpg"}})
    assert "expected a function" in said(Parts(5).name_in, Config())
    assert "expected a function" in said(Parts(None, 5).name_in, Config())
