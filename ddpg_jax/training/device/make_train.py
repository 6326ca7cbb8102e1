"""The whole training of one seed as one pure function, for use inside anybody's program."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax.agents.algorithms import MakeAgentFn
from ddpg_jax.envs.factory import device_env
from ddpg_jax.errors import ConfigError
from ddpg_jax.training.device.carry import Clock, Lane, Totals, start_clock, zero_totals
from ddpg_jax.training.device.program import program
from ddpg_jax.training.report import DIAGNOSTICS, METRICS, Hyper
from ddpg_jax.training.schedule import chunks
from ddpg_jax.types import Array, DeviceEnv, Evaluation, TrainState

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config


class History(NamedTuple):
    """What `make_train` saw at its N evaluations; the figures of updates and episodes are means since the one before.

    Attributes:
      step: environment steps of each seed, `[N]`.
      returns: of the greedy policy, `[N, episodes]`.
      lengths: of those episodes, `[N, episodes]`.
      discounted: their returns, discounted, as in `Evaluation`, `[N, episodes]`.
      predicted: what the critics predicted of them, `[N, episodes]`.
      episodes: training episodes that ended, `[N]`.
      episode_return: their mean return, `[N]`; NaN without any.
      metrics: the means of `METRICS` over the updates, those that were rejected apart, by name, `[N]`; NaN without any.
        "max_q" is the largest, "rejected" the share of those that were not finite, and
        `DIAGNOSTICS` are those of the moment.
    """

    step: Array
    returns: Array
    lengths: Array
    discounted: Array
    predicted: Array
    episodes: Array
    episode_return: Array
    metrics: dict[str, Array]


def make_train(
    config: Config, env: DeviceEnv | None = None, make_agent: MakeAgentFn | None = None
) -> Callable[..., tuple[TrainState, History]]:
    """The whole training of one seed as one pure function, to be used inside anybody's `jit` and `vmap`.

        keys = jax.random.split(jax.random.key(0), 64)
        states, history = jax.jit(jax.vmap(make_train(config)))(keys)

    Args:
      config: the run; its seeds are not used, as a key is given.
      env: the environment; None: the one that `env.id` names.
      make_agent: what builds the agent, for variants of one's own (docs/adding_a_variant.md); None: what the
        configuration names.

    Returns:
      `(key, hyper={}) -> (state, history)`: numbers in `hyper`, by path, replace those of the configuration and may be
      traced, so `vmap` runs over them as over keys. The policy is evaluated at the multiples of `evaluation.every`, and
      at the end.

    Raises:
      ConfigError: the environment is not known, or the steps are too many.
      EnvironmentFault: the environment cannot be made or trained.
    """
    if config.total_steps >= 2**31:
        raise ConfigError(f"total_steps={config.total_steps}: make_train counts at most 2147483647; train has no limit")
    one = program(config, env or device_env(config), make_agent=make_agent)
    bounds = list(chunks(config, config.evaluation.every))
    counts = np.stack([one.counts(*bound) for bound in bounds])
    steps = np.array([stop * config.env.num_envs for _, stop in bounds])

    def train(key: Array, hyper: Hyper | None = None) -> tuple[TrainState, History]:
        def period(carry: tuple[Lane, Clock], counts: Array) -> tuple[tuple[Lane, Clock], tuple[Totals, Evaluation]]:
            lane, clock, totals = one.advance(*carry, zero_totals(), counts, key, hyper or {})
            return (lane, clock), (totals, one.evaluate(lane.learner, hyper or {}))

        (lane, _), (totals, evaluation) = jax.lax.scan(
            period, (one.init(key, hyper or {}), start_clock()), jnp.asarray(counts)
        )
        updates, episodes = (x.astype(jnp.float32) for x in (totals.updates, totals.episodes))
        sums = dict(zip(METRICS, totals.metrics.T, strict=True))
        applied = updates - sums["rejected"]
        max_q = jnp.where(applied > 0, totals.max_q, jnp.full_like(totals.max_q, jnp.nan))
        means = {name: total / applied for name, total in sums.items()}
        means |= {"max_q": max_q, "rejected": sums["rejected"] / updates}
        means |= zip(DIAGNOSTICS, totals.diagnostics.T, strict=True)
        episode_return = totals.episode_return / episodes
        return lane.learner, History(jnp.asarray(steps), *evaluation[:4], totals.episodes, episode_return, means)

    return train
