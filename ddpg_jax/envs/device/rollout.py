"""Evaluation: the greedy policy in environments of its own, with all seeds and episodes in one call.

That is a call for each step with gymnasium's environments, and one call in all with those written in JAX.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ddpg_jax.envs.device.autoreset import select
from ddpg_jax.envs.memory import Kept, init_kept, recall, remember
from ddpg_jax.errors import Interrupted
from ddpg_jax.rng import evaluation_keys
from ddpg_jax.types import Agent, Array, DeviceEnv, Evaluation, Seen, StopFn, TrainState, Tree, never_stop

LOOK_SECONDS = 0.05
"""Between two looks at whether to stop while a program is waited for."""


class _Trial(NamedTuple):
    """Episodes of an evaluation in progress.

    Attributes:
      env_state: of the environments, `[N, ...]`.
      obs: to act on next, `[N, *O]`.
      active: whether the episode goes on, `[N]`.
      last: the true successor of the last action, `[N, *O]`.
      rest: gamma^T where the episode was cut after T steps, else 0, `[N]`: what the value of `last` counts.
      discount: gamma^t of the next reward, `[]`.
      returns: sums of rewards, `[N]`.
      lengths: steps, `[N]`.
      discounted: sums of discounted rewards, `[N]`.
      kept: what an agent with memory remembers, until the last step; else `()`.
    """

    env_state: Tree
    obs: Array
    active: Array
    last: Array
    rest: Array
    discount: Array
    returns: Array
    lengths: Array
    discounted: Array
    kept: Kept


_Episodes: TypeAlias = tuple[_Trial, Callable[[Array, _Trial], _Trial], Callable[[_Trial], Evaluation]]
"""How they begin, step t of them, and what they come to."""


def evaluate_greedy(
    env: DeviceEnv, agent: Agent, learner: TrainState, episodes: int, gamma: Array | float
) -> Evaluation:
    """Runs one episode of the greedy policy of one seed from each of the bank of evaluation keys.

    The number of steps is the time limit, whatever ends before: so devices need not tell each other who is done.

    Args:
      env: the environment.
      agent: whose policy it is.
      learner: its state; what `Agent.policy` and `Agent.value` read.
      episodes: N.
      gamma: discount of one step, `[]`.

    Returns:
      The evaluation, leaves `[N]`.
    """
    start, step, judge = _greedy_episodes(env, agent, learner, episodes, gamma)
    return judge(jax.lax.fori_loop(0, env.max_episode_steps, step, start))


def play_greedy(
    env: DeviceEnv, agent: Agent, learner: TrainState, episodes: int, gamma: Array | float
) -> tuple[Evaluation, Seen]:
    """As `evaluate_greedy`, of an agent with memory; with what it was told at each step.

    Returns:
      The evaluation, leaves `[N]`, and what was told, `[N, T, ...]` for a time limit of T steps; after an episode's end
      it means nothing.
    """
    start, step, judge = _greedy_episodes(env, agent, learner, episodes, gamma)

    def tell(trial: _Trial, t: Array) -> tuple[_Trial, Seen]:
        return step(t, trial), recall(trial.kept, trial.obs, jnp.full(episodes, t == 0)).seen

    end, seen = jax.lax.scan(tell, start, jnp.arange(env.max_episode_steps))
    return judge(end), jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), seen)


def _greedy_episodes(
    env: DeviceEnv, agent: Agent, learner: TrainState, episodes: int, gamma: Array | float
) -> _Episodes:
    reset_keys, step_keys = evaluation_keys(episodes)
    env_state, obs = jax.vmap(env.reset)(reset_keys)

    def value(kept: Kept, obs: Array, first: bool) -> Array:
        return jax.vmap(agent.value, (None, 0))(learner, recall(kept, obs, jnp.full(episodes, first)))

    kept, zeros = init_kept(agent.memory, episodes, env.spec.action_size), jnp.zeros(episodes)
    predicted = value(kept, obs, True)

    def step(t: Array, trial: _Trial) -> _Trial:
        seen = recall(trial.kept, trial.obs, jnp.full(episodes, t == 0))
        action = jax.vmap(agent.policy, (None, 0))(learner, seen)
        keys = jax.vmap(jax.random.fold_in, (0, None))(step_keys, t)
        env_state, step = jax.vmap(env.step)(trial.env_state, action, keys)
        reward = jnp.where(trial.active, step.reward, jnp.zeros_like(step.reward))
        discount = trial.discount * gamma
        cut = trial.active & step.truncated & ~step.terminated
        return _Trial(
            env_state,
            step.obs,
            trial.active & ~(step.terminated | step.truncated),
            jax.vmap(select)(trial.active, step.next_obs, trial.last),
            jnp.where(cut, discount, trial.rest),
            discount,
            trial.returns + reward,
            trial.lengths + trial.active.astype(jnp.int32),
            trial.discounted + trial.discount * reward,
            jax.vmap(select)(trial.active, remember(agent, learner, seen, action, step.reward), trial.kept),
        )

    active, lengths = jnp.ones(episodes, bool), zeros.astype(jnp.int32)
    start = _Trial(env_state, obs, active, obs, zeros, jnp.ones(()), zeros, lengths, zeros, kept)

    def judge(end: _Trial) -> Evaluation:
        rest = end.rest * value(end.kept, end.last, False)
        return Evaluation(end.returns, end.lengths, end.discounted + rest, predicted)

    return start, step, judge


def fetch(compute: Callable[[], Tree], stop: StopFn = never_stop) -> Tree:
    """What a program comes to, as NumPy arrays; it runs in a thread, as a call may not return before it is done.

    So Ctrl-C is heard meanwhile, too. What the program is traced and compiled with is the thread's: compile it before.

    Raises:
      Interrupted: `stop` said so before; the program runs on to its end, and nobody waits for it.
    """
    found, failed = list[Tree](), list[BaseException]()

    def run() -> None:
        try:
            found.append(jax.device_get(compute()))
        except BaseException as error:  # raised below
            failed.append(error)

    thread, waited = threading.Thread(target=run, daemon=True), False
    while not waited or thread.is_alive():
        if stop():
            raise Interrupted("interrupted while the policies were evaluated")
        if not waited:
            thread.start()
        thread.join(LOOK_SECONDS)
        waited = True
    if failed:
        raise failed[0]
    return found[0]
