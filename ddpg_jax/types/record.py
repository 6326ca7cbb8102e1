"""What a run leaves behind: rows, evaluations, snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from ddpg_jax.types.aliases import HostArray, Tree

Row: TypeAlias = dict[str, Any]
"""One line of the record: event, seed, step, and numbers; only what the configuration determines."""


class Evaluation(NamedTuple):
    """Episodes of the greedy policy; NumPy arrays once they have left the device.

    Attributes:
      returns: sum of rewards, `[S, episodes]`.
      lengths: steps, `[S, episodes]`.
      discounted: sum of gamma^t r_t; where a time limit cut the episode after T steps, with gamma^T times what the
        critics predict of its last observation, as the return of a policy goes on there. `[S, episodes]`.
      predicted: what the critics predicted of the first observation, `[S, episodes]`.
      info: numbers of the info at the episodes' ends, `[S, episodes]` by key, NaN where there is none; `()` where none
        are wanted.
    """

    returns: Any
    lengths: Any
    discounted: Any
    predicted: Any
    info: Tree = ()

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
      read_rows: `(first, stop) -> rows` by name, leaves `[stop - first, ...]`; one whose name is `a@b` has an entry for
        each that is true of the leaf `b`, in order.
      seconds: spent so far, by phase.
      unrecorded: the rows of the report here, which the loop yields again because recording it failed; None: there is
        no such report.
    """

    arrays: Mapping[str, HostArray]
    first_row: int
    stop_row: int
    read_rows: Callable[[int, int], Mapping[str, HostArray]]
    seconds: dict[str, float]
    unrecorded: list[Row] | None = None
