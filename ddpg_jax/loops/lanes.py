"""Functions of one lane as functions of all: a lane is a seed, or a seed with numbers of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax

from ddpg_jax.types import Tree

Axes: TypeAlias = Sequence[int | None]
"""For each argument or result: 0 where it has a leading `[L]`, None where it is the same for all lanes."""


def over_lanes(
    function: Callable[..., Any], in_axes: Axes, out_axes: Axes, *, alone: bool = False
) -> Callable[..., Any]:
    """`jax.vmap`; or the function as it is, for a lane that is alone.

    An axis of one is not nothing to a compiler: XLA lays out products otherwise, and with it an update of TD3 at
    256-256 takes an eighth more time on a CPU.

    Args:
      function: of one lane; it returns a tuple.
      in_axes: of its arguments.
      out_axes: of what it returns.
      alone: whether L is 1.
    """

    def of_one(*arguments: Tree) -> tuple[Tree, ...]:
        found = function(*_each(lambda x: x[0], in_axes, arguments))
        return _each(lambda x: x[None], out_axes, found)

    return of_one if alone else jax.vmap(function, tuple(in_axes), tuple(out_axes))


def _each(change: Callable[[Any], Any], axes: Axes, trees: Sequence[Tree]) -> tuple[Tree, ...]:
    return tuple(tree if axis is None else jax.tree.map(change, tree) for axis, tree in zip(axes, trees, strict=True))
