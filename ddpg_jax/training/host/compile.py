"""The programs of the host loop, compiled before it begins.

A lane is a seed, or a seed with numbers of its own where a sweep asks for it: then every program is given the numbers
of all lanes, `hyper`, `[S]` by path, and the agent is made of them where it is traced. Without them nothing is added.
"""

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
from ddpg_jax.training.report import METRICS, AgentFn, Hyper
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

NO_NUMBERS: Hyper = {}
"""Of lanes that differ by their seeds alone."""

ObserveFn: TypeAlias = Callable[[TrainState, Tree, HostArray, HostArray, HostArray], tuple[Tree, Tree]]
UpdateFn: TypeAlias = Callable[..., tuple[TrainState, Array, Any]]
DiagnoseFn: TypeAlias = Callable[..., dict[str, Array]]


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
    config: Config,
    agent: Agent,
    ring: Ring,
    transfer: BatchTransfer,
    stop: StopFn = never_stop,
    agent_of: AgentFn | None = None,
    hyper: Hyper = NO_NUMBERS,
) -> HostPrograms:
    """Compiles what the host loop calls; each program runs once on a state that is thrown away.

    Args:
      config: the run.
      agent: a learner of one seed.
      ring: where its batches come from.
      transfer: how they travel.
      stop: as in `compile_all`.
      agent_of: the agent by the numbers of its lane; None: `agent`, which has none of its own.
      hyper: these numbers, `[S]` by path.

    Raises:
      Interrupted: `stop` said so.
    """
    seeds, num_envs, squeeze_seed = config.seed_list, config.env.num_envs, tuning(config).squeeze_seed
    keys = rng.run_keys(seeds)
    of = agent_of or of_no_numbers(agent)
    hyper = {path: jnp.asarray(numbers, jnp.float32) for path, numbers in hyper.items()}
    init_state = jax.jit(jax.vmap(lambda key, hyper: of(hyper).init(key)))
    act = jit_act(agent, of)
    update = jit_update(agent, transfer.unpack, errors=ring.weighted, squeeze_seed=squeeze_seed, agent_of=of)
    diagnose = jit_diagnose(agent, transfer.unpack, of)

    def init_act(_: Array, hyper: Hyper) -> Tree:
        kept = init_kept(agent.memory, num_envs, ring.spec.action_size, acting=True)
        exploration = of(hyper).init_act(num_envs)
        return ActState(exploration, kept) if isinstance(kept, Remembered) else exploration

    def init() -> tuple[TrainState, Tree]:
        return init_state(keys, hyper), jax.vmap(init_act)(jnp.arange(len(seeds)), hyper)

    state, act_state = jax.eval_shape(init)
    obs = np.zeros((len(seeds), num_envs, *ring.spec.obs_shape), ring.spec.obs_dtype)
    words = np.zeros((*obs.shape[:2], *jax.random.key_data(keys).shape[1:]), np.uint32)
    packed_obs = pack_obs(obs, np.ones(obs.shape[:2], bool))
    readable = _readable(agent)
    batches = transfer.pack(np.zeros((len(seeds), updates_per_call(config), config.algorithm.batch_size), np.int64))
    observe = jit_observe(agent, state) if agent.memory is None else jit_remember(agent, of, hyper)
    compile_all(
        [
            (init_state, (keys, hyper), None),
            (update, (state, batches, keys, hyper), None),
            (act, (readable(state), act_state, packed_obs, words, hyper), None),
            (diagnose, (state, batches, hyper), None),
        ],
        stop,
    )
    state, act_state = init()
    acted = act(readable(state), act_state, packed_obs, words, hyper)
    jax.block_until_ready((acted, diagnose(state, batches, hyper)))
    jax.block_until_ready(update(state, batches, keys, hyper))
    first_block = config.algorithm.warmup_steps // num_envs // KEY_BLOCK
    explore = make_explore(act, keys, num_envs, first_block, readable, hyper)
    uniform = make_uniform(seeds, num_envs, ring.spec.action_size, observe)
    reset = jax.jit(jax.vmap(lambda state, key, hyper: of(hyper).reset(state, key)), donate_argnums=0)
    return HostPrograms(
        init,
        explore,
        uniform,
        lambda state, packed: update(state, packed, keys, hyper),
        lambda state, packed: diagnose(state, packed, hyper),
        lambda state: reset(state, keys, hyper),
        jit_flatten(agent),
    )


def of_no_numbers(agent: Agent) -> AgentFn:
    """An agent whose lanes have no numbers of their own."""
    return lambda hyper: agent


def jit_update(
    agent: Agent,
    unpack: Callable[[Any], Batch],
    *,
    errors: bool = False,
    squeeze_seed: bool = False,
    agent_of: AgentFn | None = None,
) -> UpdateFn:
    """The update of all seeds as one donated call.

    `(state, packed, run_keys [S], hyper) -> (state, metrics [S, U, K], td_error [S, U, B] or ())`

    Args:
      agent: a learner of one seed.
      unpack: of a `BatchTransfer`.
      errors: whether temporal-difference errors are wanted.
      squeeze_seed: whether there is one seed, which is to be compiled without its axis.
      agent_of: as in `compile_programs`.

    Returns:
      The call; its K metrics are in the order of `METRICS`.
    """
    of = agent_of or of_no_numbers(agent)

    def of_lane(state: TrainState, batches: Batch, run_key: Array, hyper: Hyper) -> Any:
        return of(hyper).update(state, batches, run_key)

    of_all = (squeezed_vmap if squeeze_seed else jax.vmap)(of_lane)

    @partial(jax.jit, donate_argnums=0)
    def update(
        state: TrainState, packed: Any, run_keys: Array, hyper: Hyper = NO_NUMBERS
    ) -> tuple[TrainState, Array, Any]:
        state, metrics, td_error = of_all(state, unpack(packed), run_keys, hyper)
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


