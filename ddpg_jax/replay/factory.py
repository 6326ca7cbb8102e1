"""From a configuration to the replay of either loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ddpg_jax.equations.priorities import Prioritization
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.device.prioritized import prioritized
from ddpg_jax.replay.host.hindsight import HindsightRing
from ddpg_jax.replay.host.prioritized import PrioritizedRing
from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.types import (
    EnvSpec,
)

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.config.sections import HindsightReplayConfig, PrioritizedReplayConfig
    from ddpg_jax.envs.host.goals import GoalTask


def make_replay(config: Config, spec: EnvSpec) -> replays.DeviceReplay:
    """The replay of a configuration, whose numbers may be traced."""
    kind, rule = _REPLAYS[config.replay.kind]
    return kind(
        spec,
        num_envs=config.env.num_envs,
        capacity=config.replay.capacity,
        n_step=config.algorithm.n_step,
        gamma=config.algorithm.gamma,
        **rule(config),
    )


_REPLAYS: dict[str, tuple[Callable[..., replays.DeviceReplay], Callable[[Config], dict[str, Any]]]] = {
    "uniform": (replays.uniform, lambda config: {}),
    "prioritized": (prioritized, lambda config: {"rule": prioritization(config)}),
}


def prioritization(config: Config) -> Prioritization:
    """How prioritised replay weighs and draws, if it is configured: its numbers may be traced."""
    replay = cast("PrioritizedReplayConfig", config.replay)
    last = config.updates_owed(config.total_steps)
    return Prioritization(replay.alpha, replay.beta, replay.beta_end, replay.epsilon, updates=last)


def make_ring(config: Config, spec: EnvSpec, goals: GoalTask | None = None) -> Ring:
    """An empty replay of the host loop.

    Args:
      config: the run.
      spec: what its environments look like.
      goals: of these environments, where the replay is one that asks for it; see `wants_goals`.

    Raises:
      ConfigError: it does not fit into memory.
    """
    kind, rule = _RINGS[config.replay.kind]
    return kind(
        spec,
        config.seed_list,
        num_envs=config.env.num_envs,
        capacity=config.replay.capacity,
        n_step=config.algorithm.n_step,
        gamma=config.algorithm.gamma,
        **rule(config, goals),
    )


def wants_goals(config: Config) -> bool:
    """Whether the replay must know the goals of the environment."""
    return config.replay.kind == "hindsight"


_RINGS: dict[str, tuple[Callable[..., Ring], Callable[[Config, GoalTask | None], dict[str, Any]]]] = {
    "uniform": (Ring, lambda config, goals: {}),
    "prioritized": (PrioritizedRing, lambda config, goals: {"rule": prioritization(config)}),
    "hindsight": (HindsightRing, lambda config, goals: {"goals": goals, "relabel": _relabel(config)}),
}


def _relabel(config: Config) -> float:
    return cast("HindsightReplayConfig", config.replay).relabel
