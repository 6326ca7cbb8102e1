"""The programs of the host loop, and keys of exploration in blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax import rng
from ddpg_jax.training.host.transfer import pack_obs, unpack_obs
from ddpg_jax.training.report import METRICS
from ddpg_jax.types import Agent, Array, Batch, HostArray, TrainState, Tree
from ddpg_jax.xla.squeeze import squeezed_vmap

if TYPE_CHECKING:
    from ddpg_jax.replay.host.ring import Ring


KEY_BLOCK = 256
"""Iterations whose keys of exploration are derived in one call."""


ActFn: TypeAlias = Callable[..., tuple[Array, Tree, Tree]]
ChooseFn: TypeAlias = Callable[[int, TrainState, Tree, HostArray, HostArray], tuple[Any, Tree, Tree]]
ObserveFn: TypeAlias = Callable[[TrainState, HostArray, HostArray], Tree]
UpdateFn: TypeAlias = Callable[[TrainState, Any, Array], tuple[TrainState, Array, Any]]


def jit_update(
    agent: Agent, unpack: Callable[[Any], Batch], *, errors: bool = False, squeeze_seed: bool = False
) -> UpdateFn:
    """The update of all seeds as one donated call.

    `(state, packed, run_keys [S]) -> (state, metrics [S, U, K], td_error [S, U, B] or ())`

    Args:
      agent: a learner of one seed.
      unpack: takes apart what a `BatchTransfer` has taken.
      errors: whether temporal-difference errors are wanted.
      squeeze_seed: whether there is one seed, which is to be compiled without its axis.

    Returns:
      The call; its K metrics are in the order of `METRICS`.
    """
    of_all = (squeezed_vmap if squeeze_seed else jax.vmap)(agent.update)

    @partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, packed: Any, run_keys: Array) -> tuple[TrainState, Array, Any]:
        state, metrics, td_error = of_all(state, unpack(packed), run_keys)
        return state, jnp.stack([metrics[name] for name in METRICS], -1), td_error if errors else ()

    return update


def jit_act(agent: Agent) -> ActFn:
    """Exploring actions of all seeds: `(state, act_state, seen, words) -> (action [S, E, A], act_state, moments)`.

    What is seen is `pack_obs(obs, first)`; the words, `[S, E, 2]`, are the data of the keys of exploration; the
    moments are those of the observations, these included.
    """

    @jax.jit
    def act(state: TrainState, act_state: Tree, seen: tuple[Array, ...], words: Array) -> tuple[Array, Tree, Tree]:
        obs, first = unpack_obs(seen)
        state = jax.vmap(agent.observe)(state, obs)
        return *jax.vmap(agent.act)(state, act_state, obs, first, jax.random.wrap_key_data(words)), state.stats.obs

    return act


def jit_diagnose(agent: Agent, unpack: Callable[[Any], Batch]) -> Callable[[TrainState, Any], dict[str, Array]]:
    """`DIAGNOSTICS` of all seeds, `[S]` by name, on the first batch of a call: `(state, packed) -> diagnostics`."""

    @jax.jit
    def diagnose(state: TrainState, packed: Any) -> dict[str, Array]:
        first = jax.tree.map(lambda x: x[:, 0], unpack(packed))
        return jax.vmap(agent.diagnose)(state, first)

    return diagnose


def jit_observe(agent: Agent, state: TrainState) -> ObserveFn:
    """The moments of the observations with those about to be acted on: `(state, obs, first) -> moments`.

    Args:
      agent: a learner of one seed.
      state: any of its states; where it has no such moments nothing is compiled.
    """
    if not jax.tree.leaves(state.stats.obs):
        return lambda state, obs, first: state.stats.obs

    @jax.jit
    def observe(state: TrainState, seen: tuple[Array, ...]) -> Tree:
        return jax.vmap(agent.observe)(state, unpack_obs(seen)[0]).stats.obs

    return lambda state, obs, first: observe(state.for_acting, pack_obs(obs, first))


def init_and_warm_up(
    agent: Agent,
    act: ActFn,
    update: UpdateFn,
    keys: Array,
    num_envs: int,
    ring: Ring,
    empty: Any,
) -> tuple[TrainState, Tree]:
    """The first state, after every program has run once on a state that is thrown away: compile time stands apart."""
    init = jax.jit(jax.vmap(agent.init))
    act_state = jax.vmap(lambda _: agent.init_act(num_envs))(jnp.arange(len(keys)))
    obs = np.zeros((len(keys), num_envs, *ring.spec.obs_shape), ring.spec.obs_dtype)
    state = init(keys)
    words = np.zeros((*obs.shape[:2], *jax.random.key_data(keys).shape[1:]), np.uint32)
    seen = pack_obs(obs, np.ones(obs.shape[:2], bool))
    jax.block_until_ready(act(state.for_acting, act_state, seen, words))
    jax.block_until_ready(update(state, empty, keys))
    return init(keys), act_state


def make_explore(act: ActFn, keys: Array, num_envs: int, block: int) -> ChooseFn:
    """Actions of the policy with noise, still on their way; `block` is the first block of keys that is wanted.

    Keys are derived for many iterations in one call: on a CPU each derivation inside the acting call costs about 15 us,
    and the host waits for that call.
    """
    program = jax.jit(lambda times: jax.random.key_data(rng.explore_keys(keys, times, num_envs)))

    def derive(block: int) -> HostArray:
        times = np.arange(block * KEY_BLOCK, (block + 1) * KEY_BLOCK) % 2**32
        return np.asarray(program(times.astype(np.uint32)))

    words = derive(block)

    def choose(i: int, state: TrainState, act_state: Tree, obs: HostArray, first: HostArray) -> tuple[Any, Tree, Tree]:
        nonlocal block, words
        if i // KEY_BLOCK != block:
            block = i // KEY_BLOCK
            words = derive(block)
        return act(state.for_acting, act_state, pack_obs(obs, first), words[i % KEY_BLOCK])

    return choose


def make_uniform(seeds: tuple[int, ...], num_envs: int, action_size: int, observe: ObserveFn) -> ChooseFn:
    """Uniformly random actions, for the warm-up."""
    streams = [rng.HostStream(seed, "warmup") for seed in seeds]

    def choose(i: int, state: TrainState, act_state: Tree, obs: HostArray, first: HostArray) -> tuple[Any, Tree, Tree]:
        draws = [stream.at(i).uniform(-1.0, 1.0, (num_envs, action_size)) for stream in streams]
        return np.stack(draws).astype(np.float32), act_state, observe(state, obs, first)

    return choose
