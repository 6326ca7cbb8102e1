"""Observations that are stacks of pictures, out of a ring that keeps each picture once: NumPy arrays or jax.numpy's.

A row keeps the newest picture of its true successor alone. The observation that was acted on p steps after its episode
began is made of the pictures of the p rows before, as far as they are wanted, and of the first picture of the episode
in the place of those before it; its successor likewise, of one row more. So what a stack is made of is arithmetic, and
no end of an episode is searched for.

First pictures of episodes have places of their own, one for every 8 steps of the ring and one more, in turn. So those
of the last X episodes are there; where more episodes than that lie in the ring, as they last less than 8 steps, the
first pictures of the oldest are lost.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ddpg_jax.errors import ConfigError
from ddpg_jax.types import EnvSpec

BEGINS = "begins"
"""Name of whether an episode begins with a row, among what is kept of rows."""

FIRSTS = f"firsts@{BEGINS}"
"""Likewise of the first pictures of the episodes that begin."""

_STEPS_OF_A_FIRST = 8


class StackShape(NamedTuple):
    """Where the pictures of one lane lie in a table: at first those of the rows, then the first ones of episodes.

    Attributes:
      steps: T, places of the ring.
      stack: k, pictures of an observation.
    """

    steps: int
    stack: int

    @property
    def firsts(self) -> int:
        """X: first pictures that are kept."""
        return -(-self.steps // _STEPS_OF_A_FIRST) + 1

    @property
    def places(self) -> int:
        """T + X: pictures in the table."""
        return self.steps + self.firsts

    @property
    def most_starts(self) -> int:
        """T - k: of so many rows, the newest, all pictures are in the ring; transitions begin at no other."""
        return self.steps - self.stack

    def first_place(self, episode: Any) -> Any:
        """Where the first picture of an episode lies, by its number in the lane, an integer array."""
        return self.steps + episode % self.firsts

    def is_lost(self, since: Any, episode: Any, newest_episode: Any) -> Any:
        """Whether an observation needs the first picture of its episode, which another one has taken the place of.

        Its successor needs that only where the observation does.

        Args:
          since: steps since the episode began, an integer array.
          episode: its number in the lane, likewise.
          newest_episode: that of the newest row of the lane, likewise.
        """
        return (since < self.stack) & (episode <= newest_episode - self.firsts)

    def stack_places(self, newest: Any, known: Any, episode: Any) -> Any:
        """Where the pictures of stacks lie, the newest last.

        Args:
          newest: place of the row whose picture is the newest, an integer array `[...]`; it may lie beyond the ring.
          known: rows of the episode up to that one, `[...]`.
          episode: number of the episode in the lane, `[...]`.

        Returns:
          Places in the table, `[..., k]`.
        """
        xp = newest.__array_namespace__()
        back = xp.arange(self.stack - 1, -1, -1, dtype=newest.dtype).reshape(*[1] * newest.ndim, -1)
        own = (newest[..., None] - back) % self.steps
        return xp.where(back < known[..., None], own, self.first_place(episode)[..., None])


def stack_shape(spec: EnvSpec, capacity: int, num_envs: int) -> StackShape:
    """The table of a ring that holds `capacity` transitions of E environments.

    Raises:
      ConfigError: the ring is too short for a stack.
    """
    shape = StackShape(-(-capacity // num_envs), spec.stack)
    if shape.most_starts < 1:
        raise ConfigError(
            f"replay.capacity={capacity} is {shape.steps} steps of {num_envs} environments, fewer than an observation "
            f"of {spec.stack} pictures and its successor need; set it to {(spec.stack + 1) * num_envs} or more"
        )
    return shape
