"""The programs of the host loop, compiled before it begins."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax import rng
from ddpg_jax.envs.memory import Remembered, init_kept, recall, remember
from ddpg_jax.training.host.transfer import BatchTransfer, pack_obs, unpack_obs
from ddpg_jax.training.report import METRICS
from ddpg_jax.training.schedule import updates_per_call
from ddpg_jax.types import Agent, Array, Batch, HostArray, StopFn, TrainState, Tree, never_stop
from ddpg_jax.xla.compiler import compile_all
from ddpg_jax.xla.squeeze import squeezed_vmap
from ddpg_jax.xla.tuning import tuning

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.replay.host.ring import Ring

KEY_BLOCK = 256
"""Iterations whose keys of exploration are derived in one call."""

ActFn: TypeAlias = Callable[..., tuple[Array, Tree, Tree]]
ChooseFn: TypeAlias = Callable[[int, TrainState, Tree, HostArray, HostArray], tuple[Any, Tree, Tree]]
"""`(iteration, state, act_state, obs [S, E, *O], first [S, E]) -> (action [S, E, A], act_state, moments)`.

The action may be on its way still; the moments are those of the observations, these included.
"""

ObserveFn: TypeAlias = Callable[[TrainState, Tree, HostArray, HostArray, HostArray], tuple[Tree, Tree]]
UpdateFn: TypeAlias = Callable[[TrainState, Any, Array], tuple[TrainState, Array, Any]]
DiagnoseFn: TypeAlias = Callable[[TrainState, Any], dict[str, Array]]


class HostPrograms(NamedTuple):
    """All that the host loop calls.

    Attributes:
      init: `() -> (state, act_state)` of all seeds.
      explore: actions of the policy, with exploration.
      uniform: uniformly random actions, for the warm-up.
      update: `(state, packed) -> (state, metrics [S, U, K], td_error [S, U, B] or ())`; donates the state.
      diagnose: `(state, packed) -> diagnostics`, `[S]` by name.
      reset: `state -> state` with networks that begin anew; donates the state.
      flatten: `act_state -> [S, E, K]`, what is remembered, as a replay keeps it that keeps states.
    """

    init: Callable[[], tuple[TrainState, Tree]]
    explore: ChooseFn
    uniform: ChooseFn
    update: Callable[[TrainState, Any], tuple[TrainState, Array, Any]]
    diagnose: DiagnoseFn
    reset: Callable[[TrainState], TrainState]
    flatten: Callable[[ActState], Array]


def compile_programs(
    config: Config, agent: Agent, ring: Ring, transfer: BatchTransfer, stop: StopFn = never_stop
) -> HostPrograms:
    """Compiles what the host loop calls; each program runs once on a state that is thrown away.

    Args:
      config: the run.
      agent: a learner of one seed.
      ring: where its batches come from.
      transfer: how they travel.
      stop: as in `compile_all`.

    Raises:
      Interrupted: `stop` said so.
    """
    seeds, num_envs, squeeze_seed = config.seed_list, config.env.num_envs, tuning(config).squeeze_seed
    keys = rng.run_keys(seeds)
    init_state = jax.jit(jax.vmap(agent.init))
    act = jit_act(agent)
    update = jit_update(agent, transfer.unpack, errors=ring.weighted, squeeze_seed=squeeze_seed)
    diagnose = jit_diagnose(agent, transfer.unpack)

    def init_act(_: Array) -> Tree:
        kept = init_kept(agent.memory, num_envs, ring.spec.action_size, acting=True)
        exploration = agent.init_act(num_envs)
        return ActState(exploration, kept) if isinstance(kept, Remembered) else exploration

    def init() -> tuple[TrainState, Tree]:
        return init_state(keys), jax.vmap(init_act)(jnp.arange(len(seeds)))

    state, act_state = jax.eval_shape(init)
    obs = np.zeros((len(seeds), num_envs, *ring.spec.obs_shape), ring.spec.obs_dtype)
    words = np.zeros((*obs.shape[:2], *jax.random.key_data(keys).shape[1:]), np.uint32)
    packed_obs = pack_obs(obs, np.ones(obs.shape[:2], bool))
    readable = _readable(agent)
    batches = transfer.pack(np.zeros((len(seeds), updates_per_call(config), config.algorithm.batch_size), np.int64))
    observe = jit_observe(agent, state) if agent.memory is None else jit_remember(agent)
    compile_all(
        [
            (init_state, (keys,), None),
            (update, (state, batches, keys), None),
            (act, (readable(state), act_state, packed_obs, words), None),
            (diagnose, (state, batches), None),
        ],
        stop,
    )
    state, act_state = init()
    jax.block_until_ready((act(readable(state), act_state, packed_obs, words), diagnose(state, batches)))
    jax.block_until_ready(update(state, batches, keys))
    first_block = config.algorithm.warmup_steps // num_envs // KEY_BLOCK
    explore = make_explore(act, keys, num_envs, first_block, readable)
    uniform = make_uniform(seeds, num_envs, ring.spec.action_size, observe)
    reset = jax.jit(jax.vmap(agent.reset), donate_argnums=0)
    return HostPrograms(
        init,
        explore,
        uniform,
        lambda state, packed: update(state, packed, keys),
        diagnose,
        lambda state: reset(state, keys),
        jit_flatten(agent),
    )


def jit_update(
    agent: Agent, unpack: Callable[[Any], Batch], *, errors: bool = False, squeeze_seed: bool = False
) -> UpdateFn:
    """The update of all seeds as one donated call.

    `(state, packed, run_keys [S]) -> (state, metrics [S, U, K], td_error [S, U, B] or ())`

    Args:
      agent: a learner of one seed.
      unpack: of a `BatchTransfer`.
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


