"""What may differ between the configuration of a run and that it is resumed with."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config


class Effect(Enum):
    """What a changed field does to a run that goes on."""

    HARMLESS = "harmless"
    """the learner goes on to the bit; what is recorded of it may differ"""
    LEARNING = "learning"
    """the learner goes on, but not as the run would have"""
    STRUCTURAL = "structural"
    """what was kept does not fit any more, or is of another task"""


_FIELDS = {
    Effect.HARMLESS: """
        loop env.workers env.timeout env.value_range evaluation.every evaluation.episodes
        logging.every logging.tensorboard
        checkpoint.every checkpoint.min_seconds checkpoint.keep
    """,
    Effect.LEARNING: """
        total_steps precision data_parallel
        algorithm.actor_learning_rate algorithm.critic_learning_rate algorithm.learning_rate_end
        algorithm.critic_weight_decay algorithm.actor_weight_decay algorithm.gamma algorithm.n_step algorithm.tau
        algorithm.batch_size algorithm.reset_every algorithm.max_rejected algorithm.target_noise
        algorithm.target_noise_clip
        algorithm.bootstrap algorithm.target_subset algorithm.ascend algorithm.v_min algorithm.v_max
        algorithm.initializer algorithm.final_scale algorithm.actor_final_deviation
        exploration.sigma exploration.sigma_end exploration.schedule_steps exploration.theta exploration.dt
        exploration.sigma_min exploration.sigma_max exploration.target_distance exploration.adapt_every
        exploration.adapt_factor
        replay.alpha replay.beta replay.beta_end replay.epsilon
    """,
    Effect.STRUCTURAL: """
        seeds env.id env.num_envs env.max_episode_steps env.kwargs
        algorithm.name algorithm.hidden algorithm.critic_hidden algorithm.architecture algorithm.normalization
        algorithm.normalize_observations algorithm.activation algorithm.action_layer algorithm.learning_rate_schedule
        algorithm.weight_decay algorithm.max_grad_norm algorithm.policy_delay algorithm.num_critics
        algorithm.num_atoms algorithm.updates_per_step algorithm.updates_per_call algorithm.warmup_steps
        algorithm.learning_starts
        exploration.kind exploration.schedule exploration.epsilon
        replay.kind replay.capacity
    """,
}

_NUMBER_OR_NONE = ("algorithm.max_grad_norm", "exploration.epsilon")
"""Structural where they are switched on or off; another number is learned with as any other."""

_COMES_TO: dict[str, Callable[[Config], object]] = {
    "loop": lambda config: None,  # the environment decides it
    "env.value_range": lambda config: None,  # the algorithm's v_min and v_max say what comes of it
    "algorithm.critic_hidden": lambda config: config.algorithm.critic_widths,
    "algorithm.learning_starts": lambda config: config.algorithm.learning_begins,
}
"""What fields come to that say one thing in several ways."""

EFFECTS = {path: effect for effect, paths in _FIELDS.items() for path in paths.split()}
"""The effect of every field of a configuration, by `section.field`."""


class Change(NamedTuple):
    """A field that differs."""

    path: str
    before: Any
    after: Any
    effect: Effect

    def __str__(self) -> str:
        return f"{self.path}: {self.before!r} -> {self.after!r}"


def compare(before: Config, after: Config) -> list[Change]:
    """The fields in which two configurations differ, structural ones first.

    Where another kind of algorithm, exploration or replay was chosen, that alone is named, not the fields that go with
    it.
    """
    old, new = (_flat(config) for config in (before, after))
    changed = [path for path in (old | new) if old.get(path) != new.get(path) and not _alike(path, before, after)]
    kinds = {
        path.partition(".")[0] for path in changed if path in ("algorithm.name", "exploration.kind", "replay.kind")
    }
    shown = [path for path in changed if path.partition(".")[0] not in kinds or path.endswith((".name", ".kind"))]
    found = [Change(path, old.get(path), new.get(path), _effect(path, old.get(path), new.get(path))) for path in shown]
    return sorted(found, key=lambda change: -list(Effect).index(change.effect))


def _alike(path: str, before: Config, after: Config) -> bool:
    come_to = _COMES_TO.get(path)
    return come_to is not None and come_to(before) == come_to(after)


def _effect(path: str, old: Any, new: Any) -> Effect:
    return Effect.LEARNING if path in _NUMBER_OR_NONE and None not in (old, new) else EFFECTS[path]


def _flat(config: Config) -> dict[str, Any]:
    """The values by `section.field`; a list of seeds is one value, and so are the arguments of an environment."""
    values = config.model_dump(mode="json") | {"seeds": list(config.seed_list)}
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    inner = {name: value for name, value in values.items() if isinstance(value, dict)}
    return plain | {f"{name}.{field}": value for name, section in inner.items() for field, value in section.items()}
