"""What a loop says at a boundary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ddpg_jax.types import Batch, HostArray, TrainState

if TYPE_CHECKING:
    from ddpg_jax.errors import EnvironmentFault

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
    "rejected",
)
"""What is logged of an update, in the order of the arrays. "rejected" is 1 where it was not applied, as something was
not finite; the others are 0 then, and do not count."""

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


class Snapshot(NamedTuple):
    """All that a loop needs to go on where it was, to the bit.

    Attributes:
      arrays: by name; whole in every snapshot.
      first_row: of the replay's rows, numbered since the run began, the first that is held.
      stop_row: the one after the last.
      read_rows: `(first, stop) -> rows` by name, leaves `[stop - first, ...]`.
      seconds: spent so far, by phase.
      untaken: the rows of the report here, which the loop makes again, as whoever heard it failed; None: no report is
        to be made again.
    """

    arrays: Mapping[str, HostArray]
    first_row: int
    stop_row: int
    read_rows: Callable[[int, int], Mapping[str, HostArray]]
    seconds: dict[str, float]
    untaken: list[Row] | None = None


WantedFn: TypeAlias = Callable[[int], bool]
"""`step -> whether` a loop shall let its state be seen after so many environment steps of each seed, report or not."""


def never(step: int) -> bool:
    """A `WantedFn` that asks for nothing."""
    return False


BeginFn: TypeAlias = Callable[[TrainState], TrainState]
"""What becomes of the fresh learner of a loop, leaves `[L, ...]`, before it begins."""


def as_made(learner: TrainState) -> TrainState:
    """A `BeginFn` that changes nothing."""
    return learner


BatchesFn: TypeAlias = Callable[[int], Iterator[Batch]]


def no_batches(seed: int) -> Iterator[Batch]:
    """A `BatchesFn` of a loop that has none."""
    return iter(())


class Report(NamedTuple):
    """The state of a run between two iterations.

    Attributes:
      step: environment steps of each seed so far.
      updates: critic updates of each seed so far.
      rows: the lines of the record since the last report, in order; none where the state was only wanted.
      seconds: seconds spent so far, by phase.
      state: the learner, leaves `[S, ...]`, with more lanes after the seeds where devices were filled up. Use it before
        the loop goes on: its buffers are donated then.
      snapshot: all of the loop; to be called before it goes on.
      due: whether this is a report that the configuration asks for.
      fault: what an environment did when it was to be stepped; it is raised when the loop goes on.
      batches: `number of a seed -> batches` that it would learn from next, leaves `[U, B, ...]`; to be called before
        the loop goes on.
    """

    step: int
    updates: int
    rows: list[Row]
    seconds: dict[str, float]
    state: TrainState
    snapshot: Callable[[], Snapshot]
    due: bool = True
    fault: EnvironmentFault | None = None
    batches: BatchesFn = no_batches
