"""Configurations: the defaults, the files, and that no mistake passes or stays unsaid."""

import errno
import math
import os
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ddpg_jax.cli.arguments import parse_config
from ddpg_jax.config.algorithms import FastTD3Config
from ddpg_jax.config.load import MAX_BYTES, dump_toml, load_config, read_toml, resolve
from ddpg_jax.config.mistakes import shown
from ddpg_jax.config.schema import TAGS, Config, is_device_env, warn_of_idle_learner
from ddpg_jax.config.section import Section
from ddpg_jax.errors import ConfigError, StorageError

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.toml") if path.parent.name != "sweeps")
CHOSEN_BY = {
    "algorithm": ["ddpg", "td3", "d4pg", "fasttd3", "drqv2", "td7", "mrq"],
    "exploration": ["none", "gaussian", "ou", "gaussian_per_env", "parameter"],
    "replay": ["uniform", "prioritized", "hindsight"],
}
SCHEMA = Config.model_json_schema()


def message(values: dict[str, Any], **overrides: Any) -> str:
    """The report on a configuration that must be refused."""
    with pytest.raises(ConfigError) as caught:
        resolve(values, overrides, source="my.toml")
    return str(caught.value)


def lines_for(report: str, path: str) -> list[str]:
    return [line for line in report.splitlines() if line.startswith((f"  {path} = ", f"  {path}: "))]


def round_trip(config: Config) -> Config:
    return resolve(tomllib.loads(dump_toml(config)), {}, source="dumped")


# --- Every field, read from the models' own schema.


