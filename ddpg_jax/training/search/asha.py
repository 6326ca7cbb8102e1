"""Asynchronous successive halving: who goes on from a rung, and who cannot any more.

Nobody waits for the whole rung. Of n settings that have reached it, those of the best keep · n, rounded down, go on at
once; who has as many better ones as could go on if all that may still come came, is stopped at once. When nobody can
come any more, keep · n is rounded up, as in the other halving, and everybody is one or the other.

References:
  Li et al., "A system for massively parallel hyperparameter tuning", Algorithm 2 (arXiv:1810.05934). There nothing is
  stopped, as settings never run out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, floor


@dataclass
class Rung:
    """The settings that have reached a rung, by their numbers.

    Attributes:
      scores: of each; None: it failed on the way, and goes no further.
      promoted: those that went on.
      stopped: those that will not.
    """

    scores: dict[int, float | None] = field(default_factory=dict[int, "float | None"])
    promoted: set[int] = field(default_factory=set[int])
    stopped: set[int] = field(default_factory=set[int])

    @property
    def gone(self) -> int:
        """How many will never reach the next."""
        return len(self.stopped) + sum(score is None for score in self.scores.values())


def find_promoted(rung: Rung, most: int, keep: float) -> int | None:
    """The best setting that goes on now; None: there is none yet.

    Args:
      rung: who has reached it.
      most: how many will have reached it in the end, at most.
      keep: share that goes on, in (0, 1).
    """
    reached = len(rung.scores)
    count = ceil(keep * most) if reached == most else floor(keep * reached)
    return next((number for number in _rank(rung)[:count] if _waits(number, rung)), None)


def find_stopped(rung: Rung, most: int, keep: float) -> list[int]:
    """Those that will not be among the best, whatever still comes; arguments as of `find_promoted`."""
    return [number for number in _rank(rung)[ceil(keep * most) :] if _waits(number, rung)]


def _waits(number: int, rung: Rung) -> bool:
    return number not in rung.promoted and number not in rung.stopped


def _rank(rung: Rung) -> list[int]:
    """The settings that did not fail, best first; of equal ones the first that was asked for."""
    whole = {number: score for number, score in rung.scores.items() if score is not None}
    return sorted(whole, key=lambda number: (-whole[number], number))
