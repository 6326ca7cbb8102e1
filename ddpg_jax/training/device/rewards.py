"""The scale of rewards on the device loop: statistics of one seed among what it carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from ddpg_jax.equations.rewards import PRIOR_SIZE, ReturnMoments, RewardMeasure
from ddpg_jax.types import Array, TrainState, Tree

NoteFn: TypeAlias = Callable[[TrainState, Tree, Array, Array], tuple[TrainState, Tree]]
"""`(learner, moments, reward [E], done [E]) -> (learner, moments)`, after a step."""


def start_rewards(num_envs: int, measure: RewardMeasure) -> ReturnMoments:
    """The moments of a run that begins."""
    size, zero, one = jnp.full((), PRIOR_SIZE), jnp.zeros(()), jnp.ones(())
    return ReturnMoments(jnp.zeros(num_envs), size, zero, one, measure.begin(jnp.zeros(())))


def note_rewards(
    measure: RewardMeasure, learner: TrainState, moments: Tree, reward: Array, done: Array
) -> tuple[TrainState, Tree]:
    """Takes note of the rewards of a step, and puts their scale into the learner; without moments nothing happens."""
    if not isinstance(moments, ReturnMoments):
        return learner, moments
    moments = measure.observe(moments, reward)
    moments = moments._replace(returns=jnp.where(done, jnp.zeros_like(moments.returns), moments.returns))
    return learner._replace(stats=learner.stats._replace(reward=measure.scale(moments))), moments
