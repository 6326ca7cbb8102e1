"""What is to be known of an environment beside its spaces: whether its episodes end, and what outlives them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, TimeLimit
from gymnasium.wrappers.utils import RunningMeanStd

from ddpg_jax.envs.host.from_device import FromDevice

if TYPE_CHECKING:
    from ddpg_jax.envs.host.make import GymEnv

_log = logging.getLogger("ddpg_jax")

EVALUATION_STEPS = 10_000
"""Bound of an evaluation's episodes where the environment has no time limit: ten times what most tasks have."""


class Traits(NamedTuple):
    """What can be told of an environment without stepping it.

    Attributes:
      limited: whether a time limit ends its episodes.
      statistics: names of its wrappers whose statistics go on from one episode to the next.
    """

    limited: bool
    statistics: tuple[str, ...]


class EvaluationLimit(TimeLimit):
    """The time limit that an evaluation puts on an environment that has none."""


PLAIN = Traits(limited=True, statistics=())
"""Of an environment that surprises nobody."""


def traits(env: GymEnv) -> Traits:
    """Looks at an environment and at all of its wrappers."""
    layers = list(_layers(env))
    limited = any(isinstance(each, TimeLimit) and not isinstance(each, EvaluationLimit) for each in layers)
    limited = limited or any(map(_limits_itself, layers))
    return Traits(limited, tuple(type(each).__name__ for each in layers if _keeps_statistics(each)))


def limit_evaluation(env: GymEnv) -> GymEnv:
    """The environment, with a bound on its episodes if it has no time limit."""
    return env if traits(env).limited else EvaluationLimit(env, EVALUATION_STEPS)


def warn_of(found: Traits, identifier: str) -> None:
    """Says what a user would not expect of an environment, once."""
    if not found.limited:
        _log.warning(
            "warning: env.id=%r has no time limit: an evaluation cuts its episodes after %d steps; "
            "set env.max_episode_steps if they may not end by themselves",
            identifier,
            EVALUATION_STEPS,
        )
    if found.statistics:
        _log.warning(
            "warning: env.id=%r is wrapped in %s: each environment has statistics of its own, those of evaluation too, "
            "which begin anew with each run and each resume, so returns cannot be compared; "
            "set algorithm.normalize_observations instead of wrapping observations",
            identifier,
            ", ".join(found.statistics),
        )


def _layers(env: Any) -> Iterator[Any]:
    while True:
        yield env
        if not isinstance(env, gymnasium.Wrapper):
            return
        env = env.env


def _limits_itself(layer: Any) -> bool:
    """Whether it ends its own episodes: one written in JAX does, and a task of dm_control, behind shimmy."""
    if isinstance(layer, FromDevice):
        return True
    limit = getattr(getattr(layer, "_env", None), "_step_limit", None)
    return isinstance(limit, (int, float)) and isfinite(limit)


def _keeps_statistics(layer: Any) -> bool:
    known = isinstance(layer, (NormalizeObservation, NormalizeReward))
    return known or any(isinstance(value, RunningMeanStd) for value in vars(layer).values())
