"""A learner of rewards of any scale: it learns from rewards divided by a scale that the loop measures."""

from __future__ import annotations

import jax.numpy as jnp

from ddpg_jax.types import Agent, Array, Batch, Metrics, TrainState


def with_scaled_rewards(agent: Agent) -> Agent:
    """The agent, whose critics are of rewards divided by `stats.reward`; it starts at 1, and the loop sets it.

    The replay holds rewards as they came, so all of a batch is on the scale of now. What the agent predicts is in the
    environment's units again.
    """

    def update(state: TrainState, batches: Batch, run_key: Array) -> tuple[TrainState, Metrics, Array]:
        data = batches.data._replace(reward=batches.data.reward / state.stats.reward)
        return agent.update(state, batches._replace(data=data), run_key)

    def value(state: TrainState, obs: Array) -> Array:
        return agent.value(state, obs) * state.stats.reward

    return keeping_scale(agent)._replace(update=update, value=value)


def keeping_scale(agent: Agent) -> Agent:
    """The agent, whose state has a scale in `stats.reward`, which starts at 1 and survives a reset."""

    def init(run_key: Array) -> TrainState:
        return _with_scale(agent.init(run_key), jnp.ones(()))

    def reset(state: TrainState, run_key: Array) -> TrainState:
        return _with_scale(agent.reset(_with_scale(state, ()), run_key), state.stats.reward)

    return agent._replace(init=init, reset=reset)


def _with_scale(state: TrainState, scale: Array | tuple[()]) -> TrainState:
    return state._replace(stats=state.stats._replace(reward=scale))
