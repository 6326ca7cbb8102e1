"""What a loop says at a boundary."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from ddpg_jax.types import TrainState

Row: TypeAlias = dict[str, Any]
"""One line of the record: event, seed, step, and numbers; only what the configuration determines."""


METRICS = (
    "critic_loss",
    "actor_loss",
    "mean_q",
    "max_q",
    "critic_grad_norm",
    "actor_grad_norm",
    "saturated",
)
"""What is logged of an update, in the order of the arrays."""

DIAGNOSTICS = ("critic_dead", "actor_dead", "target_distance")
"""What is logged of the learner at a report, in the order of the arrays: see `Agent.diagnose`."""


class Evaluation(NamedTuple):
    """Episodes of the greedy policy; NumPy arrays once they have left the device.

    Attributes:
      returns: sum of rewards, `[S, episodes]`.
      lengths: steps, `[S, episodes]`.
      discounted: sum of gamma^t r_t; where a time limit cut the episode after T steps, with gamma^T times what the
        critics predict of its last observation, as the return of a policy goes on there. `[S, episodes]`.
      predicted: what the critics predicted of the first observation, `[S, episodes]`.
    """

    returns: Any
    lengths: Any
    discounted: Any
    predicted: Any

    @property
    def q_bias(self) -> Any:
        """By how much the critics promise more than the policy gets: mean of predicted − discounted, `[S]`.

        References:
          Fujimoto et al., figure 1 (arXiv:1802.09477).
        """
        return (self.predicted - self.discounted).mean(-1)


class Report(NamedTuple):
    """The state of a run between two iterations.

    Attributes:
      step: environment steps of each seed so far.
      updates: critic updates of each seed so far.
      rows: the lines of the record since the last report, in order.
      seconds: seconds spent so far, by phase.
      state: the learner, leaves `[S, ...]`, with more lanes after the seeds where devices were filled up. Use it before
        the loop goes on: its buffers are donated then.
    """

    step: int
    updates: int
    rows: list[Row]
    seconds: dict[str, float]
    state: TrainState
