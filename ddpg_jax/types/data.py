"""Experience, from a step of an environment to a batch of an update."""

from __future__ import annotations

from typing import Any, NamedTuple

from ddpg_jax.types.aliases import Tree


class Transition(NamedTuple):
    """What the update learns from: one step of experience, or n steps folded into one.

    Attributes:
      obs: observation acted on, `[*O]`.
      action: action taken, `[A]`, each component in [-1, 1].
      reward: sum of gamma^i r_i over the folded steps, `[]`.
      discount: gamma^n, or 0 where `next_obs` is terminal; a time limit is not terminal. `[]`.
      next_obs: the true successor, `[*O]`, also where the episode was cut by a time limit.
      extras: anything a variant adds; `()` if nothing.
    """

    obs: Any
    action: Any
    reward: Any
    discount: Any
    next_obs: Any
    extras: Tree = ()


class Step(NamedTuple):
    """What any environment, on host or device, reports after an action.

    Attributes:
      obs: observation to act on next, `[*O]`: `next_obs`, or the first of a new episode.
      next_obs: the true successor of the action, `[*O]`, also at an episode's end.
      reward: `[]`.
      terminated: the successor is terminal: its value is 0. `[]`, bool.
      truncated: the episode was cut (time limit): its value is not 0. `[]`, bool.
    """

    obs: Any
    next_obs: Any
    reward: Any
    terminated: Any
    truncated: Any


class Seen(NamedTuple):
    """What an agent with memory is told at a step.

    Attributes:
      obs: to act on, `[*O]`.
      action: the one before, `[A]`.
      reward: what came of it, `[]`.
      first: whether an episode begins, bool `[]`: action and reward count as 0 then, and nothing is remembered.
    """

    obs: Any
    action: Any
    reward: Any
    first: Any


class Recalled(NamedTuple):
    """What an agent with memory acts on, in the place of an observation.

    Attributes:
      seen: the step.
      carry: what it remembers of the steps before.
    """

    seen: Seen
    carry: Tree


class Window(NamedTuple):
    """N consecutive steps of one environment; episodes may end and begin inside.

    W of them are learned from, or lead to those that are; the others, n - 1 of them, only lie ahead of n-step targets.

    Attributes:
      obs: observations acted on, `[N, *O]`.
      action: actions taken, `[N, A]`, in [-1, 1].
      reward: of each step alone, `[N]`.
      next_obs: the true successors, `[N, *O]`, also at an episode's end.
      first: whether an episode begins with the step, bool `[N]`; also where the one before is not stored.
      action_before: the action before the first step, `[A]`; 0 where `first[0]`.
      reward_before: what came of it, `[]`; likewise.
      last: the step whose successor the target of step t asks for the value of, int32 `[W]`: t where n is 1.
      carry: what was remembered before the first step; `()`: nothing.
    """

    obs: Any
    action: Any
    reward: Any
    next_obs: Any
    first: Any
    action_before: Any
    reward_before: Any
    last: Any
    carry: Tree = ()


class Batch(NamedTuple):
    """Transitions drawn for one update.

    Attributes:
      data: transitions with a leading `[B]`.
      weight: importance weights `[B]`; 1 under uniform replay.
      index: where each row stands in the replay, `[B]`, for the write-back of priorities.
    """

    data: Transition
    weight: Any
    index: Any
