"""Windows of consecutive steps, of what either ring holds: NumPy arrays or jax.numpy's.

Which rows a window takes, and from which it may begin, is told here too, so that both rings agree in it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ddpg_jax.equations.returns import fold_steps
from ddpg_jax.types import Transition, Window


class WindowShape(NamedTuple):
    """How long windows are, and where they begin.

    Attributes:
      length: steps that are learned from, L.
      burn_in: steps before them that are only remembered, b.
      n_step: rows folded into a transition at most, n.
      keep_every: P: windows begin where the ring has a place whose number is a multiple of it, and with the state that
        is kept there; 0: anywhere, with none.
    """

    length: int
    burn_in: int
    n_step: int
    keep_every: int = 0

    @property
    def whole(self) -> int:
        """W = b + L: steps that must be stored for a window to begin at the first of them."""
        return self.burn_in + self.length

    @property
    def steps(self) -> int:
        """N = W + n - 1: steps of a window."""
        return self.whole + self.n_step - 1


class StepRows(NamedTuple):
    """Rows as they are stored: the one before a window, whatever it holds where it is not stored, and those of it.

    Attributes:
      obs: `[..., N, *O]`, without the row before.
      action: `[..., 1 + N, A]`.
      reward: `[..., 1 + N]`.
      next_obs: `[..., N, *O]`, without the row before.
      terminated: bool `[..., 1 + N]`.
      truncated: bool `[..., 1 + N]`.
    """

    obs: Any
    action: Any
    reward: Any
    next_obs: Any
    terminated: Any
    truncated: Any


def make_windows(
    rows: StepRows, continues: Any, available: Any, *, n_step: int, gamma: Any, carry: Any = ()
) -> Transition:
    """Windows of steps, and for each of their first W the transition of at most n rows that begins there.

    Args:
      rows: of the windows.
      continues: whether the row before is stored, bool `[...]`.
      available: rows stored from the first of the window on, int `[...]`, at least W = N - n + 1; rows beyond are in no
        transition.
      n_step: n.
      gamma: discount of one step, a number or `[]`.
      carry: what was remembered before the first steps, `[..., K]`, or `()`.

    Returns:
      `Transition(Window, action [..., W, A], reward [..., W], discount [..., W], ())`.
    """
    xp = rows.reward.__array_namespace__()
    going_on = ~(rows.terminated | rows.truncated)
    first = ~xp.concat([(continues & going_on[..., 0])[..., None], going_on[..., 1:-1]], axis=-1)
    begins = first[..., 0]
    before = rows.action[..., 0, :], rows.reward[..., 0]
    action_before = xp.where(begins[..., None], xp.zeros_like(before[0]), before[0])
    reward_before = xp.where(begins, xp.zeros_like(before[1]), before[1])
    action, reward = rows.action[..., 1:, :], rows.reward[..., 1:]
    ends = rows.terminated[..., 1:], rows.truncated[..., 1:]
    total, discount, last = _fold_each(reward, *ends, available, n_step, gamma)
    window = Window(rows.obs, action, reward, rows.next_obs, first, action_before, reward_before, last, carry)
    return Transition(window, action[..., : total.shape[-1], :], total, discount, ())


def _fold_each(reward: Any, terminated: Any, truncated: Any, available: Any, n_step: int, gamma: Any) -> Any:
    """`fold_steps` from each of the first W of N rows, `[..., N]`; the last row is counted from the first of all."""
    xp = reward.__array_namespace__()
    count = reward.shape[-1] - n_step + 1
    offset = xp.arange(count, dtype=available.dtype).reshape(*[1] * (reward.ndim - 1), count)

    def ahead(column: Any) -> Any:
        return xp.stack([column[..., i : i + count] for i in range(n_step)], -1)

    left = available[..., None] - offset
    total, discount, last = fold_steps(ahead(reward), ahead(terminated), ahead(truncated), left, gamma)
    return total, discount, (last + offset).astype("int32")


def kept_places(oldest: Any, count: Any, places: int, every: int) -> tuple[Any, Any]:
    """Multiples of P among consecutive places of a ring, which may lie beyond its end and so at its beginning.

    Args:
      oldest: the first place, an integer array `[]`.
      count: how many, likewise, at most T.
      places: T of the ring.
      every: P.

    Returns:
      `(first, number)`: the first is first·P, and there are so many; see `kept_age`.
    """
    xp = oldest.__array_namespace__()
    first, stop = -(-oldest // every), oldest + count
    until_end = -(-xp.minimum(stop, xp.full_like(stop, places)) // every) - first
    return first, until_end - -xp.maximum(stop - places, xp.zeros_like(stop)) // every


def kept_age(which: Any, first: Any, oldest: Any, places: int, every: int) -> Any:
    """By how much the place of the so many-th of `kept_places`, an integer array from 0, comes after the oldest."""
    return ((first + which) % -(-places // every) * every - oldest) % places
