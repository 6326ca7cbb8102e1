"""What a loop says at a boundary."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from ddpg_jax.types import TrainState

Row: TypeAlias = dict[str, Any]
"""One line of the record: event, seed, step, and numbers; only what the configuration determines."""


class Report(NamedTuple):
    """The state of a run between two iterations.

    Attributes:
      step: environment steps of each seed so far.
      updates: critic updates of each seed so far.
      rows: the lines of the record since the last report, in order.
      seconds: seconds spent so far, by phase.
      state: the learner, leaves `[S, ...]`. Use it before the loop goes on: its buffers are donated then.
    """

    step: int
    updates: int
    rows: list[Row]
    seconds: dict[str, float]
    state: TrainState


def is_due(step: int, every: int, stride: int) -> bool:
    """Whether a multiple of `every` (0: none) was reached by the last `stride` steps up to `step`."""
    return every > 0 and step // every > (step - stride) // every
