"""When what is due: reports, updates, warm-up. Plain numbers, known before anything is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from ddpg_jax.errors import ConfigError

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config


def is_due(step: int, every: int, stride: int) -> bool:
    """Whether a multiple of `every` (0: none) was reached by the last `stride` steps up to `step`."""
    return every > 0 and step // every > (step - stride) // every


def is_boundary(config: Config, step: int) -> bool:
    """Whether a report is due after `step` environment steps of each seed."""
    periods = config.logging.every, config.evaluation.every
    return step >= config.total_steps or any(is_due(step, every, config.env.num_envs) for every in periods)


def chunks(config: Config, *periods: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Iterations between boundaries: from and up to, for each.

    Args:
      config: the run.
      *periods: a boundary is where a multiple of one of them, in environment steps of each seed, is reached (0: none),
        and at the end.
      start: the iteration to begin from.
    """
    num_envs = config.env.num_envs
    last = -(-config.total_steps // num_envs)
    while start < last:
        following = [(start * num_envs // every + 1) * every for every in periods if every]
        stop = min([last, *(-(-step // num_envs) for step in following)])
        yield start, stop
        start = stop


def updates_per_call(config: Config) -> int:
    """U: what is configured, or the updates due after one step of all environments, in whole rounds, at least one."""
    algorithm = config.algorithm
    rounds = max(1, round(algorithm.updates_per_step * config.env.num_envs / algorithm.critic_steps_per_round))
    return algorithm.updates_per_call or rounds * algorithm.critic_steps_per_round


def reset_period(config: Config) -> int:
    """Iterations between two resets of the networks; 0: never. A reset comes before the iteration it falls on."""
    return -(-config.algorithm.reset_every // config.env.num_envs)


def resets_before(config: Config, iteration: int) -> bool:
    """Whether networks that have begun to learn begin anew before an iteration."""
    period, step = reset_period(config), iteration * config.env.num_envs
    return period > 0 and iteration % period == 0 and step >= max(1, config.algorithm.learning_begins)


def calls_per_iteration(config: Config) -> Fraction:
    """Calls of the update, U updates each, that are due after one step of all environments, to 1e-6.

    Raises:
      ConfigError: the fraction does not fit into the device's counter.
    """
    per_step = Fraction(str(config.algorithm.updates_per_step))
    exact = per_step * config.env.num_envs / updates_per_call(config)
    calls = exact.limit_denominator(2**24)
    if abs(calls - exact) > exact / 10**6 or calls.numerator >= 2**30:
        raise ConfigError(
            f"algorithm.updates_per_step={config.algorithm.updates_per_step}: {float(exact):.3g} calls of the update "
            "for one step of all environments are more, or fewer, than the device loop can count"
        )
    return calls


class Segment(NamedTuple):
    """Iterations that do the same: from `begin` up to `end` (None: for ever)."""

    begin: int
    end: int | None
    uniform: bool
    learns: bool


def segments(config: Config) -> tuple[Segment, ...]:
    """The warm-up with uniform actions and the time before learning starts, each without the other's work."""
    algorithm, num_envs = config.algorithm, config.env.num_envs
    warm, learn = (-(-steps // num_envs) for steps in (algorithm.warmup_steps, algorithm.learning_begins))
    cuts = [0, *sorted({warm, learn} - {0}), None]
    return tuple(Segment(a or 0, b, uniform=(a or 0) < warm, learns=(a or 0) >= learn) for a, b in pairwise(cuts))
