"""A seed that is alone, without its axis."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeAlias

import jax

from ddpg_jax.loops.carried import Lane
from ddpg_jax.types import Tree

Axes: TypeAlias = int | tuple[int | None, ...]
"""As of `jax.vmap`, for whole arguments or results: 0 for what has an axis of lanes, None for what has none."""


def of_one_lane(function: Callable[..., Any], in_axes: Axes = 0, out_axes: Axes = 0) -> Callable[..., Any]:
    """`jax.vmap` over one lane: its arguments and results have a leading `[1]`, which the function does not see.

    What a `Lane` stores keeps it; see `replay.device.with_lane_axis`.

    An axis of one is not nothing to a compiler: XLA lays out products otherwise, and with it an update of TD3 at
    256-256 takes an eighth more time on a CPU.
    """

    @wraps(function)
    def call(*arguments: Tree) -> Any:
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(arguments)
        found = function(*(_without(x, axis) for x, axis in zip(arguments, axes, strict=True)))
        if not isinstance(out_axes, tuple):
            return _with(found, out_axes)
        return tuple(_with(x, axis) for x, axis in zip(found, out_axes, strict=True))

    return call


def _without(tree: Tree, axis: int | None) -> Tree:
    return tree if axis is None else _mapped(lambda leaf: leaf[0], tree)


def _with(tree: Tree, axis: int | None) -> Tree:
    return tree if axis is None else _mapped(lambda leaf: leaf[None], tree)


def _mapped(change: Callable[[Any], Any], tree: Tree) -> Tree:
    """`change` of all leaves but those that a lane stores."""

    def of(part: Any) -> Any:
        if isinstance(part, Lane):
            return jax.tree.map(change, part._replace(store=()))._replace(store=part.store)
        return change(part)

    return jax.tree.map(of, tree, is_leaf=lambda part: isinstance(part, Lane))
