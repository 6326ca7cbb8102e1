"""In what two configurations differ, and what that does to a run that goes on."""

from tiny_run import tiny_config

from ddpg_jax.config.diff import EFFECTS, Effect, compare
from ddpg_jax.config.schema import Config, sections


def test_every_field_has_an_effect():
    fields = {name for name in Config.model_fields if name not in sections()}
    fields |= {f"{section}.{name}" for section, models in sections().items() for m in models for name in m.model_fields}
    assert EFFECTS.keys() == fields


def test_the_effects_name_each_field_once():
    from ddpg_jax.config import diff as changes

    assert len([path for paths in changes._FIELDS.values() for path in paths.split()]) == len(EFFECTS)


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
