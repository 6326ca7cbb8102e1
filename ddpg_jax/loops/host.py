"""The host loop: gymnasium environments and the NumPy ring around one jitted, donated update for all seeds.

An iteration, E environment steps of each seed:

    act                 dispatched with the current parameters
    update              dispatched on batches that were drawn already
    actions             the host waits for them, not for the update
        environments    step meanwhile
        ring            stores the step, and draws the batches of the next iteration, meanwhile

The order is fixed, so a run is deterministic. A minibatch is drawn before the transition of its own iteration is
stored. Nothing is read back from the device but the actions, and the metrics at a report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ddpg_jax import rng
from ddpg_jax.loops.meter import Meter
from ddpg_jax.loops.report import Report
from ddpg_jax.types import Agent, Array, Batch, HostArray, Params, TrainState, Transition, Tree

if TYPE_CHECKING:
    from ddpg_jax.config import Config
    from ddpg_jax.envs.factory import AnyLanes
    from ddpg_jax.replay.ring import Ring

METRICS = ("critic_loss", "actor_loss", "mean_q", "max_q", "critic_grad_norm", "actor_grad_norm", "saturated")
"""What is logged of an update, in the order of the arrays."""

KEY_BLOCK = 256
"""Iterations whose keys of exploration are derived in one call."""

PHASES = ("compile", "act", "environment", "replay", "update")


class PackedBatch(NamedTuple):
    """A batch as few arrays: each NumPy argument of a jitted call costs about 10 us.

    Attributes:
      columns: all float32 leaves side by side, `[S, U, B, K]`.
      images: `(obs, next_obs)` where they are not float32 vectors, else `()`.
    """

    columns: HostArray
    images: tuple[HostArray, ...]


ActFn: TypeAlias = Callable[..., tuple[Array, Tree]]
ChooseFn: TypeAlias = Callable[[int, TrainState, Tree, HostArray, HostArray], tuple[Any, Tree]]
UpdateFn: TypeAlias = Callable[[TrainState, PackedBatch, Array], tuple[TrainState, Array]]


def pack_batch(batch: Batch) -> PackedBatch:
    """Joins the leaves of a host batch, `[S, U, B, ...]`, into as few arrays as may be."""
    data = batch.data
    scalars = [x[..., None] for x in (data.reward, data.discount, batch.weight)]
    if data.obs.dtype != np.float32:
        return PackedBatch(np.concatenate([data.action, *scalars], -1), (data.obs, data.next_obs))
    return PackedBatch(np.concatenate([data.action, *scalars, data.obs, data.next_obs], -1), ())


def unpack_batch(packed: PackedBatch, action_size: int) -> Batch:
    """The batch that was packed, on the device; its index stays on the host."""
    cuts = [action_size, action_size + 1, action_size + 2, action_size + 3]
    action, reward, discount, weight, rest = jnp.split(packed.columns, cuts, -1)
    obs, next_obs = packed.images or jnp.split(rest, 2, -1)
    data = Transition(obs, action, reward[..., 0], discount[..., 0], next_obs)
    return Batch(data, weight[..., 0], ())


def jit_update(agent: Agent, action_size: int) -> UpdateFn:
    """The update of all seeds as one donated call, `(state, packed batch, run_keys [S]) -> (state, metrics [S, U, K])`.

    The K metrics are in the order of `METRICS`.
    """

    @partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, packed: PackedBatch, run_keys: Array) -> tuple[TrainState, Array]:
        state, metrics, _ = jax.vmap(agent.update)(state, unpack_batch(packed, action_size), run_keys)
        return state, jnp.stack([metrics[name] for name in METRICS], -1)

    return update


def jit_act(agent: Agent) -> ActFn:
    """Exploring actions of all seeds: `(state, act_state, obs [S, E, *O], first [S, E], words [S, E, 2])`.

    The words are the data of the keys of exploration.
    """

    @jax.jit
    def act(state: TrainState, act_state: Tree, obs: Array, first: Array, words: Array) -> tuple[Array, Tree]:
        return jax.vmap(agent.act)(state, act_state, obs, first, jax.random.wrap_key_data(words))

    return act


def acting(state: TrainState) -> TrainState:
    """The part of the state that acting reads; a call with fewer arrays is dispatched faster."""
    nothing = Params((), (), ())
    params = state.params._replace(critic=())
    return state._replace(step=(), params=params, target_params=nothing, opt_state=nothing)


def updates_owed(config: Config, step: int) -> int:
    """Updates of each seed that are due after `step` environment steps of it."""
    algorithm = config.algorithm
    starts = algorithm.warmup_steps if algorithm.learning_starts is None else algorithm.learning_starts
    return int(round(max(0, step - max(starts, 1)) * algorithm.updates_per_step, 6))


def updates_per_call(config: Config) -> int:
    """U: what is configured, or the updates due after one step of all environments, at least 1."""
    algorithm = config.algorithm
    return algorithm.updates_per_call or max(1, round(algorithm.updates_per_step * config.env.num_envs))


def host_loop(config: Config, agent: Agent, lanes: AnyLanes, ring: Ring) -> Iterator[Report]:
    """Trains all seeds side by side.

    Args:
      config: the run.
      agent: a learner of one seed.
      lanes: S x E environments.
      ring: an empty replay.

    Yields:
      A report at every multiple of `logging.every` and `evaluation.every`, and at the end.

    Raises:
      EnvironmentFault: an environment failed.
      NotFiniteError: a metric is NaN or infinite.
    """
    seeds, num_envs, batch_size = config.seed_list, config.env.num_envs, config.algorithm.batch_size
    lap, seconds = _stopwatch()
    act, update = jit_act(agent), jit_update(agent, lanes.spec.action_size)
    keys, per_call = rng.run_keys(seeds), updates_per_call(config)
    state, act_state = _initialised(agent, act, update, keys, num_envs, ring, (len(seeds), per_call, batch_size))
    explore, uniform = _explorer(act, keys, num_envs), _uniform(seeds, num_envs, lanes.spec.action_size)
    meter, drawn = Meter(seeds, num_envs, METRICS), list[PackedBatch]()
    lap("compile")

    obs, first = lanes.reset(), np.ones((len(seeds), num_envs), bool)
    for i in range(-(-config.total_steps // num_envs)):
        choose = uniform if i * num_envs < config.algorithm.warmup_steps else explore
        pending, act_state = choose(i, state, act_state, obs, first)
        lap("act")
        for packed in drawn:
            state, metrics = update(state, packed, keys)
            meter.updated(metrics)
        lap("update")
        action = np.asarray(pending)
        lap("act")
        result = lanes.step(action)
        lap("environment")
        step = (i + 1) * num_envs
        ring.add(obs, action, result)
        obs, first = result.obs, meter.stepped(result, step)
        calls = (updates_owed(config, step) - meter.updates) // per_call
        numbers = range(meter.updates // per_call, meter.updates // per_call + calls)
        drawn = [pack_batch(ring.sample(per_call, batch_size, number)) for number in numbers]
        lap("replay")
        if is_boundary(config, step):
            rows = meter.settle(step)
            lap("update")
            yield Report(step, meter.updates, rows, dict(seconds), state)
            lap(None)


def is_boundary(config: Config, step: int) -> bool:
    """Whether a report is due after `step` environment steps of each seed."""
    every = [n for n in (config.logging.every, config.evaluation.every) if n]
    passed = any(step // n > (step - config.env.num_envs) // n for n in every)
    return passed or step >= config.total_steps


def _initialised(
    agent: Agent,
    act: ActFn,
    update: UpdateFn,
    keys: Array,
    num_envs: int,
    ring: Ring,
    draw_shape: tuple[int, int, int],
) -> tuple[TrainState, Tree]:
    """The first state, after every program has run once on a state that is thrown away: compile time stands apart."""
    init = jax.jit(jax.vmap(agent.init))
    act_state = jax.vmap(lambda _: agent.init_act(num_envs))(jnp.arange(len(keys)))
    empty = ring.gather(np.zeros(draw_shape, np.int64))
    obs = np.zeros_like(empty.data.obs, shape=(len(keys), num_envs, *empty.data.obs.shape[3:]))
    state = init(keys)
    words = np.zeros((*obs.shape[:2], *jax.random.key_data(keys).shape[1:]), np.uint32)
    jax.block_until_ready(act(acting(state), act_state, obs, np.ones(obs.shape[:2], bool), words))
    jax.block_until_ready(update(state, pack_batch(empty), keys))
    return init(keys), act_state


def _explorer(act: ActFn, keys: Array, num_envs: int) -> ChooseFn:
    """Actions of the policy with noise, still on their way.

    Keys are derived for many iterations in one call: on a CPU each derivation inside the acting call costs about 15 us,
    and the host waits for that call.
    """
    derive = jax.jit(lambda times: jax.random.key_data(rng.explore_keys(keys, times, num_envs)))
    block, words = -1, np.zeros(0, np.uint32)

    def choose(i: int, state: TrainState, act_state: Tree, obs: HostArray, first: HostArray) -> tuple[Any, Tree]:
        nonlocal block, words
        if i // KEY_BLOCK != block:
            block = i // KEY_BLOCK
            times = np.arange(block * KEY_BLOCK, (block + 1) * KEY_BLOCK) % 2**32
            words = np.asarray(derive(times.astype(np.uint32)))
        return act(acting(state), act_state, obs, first, words[i % KEY_BLOCK])

    return choose


def _uniform(seeds: tuple[int, ...], num_envs: int, action_size: int) -> ChooseFn:
    """Uniformly random actions, for the warm-up."""
    streams = [rng.HostStream(seed, "warmup") for seed in seeds]

    def choose(i: int, state: TrainState, act_state: Tree, obs: HostArray, first: HostArray) -> tuple[Any, Tree]:
        draws = [stream.at(i).uniform(-1.0, 1.0, (num_envs, action_size)) for stream in streams]
        return np.stack(draws).astype(np.float32), act_state

    return choose


def _stopwatch() -> tuple[Callable[[str | None], None], dict[str, float]]:
    """A function that adds the time since its last call to a phase (None: to no phase), and the sums."""
    seconds: dict[str, float] = {phase: 0.0 for phase in PHASES}
    last = perf_counter()

    def lap(phase: str | None) -> None:
        nonlocal last
        now = perf_counter()
        if phase is not None:
            seconds[phase] += now - last
        last = now

    return lap, seconds