def jit_act(agent: Agent, agent_of: AgentFn | None = None) -> ActFn:
    """Exploring actions of all seeds.

    `(state, act_state, packed_obs, words, hyper) -> (action [S, E, A], act_state, moments)`: the observations are
    `pack_obs(obs, first)`; the words, `[S, E, 2]`, are the data of the keys of exploration; the moments are those of
    the observations, these included.
    """
    of = agent_of or of_no_numbers(agent)

    def act_once(
        state: TrainState, act_state: Tree, obs: Array, first: Array, keys: Array, hyper: Hyper
    ) -> tuple[Array, Tree]:
        return of(hyper).act(state, act_state, obs, first, keys)

    def act_and_remember(
        state: TrainState, act_state: ActState, obs: Array, first: Array, keys: Array, hyper: Hyper
    ) -> tuple[Array, ActState]:
        agent, seen = of(hyper), recall(act_state.kept, obs, first)
        action, exploration = agent.act(state, act_state.exploration, seen, first, keys)
        kept = remember(agent, state, seen, action, jnp.zeros_like(act_state.kept.reward))
        return action, ActState(exploration, cast("Remembered", kept))

    @jax.jit
    def act(
        state: TrainState, act_state: Tree, packed: tuple[Array, ...], words: Array, hyper: Hyper = NO_NUMBERS
    ) -> tuple[Array, Tree, Tree]:
        obs, first = unpack_obs(packed)
        state = jax.vmap(agent.observe)(state, obs)
        choose = act_once if agent.memory is None else act_and_remember
        action, act_state = jax.vmap(choose)(state, act_state, obs, first, jax.random.wrap_key_data(words), hyper)
        return action, act_state, state.stats.obs

    return act


def jit_flatten(agent: Agent) -> Callable[[ActState], Array]:
    """What is remembered of all environments as the replay keeps it, `[S, E, K]`; asked of agents with memory only."""
    memory = agent.memory
    flatten = (lambda carry: carry) if memory is None else memory.flatten
    of_all = jax.jit(jax.vmap(jax.vmap(flatten)))
    return lambda act_state: of_all(act_state.kept.carry)


def jit_diagnose(agent: Agent, unpack: Callable[[Any], Batch], agent_of: AgentFn | None = None) -> DiagnoseFn:
    """`DIAGNOSTICS` of all seeds, `[S]` by name: `(state, packed, hyper) -> diagnostics`, on the first batch."""
    of = agent_of or of_no_numbers(agent)

    @jax.jit
    def diagnose(state: TrainState, packed: Any, hyper: Hyper = NO_NUMBERS) -> dict[str, Array]:
        first = jax.tree.map(lambda x: x[:, 0], unpack(packed))
        return jax.vmap(lambda state, batch, hyper: of(hyper).diagnose(state, batch))(state, first, hyper)

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


def jit_remember(agent: Agent, agent_of: AgentFn | None = None, hyper: Hyper = NO_NUMBERS) -> ObserveFn:
    """As `jit_observe`, of an agent with memory, which remembers them too."""
    readable, of, numbers = _readable(agent), agent_of or of_no_numbers(agent), hyper

    def of_lane(state: TrainState, seen: Any, action: Array, reward: Array, hyper: Hyper) -> Any:
        return remember(of(hyper), state, seen, action, reward)

    @jax.jit
    def observe(
        state: TrainState, act_state: ActState, packed: tuple[Array, ...], action: Array, hyper: Hyper
    ) -> tuple[Tree, Tree]:
        obs, first = unpack_obs(packed)
        state = jax.vmap(agent.observe)(state, obs)
        seen = jax.vmap(recall)(act_state.kept, obs, first)
        kept = jax.vmap(of_lane)(state, seen, action, jnp.zeros_like(act_state.kept.reward), hyper)
        return act_state._replace(kept=kept), state.stats.obs

    return lambda state, act_state, obs, first, action: observe(
        readable(state), act_state, pack_obs(obs, first), action, numbers
    )


def make_explore(
    act: ActFn,
    keys: Array,
    num_envs: int,
    block: int,
    readable: Callable[[TrainState], TrainState],
    hyper: Hyper = NO_NUMBERS,
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
        return act(readable(state), act_state, pack_obs(obs, first), words[i % KEY_BLOCK], hyper)

    return choose


def make_uniform(seeds: tuple[int, ...], num_envs: int, action_size: int, observe: ObserveFn) -> ChooseFn:
    """Uniformly random actions, for the warm-up."""
    streams = [rng.HostStream(seed, "warmup") for seed in seeds]

    def choose(i: int, state: TrainState, act_state: Tree, obs: HostArray, first: HostArray) -> tuple[Any, Tree, Tree]:
        draws = [stream.at(i).uniform(-1.0, 1.0, (num_envs, action_size)) for stream in streams]
        action = np.stack(draws).astype(np.float32)
        return action, *observe(state, act_state, obs, first, action)

    return choose
