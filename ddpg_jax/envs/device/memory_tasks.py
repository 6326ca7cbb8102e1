"""Tasks that only an agent with memory can solve, and what the best return is with memory and without.

Without memory means: the action is a function of the observation that is there now, drawn at random or not. The bounds
are of undiscounted returns, and expectations over episodes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.envs.device.autoreset import episodic
from ddpg_jax.types import Array, DeviceEnv, EnvSpec


class BestReturns(NamedTuple):
    """The highest expected returns of a task.

    Attributes:
      with_memory: of policies that remember the episode.
      without_memory: of policies that see no more than the observation.
    """

    with_memory: float
    without_memory: float


class Recall(NamedTuple):
    """The value to be recalled, `[]`, and steps taken, int32 `[]`."""

    value: Array
    steps: Array


def recall(length: int = 30, max_episode_steps: int | None = None) -> DeviceEnv:
    """A value is shown at the first step and asked for at the last.

    Observations are (o, asked): o is the value, uniform in [-1, 1], at the first step and 0 afterwards; asked is 1 at
    the last step, else 0. The action is one number in [-1, 1]. The reward of the last step is 1 − (action − value)²,
    all others are 0, and the episode ends there.

    Args:
      length: steps of an episode, at least 1.
      max_episode_steps: time limit, at least the length, which ends the episode before; None: the length.

    Raises:
      ValueError: the length is below 1, or the time limit below the length.
    """
    limit = length if max_episode_steps is None else max_episode_steps
    if not 1 <= length <= limit:
        raise ValueError(f"length={length}: expected at least 1 and, as the answer is due then, at most {limit} steps")

    def observe(value: Array, steps: Array) -> Array:
        return jnp.stack([jnp.where(steps == 0, value, 0.0), (steps == length - 1).astype(jnp.float32)])

    def reset(key: Array) -> tuple[Recall, Array]:
        state = Recall(jax.random.uniform(key, minval=-1.0, maxval=1.0), jnp.zeros((), jnp.int32))
        return state, observe(*state)

    def step(state: Recall, action: Array, key: Array) -> tuple[Recall, Array, Array, Array, bool]:
        asked = state.steps == length - 1
        reward = jnp.where(asked, 1.0 - jnp.square(action[0] - state.value), 0.0)
        state = state._replace(steps=state.steps + 1)
        return state, observe(*state), reward, asked, False

    return episodic(reset, step, EnvSpec((2,), "float32", (-1.0,), (1.0,)), limit)


def recall_bounds(length: int = 30) -> BestReturns:
    """The best returns of `recall`: 1 with memory and 2/3 without.

    With memory the value v is known when it is asked for, so a = v and the return is 1. Without, the last observation
    is (0, 1) in every episode, so the action there is independent of v; of uniform v, E(a − v)² = E(a²) + 1/3, which is
    least at a = 0. An episode of one step shows the value and asks for it at once, so that nothing is to be remembered.
    """
    return BestReturns(1.0, 1.0 if length == 1 else 2.0 / 3.0)


class TMaze(NamedTuple):
    """Cue, +1 or -1, position in steps from the start, each `[]`; and whether the episode begins, bool `[]`."""

    cue: Array
    position: Array
    first: Array


def tmaze(corridor: int = 30, max_episode_steps: int | None = None) -> DeviceEnv:
    """A cue at the start of a corridor says where to turn at its end; in between all places look alike.

    Observations are (cue, corridor, junction): the cue, +1 or -1, at the first step and 0 afterwards; 1 in the
    corridor; 1 at the junction. The action is (forward, turn), each in [-1, 1]. In the corridor the agent moves by
    `forward`, and pays (1 − forward + turn²)/length: nothing at full speed, straight on. At the junction the sign of
    `turn` chooses: 1 for that of the cue, 0 for the other, and the episode ends.

    So the way is learned from every step. The cost of turning too early keeps the turn of a policy that knows nothing
    of the cue yet near 0, where exploration tries both sides; without it that turn drifts to one of its bounds, and
    what was learned of the other side is never put to the test.

    Args:
      corridor: its length, in steps at full speed, at least 1.
      max_episode_steps: time limit, above the corridor's length; None: half as long again, and 10.

    Raises:
      ValueError: the corridor is shorter than 1, or too long for the time limit.

    References:
      Bakker, "Reinforcement learning with long short-term memory" (NIPS 2001), whose maze has steps and four actions;
      Ni et al., "When do transformers shine in RL?" (arXiv:2307.03864), for a cost of not going forward.
    """
    limit = corridor + corridor // 2 + 10 if max_episode_steps is None else max_episode_steps
    if not 1 <= corridor < limit:
        raise ValueError(f"corridor={corridor}: expected at least 1 and fewer than the {limit} steps of the time limit")

    def observe(state: TMaze) -> Array:
        junction = (state.position >= corridor).astype(jnp.float32)
        return jnp.stack([jnp.where(state.first, state.cue, 0.0), 1.0 - junction, junction])

    def reset(key: Array) -> tuple[TMaze, Array]:
        state = TMaze(jax.random.rademacher(key, (), jnp.float32), jnp.zeros(()), jnp.ones((), bool))
        return state, observe(state)

    def step(state: TMaze, action: Array, key: Array) -> tuple[TMaze, Array, Array, Array, bool]:
        forward, turn = action[0], action[1]
        chosen = state.position >= corridor
        right = (state.cue * turn > 0).astype(jnp.float32)
        reward = jnp.where(chosen, right, (forward - 1.0 - jnp.square(turn)) / corridor)
        position = jnp.where(chosen, state.position, jnp.clip(state.position + forward, 0.0, corridor))
        state = TMaze(state.cue, position, jnp.zeros((), bool))
        return state, observe(state), reward, chosen, False

    return episodic(reset, step, EnvSpec((3,), "float32", (-1.0, -1.0), (1.0, 1.0)), limit)


def tmaze_bounds() -> BestReturns:
    """The best returns of `tmaze`, at any length of the corridor: 1 with memory and 1/2 without.

    With memory: full speed straight on costs nothing, and the turn is right. No return is higher, as no cost is
    negative.

    Without: let p(c) be the probability to reach the junction when the cue is c, which an agent may choose, as it sees
    the cue at the start; and q that of a turn to the right there. The observation at the junction is the same for both
    cues, so q does not depend on c, and neither does it on how the agent came there. The expected return is at most
    (p(+1)·q + p(−1)·(1 − q))/2, which is at most 1/2. Full speed straight on and any turn reach it.
    """
    return BestReturns(1.0, 0.5)
