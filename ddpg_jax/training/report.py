"""What a loop says at a boundary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ddpg_jax.types import Agent, Batch, EnvSpec, Evaluation, Row, Snapshot, TrainState

if TYPE_CHECKING:
    from ddpg_jax.errors import EnvironmentFault, Interrupted


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


Hyper: TypeAlias = Mapping[str, Any]
"""Numbers that replace those of the configuration, `[]` by path, as in `{"algorithm.tau": 0.01}`; see `hyper_paths`."""

AgentFn: TypeAlias = Callable[[Hyper], Agent]
"""The agent of a lane, by its numbers, which may be traced."""

SnapshotFn: TypeAlias = Callable[[int], bool]
"""`step -> whether` a loop shall let its state be seen after so many environment steps of each seed, report or not."""


def no_snapshots(step: int) -> bool:
    """A `SnapshotFn` that asks for nothing."""
    return False


InitFn: TypeAlias = Callable[[TrainState], TrainState]
"""What becomes of the fresh learner of a loop, leaves `[L, ...]`, before it begins."""


def keep_init(learner: TrainState) -> TrainState:
    """A `InitFn` that changes nothing."""
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
      fault: what an environment did when it was to be stepped, or that it was not as a stop was asked for; it is raised
        when the loop goes on.
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
    fault: EnvironmentFault | Interrupted | None = None
    batches: BatchesFn = no_batches


class Loop(NamedTuple):
    """A loop about to begin, and what judges its learner.

    Attributes:
      spec: the environment.
      reports: the loop.
      evaluate: one greedy episode from each of the bank of evaluation episodes.
      restarted_episodes: environments whose episode in progress was given up, because it did not repeat itself when it
        was replayed; 0: the loop goes on to the bit.
      doubts: why the loop may not go on to the bit all the same; a line for each reason.
    """

    spec: EnvSpec
    reports: Iterator[Report]
    evaluate: Callable[[TrainState], Evaluation]
    restarted_episodes: int = 0
    doubts: tuple[str, ...] = ()


def training_seconds(phases: Mapping[str, float]) -> float:
    """Seconds by phase added up, but for the compiler's."""
    return sum(seconds for phase, seconds in phases.items() if phase != "compile")