class ActState(NamedTuple):
    """What acting carries of an agent with memory, leaves `[S, E, ...]`; that of others is their exploration alone.

    Attributes:
      exploration: of the exploration.
      kept: what is remembered; the loop puts in the reward of the last step.
    """

    exploration: Tree
    kept: Remembered

    def with_reward(self, reward: HostArray) -> ActState:
        """With what came of the last action, `[S, E]`."""
        return self._replace(kept=self.kept._replace(reward=reward.astype(np.float32)))


def _readable(agent: Agent) -> Callable[[TrainState], TrainState]:
    """The part of a state that acting reads; all of it where states are kept from which critics go on."""
    return (lambda state: state) if agent.memory and agent.memory.keep_every else lambda state: state.for_acting


def jit_act(agent: Agent) -> ActFn:
    """Exploring actions of all seeds.

    `(state, act_state, packed_obs, words) -> (action [S, E, A], act_state, moments)`: the observations are
    `pack_obs(obs, first)`; the words, `[S, E, 2]`, are the data of the keys of exploration; the moments are those of
    the observations, these included.
    """

    def act_and_remember(
        state: TrainState, act_state: ActState, obs: Array, first: Array, keys: Array
    ) -> tuple[Array, ActState]:
        seen = recall(act_state.kept, obs, first)
        action, exploration = agent.act(state, act_state.exploration, seen, first, keys)
        kept = remember(agent, state, seen, action, jnp.zeros_like(act_state.kept.reward))
        return action, ActState(exploration, cast("Remembered", kept))

    @jax.jit
    def act(state: TrainState, act_state: Tree, packed: tuple[Array, ...], words: Array) -> tuple[Array, Tree, Tree]:
        obs, first = unpack_obs(packed)
        state = jax.vmap(agent.observe)(state, obs)
        choose = agent.act if agent.memory is None else act_and_remember
        action, act_state = jax.vmap(choose)(state, act_state, obs, first, jax.random.wrap_key_data(words))
        return action, act_state, state.stats.obs

    return act


def jit_flatten(agent: Agent) -> Callable[[ActState], Array]:
    """What is remembered of all environments as the replay keeps it, `[S, E, K]`; asked of agents with memory only."""
    memory = agent.memory
    flatten = (lambda carry: carry) if memory is None else memory.flatten
    of_all = jax.jit(jax.vmap(jax.vmap(flatten)))
    return lambda act_state: of_all(act_state.kept.carry)


def jit_diagnose(agent: Agent, unpack: Callable[[Any], Batch]) -> DiagnoseFn:
    """`DIAGNOSTICS` of all seeds, `[S]` by name, on the first batch of a call: `(state, packed) -> diagnostics`."""

    @jax.jit
    def diagnose(state: TrainState, packed: Any) -> dict[str, Array]:
        first = jax.tree.map(lambda x: x[:, 0], unpack(packed))
        return jax.vmap(agent.diagnose)(state, first)

    return diagnose


def jit_observe(agent: Agent, state: TrainState) -> ObserveFn:
    """What becomes of actions that the policy did not choose: the moments of what they were acted on, these included.

    `(state, act_state, obs, first, action) -> (act_state, moments)`; the exploration stays as it was.

    Args:
      agent: a learner of one seed.
      state: any of its states; where it has no such moments nothing is compiled.
    """
    if not jax.tree.leaves(state.stats.obs):
        return lambda state, act_state, obs, first, action: (act_state, state.stats.obs)

    @jax.jit
    def observe(state: TrainState, packed_obs: tuple[Array, ...]) -> Tree:
        return jax.vmap(agent.observe)(state, unpack_obs(packed_obs)[0]).stats.obs

    return lambda state, act_state, obs, first, action: (act_state, observe(state.for_acting, pack_obs(obs, first)))


def jit_remember(agent: Agent) -> ObserveFn:
    """As `jit_observe`, of an agent with memory, which remembers them too."""
    readable = _readable(agent)

    @jax.jit
    def observe(state: TrainState, act_state: ActState, packed: tuple[Array, ...], action: Array) -> tuple[Tree, Tree]:
        obs, first = unpack_obs(packed)
        state = jax.vmap(agent.observe)(state, obs)
        seen = jax.vmap(recall)(act_state.kept, obs, first)
        kept = jax.vmap(partial(remember, agent))(state, seen, action, jnp.zeros_like(act_state.kept.reward))
        return act_state._replace(kept=kept), state.stats.obs

    return lambda state, act_state, obs, first, action: observe(
        readable(state), act_state, pack_obs(obs, first), action
    )


def make_explore(
    act: ActFn, keys: Array, num_envs: int, block: int, readable: Callable[[TrainState], TrainState]
) -> ChooseFn:
    """Actions of the policy with noise, still on their way; `block` is the first block of keys that is wanted.

    Keys are derived for many iterations in one call: the host waits for each derivation inside the acting call.
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
        return act(readable(state), act_state, pack_obs(obs, first), words[i % KEY_BLOCK])

    return choose


def make_uniform(seeds: tuple[int, ...], num_envs: int, action_size: int, observe: ObserveFn) -> ChooseFn:
    """Uniformly random actions, for the warm-up."""
    streams = [rng.HostStream(seed, "warmup") for seed in seeds]

    def choose(i: int, state: TrainState, act_state: Tree, obs: HostArray, first: HostArray) -> tuple[Any, Tree, Tree]:
        draws = [stream.at(i).uniform(-1.0, 1.0, (num_envs, action_size)) for stream in streams]
        action = np.stack(draws).astype(np.float32)
        return action, *observe(state, act_state, obs, first, action)

    return choose
