"""A seed that is alone, without its axis."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeAlias

import jax

from ddpg_jax.types import Tree

Axes: TypeAlias = int | tuple[int | None, ...]
"""As of `jax.vmap`, for whole arguments or results: 0 for what has an axis of lanes, None for what has none."""


def squeezed_vmap(
    function: Callable[..., Any],
    in_axes: Axes = 0,
    out_axes: Axes = 0,
    keeps: Callable[[Tree], bool] = lambda part: False,
) -> Callable[..., Any]:
    """`jax.vmap` over one lane: its arguments and results have a leading `[1]`, which the function does not see.

    An axis of one is not nothing to a compiler: XLA lays out products otherwise.

    Args:
      function: of one lane.
      in_axes: of its arguments.
      out_axes: of its results.
      keeps: whether a part of an argument or result keeps its axis, so that the function sees it.
    """

    def without(tree: Tree, axis: int | None) -> Tree:
        return tree if axis is None else jax.tree.map(squeeze, tree, is_leaf=keeps)

    def squeeze(part: Tree) -> Tree:
        return part if keeps(part) else part[0]

    def with_axis(tree: Tree, axis: int | None) -> Tree:
        return tree if axis is None else jax.tree.map(expand, tree, is_leaf=keeps)

    def expand(part: Tree) -> Tree:
        return part if keeps(part) else part[None]

    @wraps(function)
    def call(*arguments: Tree) -> Any:
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(arguments)
        found = function(*(without(x, axis) for x, axis in zip(arguments, axes, strict=True)))
        if not isinstance(out_axes, tuple):
            return with_axis(found, out_axes)
        return tuple(with_axis(x, axis) for x, axis in zip(found, out_axes, strict=True))

    return call
