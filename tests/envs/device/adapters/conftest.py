"""What every adapter must do, proven against the functions of its back-end, called by hand with the same keys."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.envs.device.adapters.adapt import lenient
from ddpg_jax.types import Array, DeviceEnv


class Raw(NamedTuple):
    """A back-end by hand: `key -> (state, obs)` and `(state, action, key) -> (state, obs, reward, done)`."""

    reset: Callable[..., Any]
    step: Callable[..., Any]


class Seen(NamedTuple):
    """Of each step taken: whether the episode ended, and how, `[T]`; and the observations acted on, `[T, *O]`."""

    terminated: Any
    truncated: Any
    obs: Any


def _close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def _follow(env: DeviceEnv, raw: Raw, action: Array, units: Array, steps: int, seed: int = 0) -> Seen:
    """Takes the same action again and again on both sides, beyond the ends of episodes, and compares every step."""
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    raw_reset, raw_step = jax.jit(lenient(raw.reset)), jax.jit(lenient(raw.step))
    first, *keys = jax.random.split(jax.random.key(seed), steps + 1)
    state, obs = reset(jax.random.clone(first))
    raw_state, raw_obs = raw_reset(first)
    _close(obs, raw_obs)
    seen, count = [], 0
    for key in keys:
        acted_on = obs
        state, out = step(state, action, jax.random.clone(key))
        step_key, reset_key = jax.random.split(key)
        raw_state, raw_next_obs, reward, done = raw_step(raw_state, units, step_key)
        obs, count = out.obs, count + 1
        _close(out.next_obs, raw_next_obs)
        _close(out.reward, reward)
        assert bool(out.terminated) == bool(done)
        if out.terminated or out.truncated:
            raw_state, raw_next_obs = raw_reset(reset_key)
            assert not np.allclose(out.obs, out.next_obs)
            count = 0
        _close(obs, raw_next_obs)
        assert state.steps == count
        assert not any(getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves(state))
        assert (out.reward.dtype, out.terminated.dtype, out.truncated.dtype) == (jnp.float32, bool, bool)
        assert obs.shape == out.next_obs.shape == env.spec.obs_shape
        assert obs.dtype == out.next_obs.dtype == env.spec.obs_dtype
        seen.append((bool(out.terminated), bool(out.truncated), np.asarray(acted_on)))
    return Seen(*(np.array(column) for column in zip(*seen, strict=True)))


def _run(reset: Callable[..., Any], step: Callable[..., Any], keys: Array, actions: Array) -> Any:
    """The observations after each of five steps, and the last `Step`."""
    state, obs = reset(keys, 0)
    shapes = jax.eval_shape(step, state, actions, keys, 1)[1]
    last = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def body(t: Any, carry: Any) -> Any:
        state, _, rows = carry
        state, out = step(state, actions, keys, t)
        return state, out, rows.at[t - 1].set(out.obs)

    _, last, rows = jax.lax.fori_loop(1, 6, body, (state, last, jnp.zeros((5, *obs.shape), obs.dtype)))
    return rows, last


def _lanes(env: DeviceEnv, seed: int = 0) -> None:
    """Three environments side by side, five steps in a loop of one compiled program, against the second one alone."""

    def reset(key: Array, t: Any) -> Any:
        return env.reset(jax.random.fold_in(key, t))

    def step(state: Any, action: Array, key: Array, t: Any) -> Any:
        return env.step(state, action, jax.random.fold_in(key, t))

    resets, steps = jax.vmap(reset, (0, None)), jax.vmap(step, (0, 0, 0, None))
    keys = jax.random.split(jax.random.key(seed), 3)
    actions = jnp.linspace(-1, 1, 3 * env.spec.action_size, dtype=jnp.float32).reshape(3, -1)
    rows, last = jax.jit(functools.partial(_run, resets, steps))(keys, actions)
    row, final = jax.jit(functools.partial(_run, reset, step))(keys[1], actions[1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((rows, last)))
    assert not np.allclose(rows[:, 0], rows[:, 1])
    jax.tree.map(_close, (rows[:, 1], jax.tree.map(lambda leaf: leaf[1], last)), (row, final))


@pytest.fixture
def unchecked_keys() -> Iterator[None]:
    """Lets a state hold a typed key: the checker takes one that went through `jnp.where` for consumed."""
    with jax.debug_key_reuse(False):
        yield


@pytest.fixture(scope="session")
def update_targets() -> Callable[..., Seen]:
    """`(env, raw, action, units, steps, seed=0) -> Seen`; see `_follow`."""
    return _follow


@pytest.fixture(scope="session")
def lanes() -> Callable[..., None]:
    """`(env, seed=0)`; see `_lanes`."""
    return _lanes


def _stateful(env: Any) -> Raw:
    """An environment whose state holds what it reports, as brax's and Playground's, by hand."""

    def reset(key: Array) -> Any:
        state = env.reset(jax.random.key_data(key))
        return state, state.obs

    def step(state: Any, action: Array, key: Array) -> Any:
        state = env.step(state, action)
        return state, state.obs, state.reward, state.done

    return Raw(reset, step)


@pytest.fixture(scope="session")
def stateful() -> Callable[[Any], Raw]:
    """`(env) -> Raw`; see `_stateful`."""
    return _stateful


@pytest.fixture(scope="session")
def raw() -> type[Raw]:
    """`Raw`, since a conftest is not imported."""
    return Raw
