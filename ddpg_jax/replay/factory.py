"""From a configuration to the replay of either loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from ddpg_jax.equations.priorities import Prioritization
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.replay.device.frames import frames, prioritized_frames
from ddpg_jax.replay.device.prioritized import prioritized
from ddpg_jax.replay.device.sequences import prioritized_sequences, sequences
from ddpg_jax.replay.host.frames import FrameRing, PrioritizedFrameRing
from ddpg_jax.replay.host.hindsight import HindsightRing
from ddpg_jax.replay.host.prioritized import PrioritizedRing
from ddpg_jax.replay.host.ring import Ring
from ddpg_jax.replay.host.sequences import PrioritizedSequenceRing, SequenceRing
from ddpg_jax.types import (
    EnvSpec,
)

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.config.sections import HindsightReplayConfig, PrioritizedReplayConfig
    from ddpg_jax.envs.host.goals import GoalTask


def make_replay(config: Config, spec: EnvSpec, carry_size: int = 0) -> replays.DeviceReplay:
    """The replay of a configuration, whose numbers may be traced.

    Args:
      config: the run.
      spec: what its environments look like.
      carry_size: numbers that the agent remembers of one environment, where states are kept.

    Raises:
      ConfigError: it is too short for a stack of pictures.
    """
    kinds = _kinds_for(config, spec, _REPLAYS, _FRAMES, _SEQUENCES)
    kind, rule = kinds[config.replay.kind]
    return kind(
        spec,
        num_envs=config.env.num_envs,
        capacity=config.replay.capacity,
        n_step=config.algorithm.n_step,
        gamma=config.algorithm.gamma,
        **rule(config),
        **_windows(config, carry_size),
    )


_Kinds = TypeVar("_Kinds", bound="Mapping[str, object]")


def _kinds_for(config: Config, spec: EnvSpec, plain: _Kinds, stacks: _Kinds, windows: _Kinds) -> _Kinds:
    """The replays to choose from; where there is none for stacks of pictures, these are kept as they come."""
    if config.algorithm.window is not None:
        return windows
    return stacks if spec.stack and config.replay.kind in stacks else plain


_Replays: TypeAlias = "dict[str, tuple[Callable[..., replays.DeviceReplay], Callable[[Config], dict[str, Any]]]]"
_REPLAYS: _Replays = {
    "uniform": (replays.uniform, lambda config: {}),
    "prioritized": (prioritized, lambda config: {"rule": prioritization(config)}),
}
_FRAMES: _Replays = {
    "uniform": (frames, lambda config: {}),
    "prioritized": (prioritized_frames, lambda config: {"rule": prioritization(config)}),
}
_SEQUENCES: _Replays = {
    "uniform": (sequences, lambda config: {}),
    "prioritized": (prioritized_sequences, lambda config: {"rule": prioritization(config)}),
}


def _windows(config: Config, carry_size: int) -> dict[str, int]:
    """Arguments of a replay for an agent that learns from windows; of the others, none."""
    window = config.algorithm.window
    return {} if window is None else window._asdict() | {"carry_size": carry_size if window.keep_every else 0}


def prioritization(config: Config) -> Prioritization:
    """How prioritised replay weighs and draws, if it is configured: its numbers may be traced."""
    replay = cast("PrioritizedReplayConfig", config.replay)
    last = config.updates_owed(config.total_steps)
    faded = replay.fade, replay.fade_floor
    return Prioritization(replay.alpha, replay.beta, replay.beta_end, replay.epsilon, last, *faded)


def make_ring(config: Config, spec: EnvSpec, goals: GoalTask | None = None, carry_size: int = 0) -> Ring:
    """An empty replay of the host loop.

    Args:
      config: the run.
      spec: what its environments look like.
      goals: of these environments, where the replay is one that asks for it; see `wants_goals`.
      carry_size: as in `make_replay`.

    Raises:
      ConfigError: it does not fit into memory, or is too short for a stack of pictures.
    """
    kinds = _kinds_for(config, spec, _RINGS, _FRAME_RINGS, _SEQUENCE_RINGS)
    kind, rule = kinds[config.replay.kind]
    return kind(
        spec,
        config.seed_list,
        num_envs=config.env.num_envs,
        capacity=config.replay.capacity,
        n_step=config.algorithm.n_step,
        gamma=config.algorithm.gamma,
        **rule(config, goals),
        **_windows(config, carry_size),
    )


def wants_goals(config: Config) -> bool:
    """Whether the replay must know the goals of the environment."""
    return config.replay.kind == "hindsight"


_Rings: TypeAlias = "dict[str, tuple[Callable[..., Ring], Callable[[Config, GoalTask | None], dict[str, Any]]]]"
_RINGS: _Rings = {
    "uniform": (Ring, lambda config, goals: {}),
    "prioritized": (PrioritizedRing, lambda config, goals: {"rule": prioritization(config)}),
    "hindsight": (HindsightRing, lambda config, goals: {"goals": goals, "relabel": _relabel(config)}),
}
_FRAME_RINGS: _Rings = {
    "uniform": (FrameRing, lambda config, goals: {}),
    "prioritized": (PrioritizedFrameRing, lambda config, goals: {"rule": prioritization(config)}),
}
_SEQUENCE_RINGS: _Rings = {
    "uniform": (SequenceRing, lambda config, goals: {}),
    "prioritized": (PrioritizedSequenceRing, lambda config, goals: {"rule": prioritization(config)}),
}


def _relabel(config: Config) -> float:
    return cast("HindsightReplayConfig", config.replay).relabel