def _deref(node: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def _models() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(section, values that choose the model, schema of the model) for the top and every section."""
    found = [("", {}, SCHEMA)]
    for section, node in SCHEMA["properties"].items():
        for variant in map(_deref, node.get("oneOf", [node])):
            if variant.get("type") == "object":
                tags = {name: p["const"] for name, p in variant["properties"].items() if "const" in p}
                found.append((section, tags, variant))
    return found


def _fields() -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """(section, field, values that choose the model, schema of the field) for every leaf."""
    return [
        (section, name, tags, node)
        for section, tags, model in _models()
        for name, node in model["properties"].items()
        if section or (_deref(node).get("type") != "object" and "oneOf" not in node)
    ]


def _numbers(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [form for form in node.get("anyOf", [node]) if form.get("type") in ("integer", "number")]


def _below(form: dict[str, Any]) -> float | None:
    if "exclusiveMinimum" in form:
        return form["exclusiveMinimum"]
    return form["minimum"] - 1 if "minimum" in form else None


def _above(form: dict[str, Any]) -> float | None:
    if "exclusiveMaximum" in form:
        return form["exclusiveMaximum"]
    return form["maximum"] + 1 if "maximum" in form else None


def _wrong_values(node: dict[str, Any]) -> dict[str, Any]:
    """Values that a field must refuse, by what is wrong with them."""
    numbers = _numbers(node)
    if numbers:
        limits = {"below": _below(numbers[0]), "above": _above(numbers[0])}
        no_numbers = {"NaN": math.nan, "inf": math.inf, "-inf": -math.inf}
        fraction = {"fraction": 1.5} if numbers[0]["type"] == "integer" else {}
        limits = {name: value for name, value in limits.items() if value is not None}
        return {"type": "many", "table": {"a": 1}} | limits | no_numbers | fraction
    if "enum" in node or "const" in node:
        return {"type": 5, "name": "nonsense"}
    (node,) = (_deref(form) for form in node.get("anyOf", [node]) if form.get("type") != "null")
    if "prefixItems" in node:
        return {"type": "many", "number": 8, "empty": [], "too long": [1, 2, 3], "order": [2, 1], "range": [0, 1e300]}
    if node["type"] == "array" and node["items"].get("type") == "string" and "maxItems" not in node:
        return {"type": "many", "number": 8, "items": [8]}
    if node["type"] == "array":
        short = {"empty": []} if node.get("minItems") else {}
        many = {} if _deref(node["items"]).get("type") == "string" else {"type": "many"}  # a name
        return {"number": 8, "too long": [_item(node)] * (node["maxItems"] + 1)} | short | many
    return {"string": {"type": 5}, "boolean": {"type": "maybe"}, "object": {"type": 5}}[node["type"]]


def _item(node: dict[str, Any]) -> Any:
    """An item of a list that it may hold."""
    item = _deref(node["items"])
    pair = "prefixItems" in item
    return [0, 1] if pair else {"string": "a", "object": {"name": "a"}}.get(item.get("type"), 8)


FIELDS = _fields()
FIELD_IDS = [".".join(filter(None, (section, *tags.values(), name))) for section, name, tags, _ in FIELDS]
RANGES = [field for field in FIELDS if _numbers(field[3])]
CHOICES = [field for field in FIELDS if {"enum", "const"} & field[3].keys()]
WRONG = [
    pytest.param(section, name, tags, value, id=f"{identifier}-{what}")
    for (section, name, tags, node), identifier in zip(FIELDS, FIELD_IDS, strict=True)
    for what, value in _wrong_values(node).items()
]


SUPPORT = {"v_min": -2.0, "v_max": 2.0}
NEEDED = {"d4pg": SUPPORT, "td3": {"policy_delay": 1}, "fasttd3": SUPPORT | {"policy_delay": 1}}
NEEDED["td7"] = NEEDED["mrq"] = {"policy_delay": 1, "target_every": 1000}
NEEDED |= {kind: {"schedule": "linear"} for kind in ("gaussian", "ou")}
NEEDED["gaussian_per_env"] = {"sigma_min": 0.0, "sigma_max": 10.0}
"""What an algorithm or exploration cannot do without, or what other fields are judged by."""


def at(section: str, tags: dict[str, Any], **values: Any) -> dict[str, Any]:
    needed = NEEDED.get(tags.get(TAGS.get(section, ""), ""), {})
    return {section: needed | tags | values} if section else values


def test_the_schema_walk_sees_every_section():
    assert {section for section, *_ in FIELDS} == {""} | {
        "env", "algorithm", "exploration", "replay", "evaluation", "logging", "checkpoint"
    }  # fmt: skip
    assert len(FIELDS) > 35
    for section, tag in TAGS.items():
        assert {tags[tag] for found, _, tags, _ in FIELDS if found == section} == set(CHOSEN_BY[section])


@pytest.mark.parametrize(("section", "name", "tags", "value"), WRONG)
def test_a_wrong_value_is_refused_by_path_and_value(section, name, tags, value):
    path = f"{section}.{name}" if section else name
    report = message(at(section, tags, **{name: value}))
    assert report.startswith("1 mistake in the configuration:")
    if (section, name) in TAGS.items():  # the tag chooses the record: either may be named
        assert re.search(rf"^  {section}(\.{name})? = .*{value!r}.* \(my.toml\): ", report, re.MULTILINE)
        return
    (line,) = [each for each in report.splitlines() if each.startswith(f"  {path}")]
    element = f"  {path}."  # of a list
    assert line.startswith((f"  {path} = {shown(value)} (my.toml): ", element))


@pytest.mark.parametrize(("section", "name", "tags", "node"), FIELDS, ids=FIELD_IDS)
def test_an_unknown_neighbour_is_refused_and_the_field_suggested(section, name, tags, node):
    path = f"{section}.{name}x" if section else f"{name}x"
    report = message(at(section, tags, **{f"{name}x": 1}))
    assert report == f"1 mistake in the configuration:\n  {path} = 1 (my.toml): unknown key; did you mean {name}?"


@pytest.mark.parametrize(("section", "name", "tags", "node"), RANGES)
def test_the_bound_that_is_passed_is_said(section, name, tags, node):
    for form in _numbers(node):
        for value, bound in ((_below(form), "inimum"), (_above(form), "aximum")):
            if value is not None:
                limit = f"{form.get(f'm{bound}', form.get(f'exclusiveM{bound}')):.17g}"
                said = message(at(section, tags, **{name: value})).partition("(my.toml): ")[2]
                assert re.search(rf"(?<![\w.]){limit}(?![\w.])", said)


@pytest.mark.parametrize(("section", "name", "tags", "node"), CHOICES)
def test_the_choices_are_said(section, name, tags, node):
    known = node.get("enum", [node.get("const")])
    for choice in CHOSEN_BY[section] if (section, name) in TAGS.items() else known:
        assert f"'{choice}'" in message(at(section, tags, **{name: "nonsense"}))


@pytest.mark.parametrize(("section", "name", "tags", "node"), RANGES)
def test_the_ends_of_a_range_are_inside(section, name, tags, node):
    inside = {
        "action_layer": 1,
        "critic_weight_decay": 0,
        "actor_weight_decay": 0,
        "seeds": 65536,
        "target_subset": 2,
        "batch_size": 100_000,
        "capacity": 64,
        "data_parallel": 1,
        "return_limit": None,
    }  # other rules are narrower
    inside |= {"v_min": -1e6, "v_max": 1e6, "theta": 1.9} | (
        {"action_layer": 0} if {"td7", "mrq"} & {*tags.values()} else {}
    )
    inside |= {"warmup_steps": 5, "learning_starts": 5} if "mrq" in tags.values() else {}  # a window of five steps
    ends = [form[end] for form in _numbers(node) for end in ("minimum", "maximum") if end in form]
    for value in [inside[name]] if name in inside else ends or [1e-300, 1e300]:
        config = resolve(at(section, tags, **{name: value}), {}, source="")
        assert getattr(getattr(config, section) if section else config, name) == value


def test_a_bool_is_no_number():
    for section, name, tags, node in FIELDS:
        if _numbers(node):
            assert lines_for(message(at(section, tags, **{name: True})), f"{section}.{name}" if section else name)


def test_sections_that_are_no_tables_are_refused():
    for section in ("env", "algorithm", "exploration", "replay", "evaluation", "logging"):
        assert lines_for(message({section: 5}), section)


def test_a_word_that_resembles_none_is_told_what_there_is_unless_that_is_long():
    assert "unknown key; there are " in message({"env": {"qqqqqqqqq": 1}})
    assert lines_for(message({"algorithm": {"qqqqqqqqq": 1}}), "algorithm.qqqqqqqqq")[0].endswith("unknown key")


def test_elements_of_lists_are_checked():
    assert lines_for(message({"algorithm": {"hidden": [64, 0]}}), "algorithm.hidden.1")
    assert lines_for(message({"seeds": [0, -1]}), "seeds.1")
    assert lines_for(message({"env": {"kwargs": {"g": [1, math.nan]}}}), "env.kwargs.g")


def test_fields_that_contradict_each_other_are_refused():
    assert "action_layer=2" in message({"algorithm": {"action_layer": 2}})
    assert "critic_weight_decay=0.1" in message({"algorithm": {"critic_weight_decay": 0.1}})
    assert "actor_weight_decay=0.1" in message({"algorithm": {"actor_weight_decay": 0.1}})
    assert "action_layer=1 is not one of 1" in message({"algorithm": {"action_layer": 1, "critic_hidden": [64]}})
    assert "learning_rate_end=0.0" in message({"algorithm": {"learning_rate_schedule": "exponential"}})
    for name, value in (("hidden", [64, 32]), ("normalization", "layer"), ("action_layer", 1)):
        assert f"{name}={value!r}" in message({"algorithm": {"architecture": "simba", name: value}})
    v2 = {"architecture": "simba_v2"}
    for name, value in (
        ("hidden", [64, 32]),
        ("activation", "elu"),
        ("initializer", "orthogonal"),
        ("final_scale", 0.1),
    ):
        assert f"{name}={value!r}" in message({"algorithm": v2 | {name: value}})
    assert "project_weights=False has no effect" in message({"algorithm": {"project_weights": False}})
    resolve({"algorithm": {"architecture": "flash", "project_weights": False}}, {}, source="")
    resolve({"algorithm": v2 | {"project_weights": False}}, {}, source="")
    assert "target_subset=3 is more than num_critics=2" in message({"algorithm": {"name": "td3", "target_subset": 3}})
    assert "updates_per_call=3 is not a multiple of" in message({"algorithm": {"name": "td3", "updates_per_call": 3}})
    assert "v_min=1.0 is not below" in message({"algorithm": {"name": "d4pg", "v_min": 1, "v_max": 1}})
    resolve({"algorithm": {"action_layer": 1}}, {}, source="")
    assert resolve({"algorithm": {"architecture": "simba"}}, {}, source="").algorithm.architecture == "simba"
    resolve({"algorithm": {"critic_weight_decay": 0.1, "weight_decay": "l2"}}, {}, source="")


def test_exploration_that_contradicts_itself_is_refused():
    assert "sigma_end=0.0" in message({"exploration": {"schedule": "exponential"}})
    assert "sigma=0.0" in message({"exploration": {"schedule": "exponential", "sigma": 0, "sigma_end": 0.1}})
    for schedule in ("constant", "inverse_episode"):
        assert "sigma_end=0.05 has no effect" in message({"exploration": {"schedule": schedule, "sigma_end": 0.05}})
        assert "schedule_steps=9 has no effect" in message({"exploration": {"schedule": schedule, "schedule_steps": 9}})
    unordered = {"kind": "gaussian_per_env", "sigma_min": 0.5}
    assert "sigma_min=0.5 is above sigma_max=0.4" in message({"exploration": unordered})
    resolve({"exploration": {"kind": "ou", "schedule": "exponential", "sigma_end": 0.01}}, {}, source="")


def test_what_must_be_given_is_named():
    report = message({"algorithm": {"name": "d4pg", "v_max": 0}})
    assert report.startswith("1 mistake in the configuration:\n  algorithm.v_min: must be given, or env.value_range")


def test_another_algorithm_on_the_command_line_keeps_what_it_shares():
    values = {"algorithm": {"name": "td3", "tau": 0.02, "policy_delay": 3}}
    config = resolve(values, {"algorithm": {"name": "ddpg"}}, source="")
    assert (config.algorithm.name, config.algorithm.tau) == ("ddpg", 0.02)
    config = resolve({"algorithm": {"tau": 0.02}}, {"algorithm": {"name": "td3"}}, source="")
    assert (config.algorithm.name, config.algorithm.tau) == ("td3", 0.02)


def test_another_replay_on_the_command_line_keeps_what_it_shares():
    values = {"replay": {"kind": "prioritized", "capacity": 70, "alpha": 0.5}}
    config = resolve(values, {"replay": {"kind": "uniform"}}, source="")
    assert config.replay.model_dump() == {"kind": "uniform", "capacity": 70}
    config = resolve({"replay": {"capacity": 70}}, {"replay": {"kind": "prioritized"}}, source="")
    assert (config.replay.kind, config.replay.capacity) == ("prioritized", 70)
    assert "alpha" in message({"replay": {"alpha": 0.5}})  # uniform, unless said otherwise


def test_all_mistakes_are_reported_at_once():
    values = {
        "total_stepz": 1,
        "env": {"num_envs": 0},
        "algorithm": {"tau": 2, "gama": 0.9, "activation": "rely"},
        "exploration": {"kind": "ou", "theta": math.nan},
        "replay": {"capacity": "big"},
        "logging": {"tensorboard": "maybe"},
    }
    report = message(values, evaluation={"episodes": 0})
    assert report.splitlines()[0] == "9 mistakes in the configuration:"
    for path, *wanted in (
        ("total_stepz", "= 1 (my.toml): unknown key; did you mean total_steps?"),
        ("env.num_envs", "= 0 (my.toml): ", "1"),
        ("algorithm.tau", "= 2 (my.toml): ", "1"),
        ("algorithm.gama", "= 0.9 (my.toml): unknown key; did you mean gamma?"),
        ("algorithm.activation", "= 'rely' (my.toml): ", "'relu', 'elu', 'tanh' or 'silu'"),
        ("exploration.theta", "= nan (my.toml): ", "finite"),
        ("replay.capacity", "= 'big' (my.toml): ", "number"),
        ("logging.tensorboard", "= 'maybe' (my.toml): ", "boolean"),
        ("evaluation.episodes", "= 0 (arguments): ", "1"),
    ):
        (line,) = lines_for(report, path)
        assert all(part in line for part in wanted)


def test_what_the_loop_cannot_do_is_reported_with_all_other_mistakes():
    values = {"loop": "device", "data_parallel": 2, "env": {"num_envs": 0}, "algorithm": {"gama": 1}, "seeds": "x"}
    report = message(values, replay={"capacity": 5})
    assert report.splitlines()[0] == "6 mistakes in the configuration:"
    for path, *wanted in (
        ("loop", "= 'device' (my.toml): ", "'Pendulum-v1'", 'set loop to "host"', "jax:pendulum"),
        ("data_parallel", "= 2 (my.toml): ", "no effect on the host loop"),
        ("replay.capacity", "= 5 (arguments): ", "algorithm.batch_size=64"),
    ):
        (line,) = lines_for(report, path)
        assert all(part in line for part in wanted)
    (line,) = lines_for(message({"env": {"id": "jax:pendulum", "workers": 2}}), "env.workers")
    assert "no effect on env.id='jax:pendulum'" in line
    assert not lines_for(message({"loop": "device", "env": {"id": 5}}), "loop")  # who knows what was meant
    with pytest.raises(ValidationError, match=r"data_parallel: has no effect.*replay\.capacity: holds fewer"):
        Config.model_validate({"data_parallel": 2, "replay": {"capacity": 5}})


def test_arguments_of_a_constructor_are_numbers_texts_lists_tables_and_none():
    given = {"z": (0.8, 2), "t": {"a": [None, {"b": True}]}, "n": "None", "s": "none", "m": None}
    config = load_config(env={"kwargs": given})
    wanted = {"z": [0.8, 2], "t": {"a": [None, {"b": True}]}, "n": None, "s": "none", "m": None}
    assert config.env.kwargs == wanted
    assert round_trip(config) == config
    assert lines_for(message({"env": {"kwargs": {"day": date(2026, 1, 1)}}}), "env.kwargs.day")


def test_what_belongs_elsewhere_is_told_where():
    for values, said in (
        ({"exploration": {"theta": 0.3}}, 'theta belongs to exploration.kind = "ou"'),
        ({"algorithm": {"num_critics": 3}}, 'num_critics belongs to algorithm.name = "td3"'),
        ({"algorithm": {"v_min": 0}}, 'v_min belongs to algorithm.name = "d4pg" or "fasttd3"'),
        ({"algorithm": {"lr": 1}}, "did you mean algorithm.actor_learning_rate or algorithm.critic_learning_rate?"),
        ({"replay": {"buffer_size": 1}}, "did you mean replay.capacity?"),
        ({"tau": 1}, "did you mean algorithm.tau?"),
        ({"every": 1}, "did you mean evaluation.every, logging.every or checkpoint.every?"),
        ({"env": {"seeds": 1}}, "did you mean seeds?"),
    ):
        assert said in message(values)


def test_noise_that_grows_without_bound_is_refused():
    assert "theta·dt must be below 2" in message({"exploration": {"kind": "ou", "theta": 4, "dt": 0.5}})
    assert resolve({"exploration": {"kind": "ou", "theta": 3.99, "dt": 0.5}}, {}, source="").exploration.kind == "ou"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"total_steps": 500}, "algorithm.warmup_steps=500 come before the first update"),
        ({"total_steps": 9, "algorithm": {"learning_starts": 9}}, "algorithm.learning_starts=9 come before"),
        ({"algorithm": {"updates_per_step": 1e-5}}, "algorithm.updates_per_step=1e-05 makes 0 due, of 1 in a call"),
        ({"algorithm": {"updates_per_call": 20_000}}, "makes 11500 due, of 20000 in a call"),
        ({}, None),
        ({"total_steps": 501}, None),
    ],
)
def test_a_run_that_learns_nothing_is_told(settings, said):
    lines = warn_of_idle_learner(load_config(**settings))
    assert len(lines) == (said is not None)
    assert all(said in line for line in lines)


# --- Numbers, texts and nesting beyond measure: one line, at once.


BEYOND = {
    "digits": "9" * 5000,
    "hexadecimal": "0x" + "f" * 5000,
    "wide": "1" + "0" * 400,
    "negative": "-1" + "0" * 400,
    "nested": "[" * 3000 + "]" * 3000,
    "deep": "{a=" * 40 + "1" + "}" * 40,
    "long": '"' + "x" * 100_000 + '"',
    "infinite": "1e400",
}


@pytest.mark.parametrize("value", BEYOND.values(), ids=BEYOND.keys())
@pytest.mark.parametrize("path", ["seeds", "algorithm.tau", "exploration.kind", "env.kwargs.x", "nothing"])
def test_what_is_beyond_measure_is_refused_in_short_lines(tmp_path, path, value):
    if path == "env.kwargs.x" and value.startswith('"'):
        return  # a long text is nothing wrong there
    file = tmp_path / "my.toml"
    file.write_text(f"{path} = {value}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert "my.toml" in str(caught.value)
    assert max(map(len, str(caught.value).splitlines())) < 600
    with pytest.raises(ConfigError) as caught:
        parse_config([], [f"--{path}", value])
    assert max(map(len, str(caught.value).splitlines())) < 600


def test_a_file_is_of_bounded_size_and_a_regular_one(tmp_path):
    large = tmp_path / "large.toml"
    large.write_text("#" * (MAX_BYTES + 1))
    os.mkfifo(tmp_path / "pipe.toml")
    for path, said in (
        (large, "more than"),
        ("/dev/zero", "Not a regular file"),
        (tmp_path / "pipe.toml", "Not a"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_toml(path)


def test_many_mistakes_are_counted_and_not_all_told():
    report = message({f"wrong{i}": 1 for i in range(200)})
    assert report.startswith("200 mistakes")
    assert report.endswith("... and 150 more")
    assert len(report.splitlines()) == 52


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOMEM, errno.EMFILE])
def test_a_file_that_cannot_be_read_for_a_moment_is_an_error_of_storage(tmp_path, monkeypatch, number):
    def refuse(*of, **options):
        raise OSError(number, os.strerror(number))

    file = tmp_path / "config.toml"
    file.write_text("seeds = 1\n")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StorageError, match=f"config.toml: cannot be read: {os.strerror(number)}"):
        load_config(file)


@pytest.mark.parametrize("path", ["none.toml", "a/b.toml", ".", "nul\0.toml", "x" * 300 + ".toml"])
def test_a_path_that_is_wrong_is_a_mistake(path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path)


def test_foreign_keys_are_shown_escaped(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('"\\u001b[31mred\\u202e" = 1\n[env]\n"[bold]" = "\\u0007"\n')
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).replace("\n", "").isprintable()
    assert r"\x1b[31mred\u202e = 1" in str(caught.value)
    assert r"env.[bold] = '\x07'" in str(caught.value)


# --- Defaults, files, order.


def test_the_defaults_train_ddpg_on_pendulum():
    config = load_config()
    assert config == Config()
    assert (config.env.id, config.algorithm.name, config.seed_list) == ("Pendulum-v1", "ddpg", (0, 1, 2, 3, 4))


def test_the_file_of_the_defaults_is_the_defaults():
    assert load_config(CONFIGS / "pendulum" / "ddpg.toml") == Config()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_file_loads_and_comes_back_equal(path):
    config = load_config(path)
    registered = config.env.id in gymnasium.registry or config.env.id.startswith("dm_control/")  # by its extra
    assert is_device_env(config.env.id) or registered
    assert round_trip(config) == config


def test_what_may_be_none_is_so_by_default():
    """A file has no word for None: it leaves a field out, which then has its default."""

    def kinds(section):
        return {kind for each in section.__subclasses__() for kind in {each, *kinds(each)}}

    sections = kinds(Section)
    fields = [(section.__name__, name, field) for section in sections for name, field in section.model_fields.items()]
    assert len(sections) >= 20
    wrong = [(section, name) for section, name, field in fields if _may_be_none(field) and field.default is not None]
    assert not wrong


def _may_be_none(field):
    try:
        TypeAdapter(field.annotation).validate_python(None)
    except ValidationError:
        return False
    return True


def test_there_are_files():
    assert len(FILES) >= 10


def test_order_is_defaults_then_file_then_overrides(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("seeds = 2\n[algorithm]\ntau = 0.1\ngamma = 0.5\n")
    config = load_config(file, algorithm={"tau": 0.2}, total_steps=7)
    assert (config.seeds, config.total_steps, config.loop) == (2, 7, "auto")
    assert (config.algorithm.tau, config.algorithm.gamma, config.algorithm.batch_size) == (0.2, 0.5, 64)


def test_a_missing_or_broken_file_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_config(tmp_path / "none.toml")
    for content in (b"seeds = = 5", b"seeds = 1\nseeds = 2", b"\xff\xfe\x00", b"[env]\nid = 'Pendulum"):
        (tmp_path / "broken.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=r"broken\.toml"):
            load_config(tmp_path / "broken.toml")


def test_whole_floats_are_accepted_for_integers():
    config = load_config(total_steps=1e6, replay={"capacity": 1e5})
    assert config.total_steps == 1_000_000
    assert isinstance(config.total_steps, int)
    assert isinstance(config.replay.capacity, int)


def test_exploration_without_kind_is_gaussian():
    assert load_config(exploration={"sigma": 0.3}).exploration.kind == "gaussian"


def test_a_module_may_be_named_by_overrides_only():
    assert "by an argument only" in message({"env": {"id": "os:Evil-v0"}})
    assert "by an argument only" in message({"env": {"id": "os:Evil-v0"}}, seeds=2, env={"num_envs": 2})
    assert load_config(env={"id": "my.envs:Mine-v0"}).env.id == "my.envs:Mine-v0"
    assert resolve({"env": {"id": "os:Evil-v0"}}, {"env": {"id": "Pendulum-v1"}}, source="").env.id == "Pendulum-v1"


def test_seeds_are_a_number_or_a_list():
    assert load_config(seeds=3).seed_list == (0, 1, 2)
    assert load_config(seeds=[7, 2**63 - 1, 0]).seed_list == (7, 2**63 - 1, 0)
    assert "twice" in message({"seeds": [1, 2, 1]})
    assert lines_for(message({"seeds": []}), "seeds")
    assert lines_for(message({"seeds": [2**63]}), "seeds.0")
    assert "[1234567]" in message({"seeds": 1234567})


def test_a_configuration_is_frozen():
    config = Config()
    for section, name in ((config, "seeds"), (config.algorithm, "tau"), (config.exploration, "sigma")):
        with pytest.raises(ValidationError):
            setattr(section, name, 1)
    assert config == Config()


# --- Any valid configuration.


_ARGUMENTS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63) + 1, 2**63 - 1), st.floats(-1e300, 1e300), st.text()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
"""What a constructor may be given."""


def _lists(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    return st.lists(_strategy(node["items"]), min_size=1, max_size=min(node.get("maxItems", 40), 40), unique_by=repr)


def _strategy(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    node = _deref(node)
    if "oneOf" in node or "anyOf" in node:
        return st.one_of([_strategy(form) for form in node.get("oneOf", node.get("anyOf"))])
    if "enum" in node or "const" in node:
        return st.sampled_from(node.get("enum", [node.get("const")]))
    low, high = node.get("exclusiveMinimum", node.get("minimum")), node.get("exclusiveMaximum", node.get("maximum"))
    return {
        "null": lambda: st.none(),
        "boolean": lambda: st.booleans(),
        "string": lambda: (
            st.from_regex(node["pattern"], fullmatch=True)
            if "pattern" in node
            else st.text(min_size=node.get("minLength", 0)).filter(lambda text: ":" not in text)
        ),
        "integer": lambda: st.integers(low, high - 1 if "exclusiveMaximum" in node else high),
        "number": lambda: st.floats(
            low, high, exclude_min="exclusiveMinimum" in node, allow_nan=False, allow_infinity=False
        ),
        "array": lambda: (
            st.tuples(*map(_strategy, node["prefixItems"])).map(sorted).filter(lambda ends: ends[0] < ends[1])
            if "prefixItems" in node
            else _lists(node)
        ),
        "object": lambda: (
            st.fixed_dictionaries(
                {k: _strategy(node["properties"][k]) for k in node.get("required", [])},
                optional={k: _strategy(v) for k, v in node["properties"].items() if k not in node.get("required", [])},
            )
            if "properties" in node
            else st.dictionaries(st.text(), _ARGUMENTS, max_size=4)
        ),
    }[node["type"]]()


@st.composite
def configs(draw: st.DrawFn) -> Config:
    values = draw(_strategy(SCHEMA))
    algorithm = values.get("algorithm", {})
    algorithm["action_layer"] = algorithm.get("action_layer", 0) % len(algorithm.get("hidden", (64, 64)))
    default = FastTD3Config.model_fields["critic_hidden"].default if algorithm.get("name") == "fasttd3" else None
    if (critic := algorithm.get("critic_hidden", default)) is not None:
        algorithm["action_layer"] %= len(critic)
    for name in ("architecture", "project_weights", "joint_batch", "return_limit"):
        algorithm.pop(name, None)
    values.get("logging", {}).pop("sinks", None)
    if algorithm.get("kwargs"):
        algorithm["make_agent"] = "mine"
    if algorithm.get("learning_rate_schedule") == "exponential":
        algorithm["learning_rate_end"] = 0.1
    if algorithm.get("weight_decay", "none") == "none":
        algorithm |= {name: 0.0 for name in algorithm if name.endswith("_weight_decay")}
        algorithm |= {"critic_weight_decay": 0.0, "actor_weight_decay": 0.0}
    if "v_min" in algorithm:
        algorithm["v_min"], algorithm["v_max"] = sorted((algorithm["v_min"], algorithm["v_max"] + 2e6))
        algorithm["v_max"] = min(algorithm["v_max"], 1e6)
        assume(algorithm["v_min"] < algorithm["v_max"])
    if algorithm.get("name") in ("td3", "fasttd3", "td7", "mrq"):
        algorithm.pop("updates_per_call", None)
        algorithm.pop("target_subset", None)
    if algorithm.get("name") in ("td7", "mrq"):  # what does not go with it
        algorithm |= {"action_layer": 0, "memory": None, "encoder": None, "make_networks": None}
        algorithm |= {"normalization": "none", "target_every": 3 * algorithm.get("policy_delay", 2)}
        (values.get("env") or {}).pop("pixels", None)
    if algorithm.get("name") == "mrq":  # what is foretold fits into the warm-up and into the replay
        algorithm |= {"scale_rewards": False, "horizon": algorithm.get("horizon", 5) % 64 + 1}
        algorithm |= {"warmup_steps": 2**20, "learning_starts": None}
        values["env"] = {**(values.get("env") or {})}
        values["env"]["num_envs"] = values["env"].get("num_envs", 1) % 64 + 1
        if (values.get("replay") or {}).get("kind") == "hindsight":
            values["replay"] = {"kind": "uniform"}
    if isinstance(values.get("seeds"), int):
        values["seeds"] = values["seeds"] % 65536 + 1
    exploration = values.get("exploration", {})
    if exploration.get("schedule") in ("linear", "exponential"):
        exploration |= {"sigma": 0.5, "sigma_end": max(0.1, exploration.get("sigma_end", 0.0))}
    else:
        exploration.pop("sigma_end", None)
        exploration.pop("schedule_steps", None)
    if exploration.get("kind") == "ou":
        exploration["theta"] = exploration.get("theta", 0.15) % 2.0  # dt is 1 at most
    if "theta" in exploration:
        exploration["theta"] = min(exploration["theta"], 1.9)  # dt is 1 at most
    if exploration.get("kind") == "gaussian_per_env":
        ends = sorted((exploration.get("sigma_min", 0.001), exploration.get("sigma_max", 0.4)))
        exploration |= dict(zip(("sigma_min", "sigma_max"), ends, strict=True))
    values.setdefault("replay", {})
    values["replay"]["capacity"] = 2**24 + values["replay"].get("capacity", 0) % 2**52
    values["env"] = values.get("env", {}) | {"workers": 0}
    if values["replay"].get("kind") == "hindsight":
        values["env"].pop("max_instances", None)
    values["data_parallel"] = 1
    values["loop"] = "host" if values.get("loop") == "host" else "auto"
    if values["replay"].keys() - {"kind", "capacity", "relabel"}:
        values["replay"]["kind"] = "prioritized"
    if is_device_env(values["env"].get("id", "")):
        values["replay"].pop("relabel", None)
        values["replay"]["kind"] = "uniform"
    if (memory := algorithm.get("memory")) is not None:  # a window fits into the warm-up and into the replay
        memory |= {name: memory.get(name, 1) % 64 + 1 for name in ("length", "burn_in", "keep_every")}
        values["env"]["num_envs"] = values["env"].get("num_envs", 1) % 64 + 1
        algorithm |= {"warmup_steps": 2**20, "learning_starts": None, "normalization": "none"}
        if values["replay"].get("kind") == "hindsight":
            values["replay"] = {"kind": "uniform", "capacity": values["replay"]["capacity"]}
    pictures = values["env"].get("pixels") is not None
    if pictures or algorithm.get("encoder") is not None:  # what does not go with it
        algorithm["encoder"] = (algorithm.get("encoder") or {}) | {"shift": 1}
        algorithm |= {"memory": None, "normalize_observations": False, "normalization": "none"}
        if values["replay"].get("kind") == "hindsight":
            values["replay"] = {"kind": "uniform", "capacity": values["replay"]["capacity"]}
    if pictures:
        values["env"]["wrappers"] = []
        values["env"]["pixels"] |= {"camera": None, "draw": "last"}
    values["logging"] = (values.get("logging") or {}) | {"augmentations": pictures}
    if algorithm.get("name") == "drqv2":
        values["exploration"] = {"kind": "gaussian"}
    return resolve(values, {}, source="drawn")


@given(configs())
def test_any_configuration_comes_back_equal_from_toml(config):
    assert round_trip(config) == config
    assert dump_toml(round_trip(config)) == dump_toml(config)


def test_hindsight_is_for_the_host_loop():
    report = message({"env": {"id": "jax:pendulum"}, "replay": {"kind": "hindsight"}})
    (line,) = lines_for(report, "replay.kind")
    assert "host loop" in line
    assert 'set it to "uniform"' in line
    assert "relabel" in message({"replay": {"kind": "prioritized", "relabel": 0.5}})


def test_hindsight_has_an_environment_of_its_own():
    report = message({"env": {"max_instances": 6}, "replay": {"kind": "hindsight"}})
    assert "leave it out" in lines_for(report, "env.max_instances")[0]
