"""Optimisers that can skip a step: their state stays as it was where the step is not accepted. Adam is one of them.

Any optimiser becomes one by selecting the old state afterwards (`skippable`). But then its step is computed from
moments that may be thrown away, and a compiler that fuses both must copy the old moments first. `skippable_adam`
computes its step from the moments that are kept, so none are copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ddpg_jax.types import Array, Tree


class Skippable(optax.GradientTransformationExtraArgs):
    """An optimiser whose `update` takes `accept`, a bool `[]`, and returns its state unchanged where that is false."""


def skippable(optimizer: optax.GradientTransformation) -> Skippable:
    """Any optimiser as one that is held; one that is already stays itself."""
    if isinstance(optimizer, Skippable):
        return optimizer
    inner = optax.with_extra_args_support(optimizer)

    def update(
        updates: Tree, state: Tree, params: Tree = None, *, accept: Array | bool = True, **others: Any
    ) -> tuple[Tree, Tree]:
        step, new = inner.update(updates, state, params, accept=accept, **others)
        return step, select(accept, new, state)

    return Skippable(inner.init, update)


def skippable_adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Skippable:
    """`optax.scale_by_adam`, held: where a step is applied, it and the state are optax's.

    References:
      Kingma and Ba, "Adam: a method for stochastic optimization" (arXiv:1412.6980), Algorithm 1.
    """
    init = optax.scale_by_adam(b1, b2, eps).init

    def update(
        updates: Tree, state: Any, params: Tree = None, *, accept: Array | bool = True, **others: Any
    ) -> tuple[Tree, Any]:
        del params, others
        count = select(accept, optax.safe_increment(state.count), state.count)
        mu = select(accept, optax.tree.update_moment(updates, state.mu, b1, 1), state.mu)
        nu = select(accept, optax.tree.update_moment(updates, state.nu, b2, 2), state.nu)
        mean, square = optax.tree.bias_correction(mu, b1, count), optax.tree.bias_correction(nu, b2, count)
        step = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mean, square)
        return step, state._replace(count=count, mu=mu, nu=nu)

    return Skippable(init, update)


def scale_part(optimizer: Skippable, name: str, factor: Array | float) -> Skippable:
    """The optimiser, whose steps of one part of the parameters, a key of their dictionary, are multiplied.

    With Adam that gives this part a learning rate of its own, as its step does not depend on the gradient's scale; for
    encoders that remember: Luo et al., "Efficient recurrent off-policy RL requires a context-encoder-specific learning
    rate" (arXiv:2405.15384).
    """

    def update(updates: Tree, state: Tree, params: Tree = None, **others: Any) -> tuple[Tree, Tree]:
        made, state = optimizer.update(updates, state, params, **others)
        step: Tree = made
        return step | {name: jax.tree.map(lambda x: x * factor, step[name])}, state

    return Skippable(optimizer.init, update)


def project_after(optimizer: Skippable, project: Callable[[Tree], Tree]) -> Skippable:
    """The optimiser, after whose steps the parameters are brought back to where they belong."""

    def update(updates: Tree, state: Tree, params: Tree = None, **others: Any) -> tuple[Tree, Tree]:
        made, state = optimizer.update(updates, state, params, **others)
        there = project(jax.tree.map(jnp.add, params, made))
        return jax.tree.map(jnp.subtract, there, params), state

    return Skippable(optimizer.init, update)


def restrict_to(optimizer: Skippable, name: str) -> Skippable:
    """The optimiser of one part of the parameters, a key of their dictionary; the others stay as they are."""

    def update(updates: Tree, state: Tree, params: Tree = None, **others: Any) -> tuple[Tree, Tree]:
        of_part = None if params is None else params[name]
        made, state = optimizer.update(updates[name], state, of_part, **others)
        return jax.tree.map(jnp.zeros_like, updates) | {name: made}, state

    return Skippable(lambda params: optimizer.init(params[name]), update)


def select(which: Array | bool, one: Tree, other: Tree) -> Tree:
    """One tree or the other, by a bool `[]`; what is the same object in both is not touched."""
    return jax.tree.map(
        lambda a, b: a if a is b else jax.lax.select(jnp.broadcast_to(which, a.shape), a, b), one, other
    )
