"""Environments of other packages, each as a `DeviceEnv`: one small file for each back-end, and here what they share."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from ddpg_jax.envs.bounds import Bounds
from ddpg_jax.envs.device.autoreset import ResetFn, StepFn, episodic
from ddpg_jax.envs.pictures import DrawFn
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import Array, DeviceEnv, EnvSpec, Tree

P = ParamSpec("P")
R = TypeVar("R")


def adapt(
    reset: ResetFn, step: StepFn, bounds: Bounds, max_episode_steps: int, draw: DrawFn | None = None
) -> DeviceEnv:
    """A `DeviceEnv` out of a back-end's functions, once they are checked to be fit for it.

    Both are traced here, abstractly and only once: `jit` keeps what was traced, and hands a copy of its containers to a
    back-end that writes into the dictionaries of its state. Leaves of the state whose dtypes differ between the two
    functions get the one that holds both.

    Args:
      reset: begins an episode; `obs` is one array.
      step: one step, without any automatic reset.
      bounds: of the actions.
      max_episode_steps: time limit, at least 1.
      draw: draws an observation, if anything does.

    Raises:
      EnvironmentFault: the observations are not one array, or what the two functions return does not agree.
    """
    reset, step = jax.jit(lenient(reset)), jax.jit(lenient(step))
    key = jax.eval_shape(jax.random.key, 0)
    state, obs = jax.eval_shape(reset, key)
    _require_array(obs)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    action = jax.ShapeDtypeStruct((len(bounds.low),), jnp.float32)
    following, *results = jax.eval_shape(step, state, action, key)
    names = ("observation", "reward", "terminated", "truncated")
    for name, result, shape in zip(names, results, (obs.shape, (), (), ()), strict=True):
        if result.shape != shape:
            raise EnvironmentFault(f"the {name} of a step has shape {result.shape}: expected {shape}; reshape it")
    common = _common(state, following)

    def begin(key: Array) -> tuple[Tree, Array]:
        state, obs = reset(key)
        return _cast(state, common), obs

    def advance(state: Tree, action: Array, key: Array) -> tuple[Tree, Array, Any, Any, Any]:
        state, next_obs, reward, terminated, truncated = step(state, action, key)
        return _cast(state, common), next_obs, reward, terminated, truncated

    dtype = "uint8" if obs.dtype == jnp.uint8 and len(obs.shape) > 1 else "float32"
    return episodic(
        begin, advance, EnvSpec(obs.shape, dtype, *bounds), max_episode_steps, None if draw is None else lenient(draw)
    )


def adapt_stateful(env: Any, max_episode_steps: int) -> DeviceEnv:
    """A `DeviceEnv` of an environment in the form that brax introduced and MuJoCo Playground shares.

    Its `reset(key)` and `step(state, action)` return a state that holds `obs`, `reward` and `done`, and its
    `action_size` actions lie in [-1, 1]. Of observations that are a dictionary the entry "state" is taken, which these
    packages give to the actor too. It gets its key as an array of words, as it may keep it in its state, where all else
    is arrays too.
    """

    def reset(key: Array) -> tuple[Tree, Array]:
        state = env.reset(jax.random.key_data(key))
        return state, _actor_obs(state.obs)

    def step(state: Tree, action: Array, key: Array) -> tuple[Tree, Array, Any, Any, bool]:
        state = env.step(state, action)
        return state, _actor_obs(state.obs), state.reward, state.done, False

    size = int(env.action_size)
    return adapt(reset, step, Bounds((-1.0,) * size, (1.0,) * size), max_episode_steps)


def lenient(fn: Callable[P, R]) -> Callable[P, R]:
    """The function, traced under jax's usual promotion of dtypes and ranks, whatever this process has set."""

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return fn(*args, **kwargs)

    return call


def require_known(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuses names that a back-end does not have, and says which are near.

    Raises:
      EnvironmentFault: one is not known.
    """
    for name in given:
        if name in known:
            continue
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(known)) or 'none'}"
        raise EnvironmentFault(f"{what} {name!r} is not known: {hint}")


def _actor_obs(obs: Any) -> Any:
    return obs["state"] if isinstance(obs, Mapping) and "state" in obs else obs


def _require_array(obs: Any) -> None:
    if isinstance(obs, jax.ShapeDtypeStruct):
        return
    parts = f" of {', '.join(map(str, obs))}" if isinstance(obs, Mapping) else ""
    raise EnvironmentFault(f"observations are a {type(obs).__name__}{parts}: expected one array; join what is needed")


def _common(state: Tree, following: Tree) -> Tree:
    """Shapes of the state after a reset, with dtypes that hold those after a step too."""
    if jax.tree.structure(state) != jax.tree.structure(following):
        raise EnvironmentFault("the state after a step has other parts than after a reset: begin with all of them")

    def both(path: Any, a: jax.ShapeDtypeStruct, b: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if a.shape != b.shape:
            part = jax.tree_util.keystr(path)
            raise EnvironmentFault(f"state{part} has shape {a.shape} after a reset and {b.shape} after a step")
        return a if a.dtype == b.dtype else jax.ShapeDtypeStruct(a.shape, jnp.promote_types(a.dtype, b.dtype))

    return lenient(jax.tree_util.tree_map_with_path)(both, state, following)


def _cast(state: Tree, like: Tree) -> Tree:
    """The state with the dtypes of another, none of them weak, as they are in a loop or after a file was read."""

    def cast(x: Array, y: jax.ShapeDtypeStruct) -> Array:
        return x if jnp.issubdtype(y.dtype, jax.dtypes.prng_key) else jnp.asarray(x, y.dtype)

    return jax.tree.map(cast, state, like)
