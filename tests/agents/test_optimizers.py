"""Held optimisers: optax's numbers where a step is applied, nothing moved where it is not."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ddpg_jax as dj
from ddpg_jax.agents.factory import make_optimizers
from ddpg_jax.agents.optimizers import Skippable, skippable, skippable_adam

PARAMS = {"w": jnp.array([[0.5, -1.0], [2.0, 0.25]]), "b": jnp.array([0.1, 0.0])}


@pytest.fixture(autouse=True)
def _as_inside_an_update():
    """Steps are made as `policy_gradient` makes them."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def _gradients(count: int) -> list[Any]:
    rng = np.random.default_rng(3)
    return [
        {name: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for name, p in PARAMS.items()} for _ in range(count)
    ]


def _same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_adam_by_hand():
    # g = 0.5: m = 0.1 * 0.5, v = 0.001 * 0.25; corrected, they are 0.5 and 0.25; the step is 0.5 / (0.5 + eps).
    adam = skippable_adam(eps=0.5)
    step, state = adam.update(jnp.array([0.5]), adam.init(jnp.zeros(1)), accept=jnp.bool_(True))
    np.testing.assert_allclose(step, [0.5], rtol=1e-5)
    np.testing.assert_allclose(state.mu, [0.05], rtol=1e-6)
    np.testing.assert_allclose(state.nu, [0.00025], rtol=1e-6)
    assert int(state.count) == 1


def test_adam_is_optax_where_all_steps_are_applied():
    ours, theirs = skippable_adam(), optax.scale_by_adam()
    state, other = ours.init(PARAMS), theirs.init(PARAMS)
    for gradient in _gradients(5):
        step, state = ours.update(gradient, state, accept=jnp.bool_(True))
        expected, other = theirs.update(gradient, other)
        _same((step, state), (expected, other))


def test_adam_goes_on_as_if_what_was_not_applied_had_not_been():
    ours, theirs = skippable_adam(), optax.scale_by_adam()
    state, other = ours.init(PARAMS), theirs.init(PARAMS)
    for i, gradient in enumerate(_gradients(6)):
        if i % 3 == 1:
            bad = jax.tree.map(lambda g: g.at[0].set(jnp.nan), gradient)
            _, state = ours.update(bad, state, accept=jnp.bool_(False))
            _same(state, other)
            continue
        step, state = ours.update(gradient, state, accept=jnp.bool_(True))
        expected, other = theirs.update(gradient, other)
        _same((step, state), (expected, other))


def test_any_optimiser_can_be_held():
    momentum = skippable(optax.chain(optax.trace(0.9), optax.scale_by_learning_rate(lambda n: 0.1 / (1 + n))))
    assert skippable(momentum) is momentum
    state = momentum.init(PARAMS)
    _, after = momentum.update(_gradients(1)[0], state, accept=jnp.bool_(False))
    _same(after, state)
    _, after = momentum.update(_gradients(1)[0], state, accept=jnp.bool_(True))
    assert int(after[1].count) == 1


@pytest.mark.parametrize("width", [8, 512])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("decay", ["none", "l2", "decoupled"])
def test_those_of_a_configuration_are_held(width: int, schedule: str, decay: str):
    settings: dict[str, Any] = {"hidden": [width], "critic_hidden": [width], "max_grad_norm": 1.0}
    settings |= {"learning_rate_schedule": schedule, "weight_decay": decay}
    settings |= {} if decay == "none" else {"critic_weight_decay": 0.1}
    for optimizer in make_optimizers(dj.load_config(algorithm=settings))[1:]:
        assert isinstance(optimizer, Skippable)
        update = jax.jit(partial(optimizer.update, params=PARAMS))
        _, state = update(_gradients(1)[0], optimizer.init(PARAMS), accept=jnp.bool_(True))
        bad = jax.tree.map(lambda g: jnp.full_like(g, jnp.nan), PARAMS)
        _same(update(bad, state, accept=jnp.bool_(False))[1], state)
        moved = jax.tree.leaves(update(PARAMS, state, accept=jnp.bool_(True))[1])
        assert all((a != b).any() for a, b in zip(moved, jax.tree.leaves(state), strict=True))
