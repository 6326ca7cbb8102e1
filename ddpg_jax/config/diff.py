"""What may differ between the configuration of a run and that it is resumed with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from ddpg_jax.config.marks import Effect, effect_of, traced_fields
from ddpg_jax.config.mistakes import shown
from ddpg_jax.config.schema import TAGS, Config, sections
from ddpg_jax.config.sections import PrioritizedReplayConfig, ScheduledConfig

_CANONICAL: dict[str, Callable[[Config], object]] = {
    "loop": lambda config: None,  # the environment decides it
    "env.value_range": lambda config: None,  # the algorithm's v_min and v_max say what comes of it
    "algorithm.critic_hidden": lambda config: config.algorithm.critic_widths,
    "algorithm.learning_starts": lambda config: config.algorithm.learning_begins,
}
"""What fields come to that say one thing in several ways."""


def _fields() -> dict[str, FieldInfo]:
    """Every field that holds a value, by `section.field`."""
    inner = {
        f"{section}.{name}": field
        for section, models in sections().items()
        for model in models
        for name, field in model.model_fields.items()
    }
    return {name: field for name, field in Config.model_fields.items() if name not in sections()} | inner


EFFECTS = {path: effect for path, field in _fields().items() if (effect := effect_of(field)) is not None}
"""The effect of every field of a configuration, by `section.field`, as it is marked there."""

_TRACED = {
    f"{section}.{name}" for section, models in sections().items() for model in models for name in traced_fields(model)
}


class Change(NamedTuple):
    """A field that differs."""

    path: str
    before: Any
    after: Any
    effect: Effect

    def __str__(self) -> str:
        return f"{self.path}: {shown(self.before)} -> {shown(self.after)}"


def compare(before: Config, after: Config) -> list[Change]:
    """The fields in which two configurations differ, structural ones first.

    Where another kind of algorithm, exploration or replay was chosen, or a table was put in, that alone is named,
    not the fields that go with it.
    """
    old, new = (_flat(config) for config in (before, after))
    changed = [path for path in (old | new) if old.get(path) != new.get(path) and not _equivalent(path, before, after)]
    kinds = {f"{section}.{tag}" for section, tag in TAGS.items()}.intersection(changed)
    other = {kind.partition(".")[0] for kind in kinds}
    named = [path for path in changed if path.partition(".")[0] not in other or path in kinds]
    for table, field in NESTED.items():
        if any(f"{table}.{field}" not in values for values in (old, new)):  # it was put in or left out
            named = [path for path in named if not path.startswith(f"{table}.") or path == f"{table}.{field}"]
    found = [
        Change(path, old.get(path), new.get(path), _effect(path, (old.get(path), new.get(path)), (before, after)))
        for path in named
    ]
    return sorted(found, key=lambda change: -list(Effect).index(change.effect))


NESTED = {"algorithm.memory": "cell", "algorithm.encoder": "kind", "env.pixels": "size"}
"""Tables inside a section, which may be left out; each with the field that is named where one is put in."""


def _equivalent(path: str, before: Config, after: Config) -> bool:
    come_to = _CANONICAL.get(path)
    return come_to is not None and come_to(before) == come_to(after)


def _effect(path: str, values: tuple[Any, Any], configs: tuple[Config, Config]) -> Effect:
    """The effect of a field, or a lesser one that it has between these values."""
    if path in _TRACED and None not in values:  # structure where it is switched on or off
        return Effect.LEARNING
    if path == "total_steps" and not any(map(_follows_the_end, configs)):
        return Effect.HARMLESS
    return EFFECTS[path]


def _follows_the_end(config: Config) -> bool:
    """Whether a schedule goes on until the end of the run, so that another end is another schedule."""
    noise, replay = config.exploration, config.replay
    return (
        config.algorithm.learning_rate_schedule != "constant"
        or (isinstance(noise, ScheduledConfig) and noise.ends and noise.schedule_steps is None)
        or (isinstance(replay, PrioritizedReplayConfig) and replay.beta != replay.beta_end)
    )


def _flat(config: Config) -> dict[str, Any]:
    """The values by `section.field`; a list of seeds is one value, and so are the arguments of an environment."""
    values = config.model_dump(mode="json") | {"seeds": list(config.seed_list)}
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    inner = {name: value for name, value in values.items() if isinstance(value, dict)}
    fields = {f"{name}.{field}": value for name, section in inner.items() for field, value in section.items()}
    for table in NESTED:
        nested = fields.pop(table) or {}
        fields |= {f"{table}.{field}": value for field, value in nested.items()}
    return plain | fields
