"""What may differ between a run and what it is resumed with: every field is marked, and these marks are read."""

from typing import Annotated, Literal

import pytest
from pydantic import Field
from tiny_run import tiny_config

from ddpg_jax.config.algorithms import DDPGConfig, FastTD3Config
from ddpg_jax.config.diff import EFFECTS, compare
from ddpg_jax.config.load import load_config
from ddpg_jax.config.marks import LEARNING, STRUCTURAL, TRACED, Effect, effect_of, traced_fields
from ddpg_jax.config.schema import Config, hyper_paths, sections
from ddpg_jax.config.sections import Fraction


def test_every_field_has_an_effect():
    fields = {name for name in Config.model_fields if name not in sections()}
    fields |= {f"{section}.{name}" for section, models in sections().items() for m in models for name in m.model_fields}
    assert EFFECTS.keys() == fields


def test_a_field_means_the_same_in_all_kinds_of_its_section():
    """A model that gives a field another default marks it again."""
    for section, models in sections().items():
        for model in models:
            for name, field in model.model_fields.items():
                assert effect_of(field) is EFFECTS[f"{section}.{name}"], f"{model.__name__}.{name}"
                others = [m for m in models if name in m.model_fields]
                assert len({name in traced_fields(other) for other in others}) == 1, f"{section}.{name}"


def test_only_numbers_are_traced():
    for models in sections().values():
        for model in models:
            for name in traced_fields(model):
                assert "float" in str(model.model_fields[name].annotation)


def test_the_marks_of_a_variant_are_read_off_its_model():
    class Variant(DDPGConfig):
        name: Annotated[Literal["variant"], STRUCTURAL] = "variant"  # pyright: ignore
        kappa: Annotated[Fraction, TRACED, LEARNING] = 0.5
        """half of it"""
        levels: Annotated[int, Field(ge=1), STRUCTURAL] = 25

    assert traced_fields(Variant) == (*traced_fields(DDPGConfig), "kappa")
    fields = Variant.model_fields
    assert (effect_of(fields["kappa"]), effect_of(fields["levels"])) == (Effect.LEARNING, Effect.STRUCTURAL)
    assert fields["kappa"].description == "half of it"
    assert Variant.model_json_schema()["properties"]["kappa"]["maximum"] == 1


def test_the_numbers_of_a_lane_stand_in_the_order_of_the_models():
    algorithm = ("actor_learning_rate", "critic_learning_rate", "critic_weight_decay", "actor_weight_decay")
    algorithm += ("max_grad_norm", "gamma", "tau")
    assert traced_fields(DDPGConfig) == algorithm
    assert traced_fields(FastTD3Config) == (*algorithm, "target_noise", "target_noise_clip")
    assert hyper_paths(load_config(exploration={"kind": "ou"}))[-4:] == (
        *("exploration.epsilon", "exploration.sigma", "exploration.theta", "exploration.dt"),
    )


@pytest.mark.parametrize(
    ("settings", "effect"),
    [
        ({}, Effect.HARMLESS),
        ({"exploration": {"schedule": "linear", "schedule_steps": 100}}, Effect.HARMLESS),
        ({"exploration": {"schedule": "inverse_episode"}}, Effect.HARMLESS),
        ({"replay": {"kind": "prioritized", "beta": 0.5, "beta_end": 0.5}}, Effect.HARMLESS),
        ({"exploration": {"schedule": "linear"}}, Effect.LEARNING),
        ({"replay": {"kind": "prioritized"}}, Effect.LEARNING),
        ({"algorithm": {"learning_rate_schedule": "cosine"}}, Effect.LEARNING),
    ],
)
def test_more_steps_change_how_it_learns_where_a_schedule_goes_on_until_the_end(settings, effect):
    (change,) = compare(load_config(total_steps=1000, **settings), load_config(total_steps=2000, **settings))
    assert (change.path, change.effect) == ("total_steps", effect)


def test_foreign_values_are_shown_on_one_line():
    before = load_config(env={"id": "Evil\x1b[2J\u202e-v0"})
    (change,) = compare(before, load_config())
    assert str(change) == r"env.id: 'Evil\x1b[2J\u202e-v0' -> 'Pendulum-v1'"


def test_another_number_changes_how_it_learns_but_none_instead_of_one_the_structure():
    numbers = [{}, {"max_grad_norm": 1.0}, {"max_grad_norm": 0.5}]
    none, one, half = (tiny_config(algorithm=algorithm) for algorithm in numbers)
    assert [change.effect for change in compare(one, half)] == [Effect.LEARNING]
    assert [change.effect for pair in ((none, one), (one, none)) for change in compare(*pair)] == [
        Effect.STRUCTURAL,
        Effect.STRUCTURAL,
    ]


def test_changes_are_found_field_by_field():
    one, other = tiny_config(), tiny_config(algorithm={"tau": 0.5, "hidden": [9]}, seeds=[4, 9], logging={"every": 3})
    found = compare(one, other)
    assert [(c.path, c.effect) for c in found] == [
        ("algorithm.hidden", Effect.STRUCTURAL),
        ("algorithm.tau", Effect.LEARNING),
        ("logging.every", Effect.HARMLESS),
    ]
    assert compare(one, one) == []
    assert compare(tiny_config(seeds=2), tiny_config(seeds=[0, 1])) == []
    assert compare(tiny_config(loop="auto"), tiny_config(loop="host")) == []
    widths = list(one.algorithm.hidden)
    same = {"hidden": widths, "critic_hidden": widths, "learning_starts": one.algorithm.warmup_steps}
    assert compare(one, tiny_config(algorithm=same)) == []
    assert [c.path for c in compare(one, tiny_config(exploration={"kind": "ou"}))] == ["exploration.kind"]


def test_of_a_memory_that_one_of_two_has_the_cell_is_named():
    plain, gru, longer = (
        load_config(algorithm=a) for a in ({}, {"memory": {"cell": "gru"}}, {"memory": {"hidden": 9}})
    )
    assert [(change.path, change.after, change.effect) for change in compare(plain, gru)] == [
        ("algorithm.memory.cell", "gru", STRUCTURAL)
    ]
    assert [change.path for change in compare(gru, longer)] == ["algorithm.memory.cell", "algorithm.memory.hidden"]
    burnt = load_config(algorithm={"memory": {"cell": "gru", "burn_in": 3, "learning_rate": 1e-4}})
    assert [(change.path, change.effect) for change in compare(gru, burnt)] == [
        ("algorithm.memory.burn_in", LEARNING),
        ("algorithm.memory.learning_rate", LEARNING),
    ]
