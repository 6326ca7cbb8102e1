"""The assembly with embeddings that foretell several steps: `policy_gradient` over windows in the place of transitions.

As in `embeddings`, an encoder learns by a loss of its own, and actor and critics see a copy of it that stands still
between two copies of everything. But they see nothing besides: the actor the embedding of the state, the critics that
of state and action. And what teaches it is a model of the environment, linear in the latter embedding, which is asked
again of what it said itself, for some steps on from the first of a window:

    reward      of each step, as a distribution
    next        the embedding of the successor by the fixed encoder
    done        whether the episode terminates
    contrast    which of the successors of the batch is one's own

The fixed encoder of one period is what the learned one was at its end, and its target that of the period before. So the
encoder has made as many steps between two copies as if they had all been made at once, after the copy.

Rewards, as the critics see them, are divided by a scale that stands still likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.agents import normalizers as normalize
from ddpg_jax.agents.embeddings import copy_everything, over
from ddpg_jax.agents.networks import stateless
from ddpg_jax.agents.policy_gradient import policy_gradient
from ddpg_jax.agents.rewards import keeping_scale
from ddpg_jax.agents.slots import AuxiliaryFn, Network, Normalizer, TargetRange
from ddpg_jax.equations.distributional import cross_entropy, two_hot
from ddpg_jax.equations.embeddings import contrast
from ddpg_jax.types import BATCH, Agent, Array, Batch, Metrics, Params, Stats, TrainState, Transition, Tree, Window


class LossWeights(NamedTuple):
    """What counts how much in the loss of the encoder; 0 leaves a part out.

    Attributes:
      reward: of the cross-entropy of rewards.
      next: of the mean square of what is said of the next embedding.
      done: of the square of what is said of the end.
      contrast: of the cross-entropy of telling the successor from those of the batch.
    """

    reward: float = 0.1
    next: float = 1.0
    done: float = 0.1
    contrast: float = 0.0


class UnrollSettings(NamedTuple):
    """What learns the embeddings, by what, and when they are taken over.

    Attributes:
      state: network `(obs [O]) -> [Z]`.
      pair: network `(state embedding [Z], action [A]) -> [Y]`, without moments, as the others.
      model: network `(pair embedding [Y]) -> [Z + 1 + N]`: the next embedding, whether it is the last, and logits of
        the reward.
      rewards: that the model gives probabilities to, rising, `[N]`.
      horizon: steps that are foretold, H.
      every: updates between two copies of everything; a multiple of the policy's delay.
      tau: how much of it is taken over, `[]`; 1 copies.
      weights: of the parts of the loss.
      temperature: that the cosines of the contrast are divided by.
    """

    state: Network
    pair: Network
    model: Network
    rewards: Array
    horizon: int
    every: int
    tau: Array | float = 1.0
    weights: LossWeights = LossWeights()
    temperature: float = 0.1


class Embedding(NamedTuple):
    """What the networks see in the place of an observation.

    Attributes:
      state: its embedding, `[Z]`.
      encoder: parameters of the encoder that made it, for the embedding of an action beside it.
    """

    state: Array
    encoder: Tree


class Ahead(NamedTuple):
    """The successors of the steps of a window.

    Attributes:
      obs: `[N, O]`.
      last: the one that the target of the first step asks for the value of, int32 `[]`.
    """

    obs: Array
    last: Array


class Steps(NamedTuple):
    """The first steps of a window, as far as they are foretold.

    Attributes:
      action: `[H, A]`.
      reward: of each step alone, `[H]`.
      done: whether the episode terminates with it, `[H]`.
      known: whether it is of the episode of the first step, `[H]`.
    """

    action: Array
    reward: Array
    done: Array
    known: Array


def with_unrolled_embeddings(
    settings: UnrollSettings, *, networks: Params, normalizer: Normalizer = normalize.UNCHANGED, **slots: Any
) -> Agent:
    """Assembles an agent that learns embeddings by foretelling, of one seed.

    Args:
      settings: of the embeddings.
      networks: actor `(state embedding [Z]) -> action [A]` and critics `(pair embedding [Y]) -> [M, 1]`. The encoder is
        replaced.
      normalizer: of the observations.
      **slots: the others, as in `policy_gradient`; targets follow by copies alone.

    Returns:
      The agent, whose batches are of windows of at least H steps. It has a scale of rewards in `stats.reward`, which
      starts at 1, and the loop sets it; it is taken over with the copies, and before the first update.

    References:
      Fujimoto et al., "Towards general-purpose model-free reinforcement learning" (arXiv:2501.16142).
    """
    agent = policy_gradient(
        networks=Params(
            _encoder(settings),
            over(networks.actor, lambda seen: (seen.state,)),
            over(networks.critic, lambda seen, action: (_pair(settings, seen, action),)),
        ),
        normalizer=_over_ahead(normalizer),
        target_range=in_units(),
        auxiliary=foretell_steps(settings),
        after_round=copy_everything(settings.every, settings.tau, take_over),
        **slots,
    )

    def update(state: TrainState, batches: Batch, run_key: Array) -> tuple[TrainState, Metrics, Array]:
        units = begin_units(state.stats)
        state = state._replace(stats=state.stats._replace(targets=units))
        return agent.update(state, _views(settings, batches), run_key)

    def diagnose(state: TrainState, batch: Batch) -> Metrics:
        return agent.diagnose(state, _views(settings, batch))

    def value(state: TrainState, obs: Array) -> Array:
        return agent.value(state, obs) * begin_units(state.stats).now

    return keeping_scale(agent)._replace(update=update, diagnose=diagnose, value=value)


def foretell_steps(settings: UnrollSettings) -> AuxiliaryFn:
    """What the encoder learns: the sum over steps of what the model says of them, until the episode ends.

    References:
      Fujimoto et al. (arXiv:2501.16142), the loss of the encoder; for the contrast van den Oord et al.,
      "Representation learning with contrastive predictive coding" (arXiv:1807.03748), eq. 4.
    """
    counted = {name: weight for name, weight in settings.weights._asdict().items() if weight}

    def losses(encoder: Tree, transition: Transition) -> dict[str, Array]:
        learned, fixed, steps = encoder["learned"], encoder["fixed"], transition.extras

        def embed(obs: Array) -> Array:
            return jax.lax.stop_gradient(settings.state.apply(fixed["state"], (), obs))

        def step(state: Array, action: Array) -> tuple[Array, Array]:
            pair = settings.pair.apply(learned["pair"], (), state, action)
            said = settings.model.apply(learned["model"], (), pair)
            return said[: state.shape[0]], said

        def compare(said: Array, after: Array, given: Steps) -> dict[str, Array]:
            size = after.shape[0]
            state, done, logits = said[:size], said[size], said[size + 1 :]
            parts = {
                "reward": lambda: cross_entropy(two_hot(settings.rewards, given.reward), logits),
                "next": lambda: jnp.mean(jnp.square(state - after)),
                "done": lambda: jnp.square(done - given.done),
                "contrast": lambda: contrast(state, after, settings.temperature, BATCH),
            }
            return {f"{name}_loss": weight * given.known * parts[name]() for name, weight in counted.items()}

        begin = settings.state.apply(learned["state"], (), transition.obs)
        _, said = jax.lax.scan(step, begin, steps.action, unroll=True)
        after = jax.vmap(embed)(transition.next_obs.obs[: settings.horizon])
        return jax.tree.map(jnp.sum, jax.vmap(compare)(said, after, steps))

    return losses


class Units(NamedTuple):
    """In which units the critics' values are, each `[]`.

    Attributes:
      now: what rewards are divided by; 0: nothing has been learned yet.
      before: likewise, of the target critics.
    """

    now: Array
    before: Array


def in_units() -> TargetRange:
    """Targets of rewards divided by a scale that stands still between copies, by values in the units of before.

    References:
      Fujimoto et al. (arXiv:2501.16142), the scale of rewards in the loss of the critics.
    """
    return TargetRange(
        init=lambda: Units(jnp.zeros(()), jnp.zeros(())),
        observe=lambda units, y: units,
        clip=lambda units, next_outputs: next_outputs * (units.before / units.now),
        reward=lambda units, reward: reward / units.now,
    )


def begin_units(stats: Stats) -> Units:
    """The units of now; before the first update those that the loop knows of."""
    units: Units = stats.targets
    return jax.tree.map(lambda unit: jnp.where(unit > 0, unit, stats.reward), units)


def take_over(stats: Stats) -> Stats:
    """The scale of rewards is that of the loop, and that of the targets what it was."""
    return stats._replace(targets=Units(now=stats.reward, before=stats.targets.now))


def _encoder(settings: UnrollSettings) -> Network:
    """The encoder of an observation, or of the one ahead, by its fixed parameters, which no gradient reaches."""

    def init(key: Array) -> Tree:
        names = ("state", "pair", "model")
        keys = zip(names, jax.random.split(key, len(names)), strict=True)
        learned = {name: getattr(settings, name).init(of_this) for name, of_this in keys}
        fixed = {name: learned[name] for name in ("state", "pair")}
        return {"learned": learned, "fixed": jax.tree.map(jnp.copy, fixed)}

    def encode(params: Tree, obs: Array | Ahead) -> Embedding:
        fixed = jax.lax.stop_gradient(params["fixed"])
        obs = obs.obs[obs.last] if isinstance(obs, Ahead) else obs
        return Embedding(settings.state.apply(fixed["state"], (), obs), fixed)

    return stateless(init, encode)


def _pair(settings: UnrollSettings, seen: Embedding, action: Array) -> Array:
    """The embedding of state and action, `[Y]`."""
    return settings.pair.apply(seen.encoder["pair"], (), seen.state, action)


def _over_ahead(normalizer: Normalizer) -> Normalizer:
    """Normalises one observation, or all that lie ahead."""

    def apply(moments: Tree, obs: Any) -> Any:
        if not isinstance(obs, Ahead):
            return normalizer.apply(moments, obs)
        each: Callable[[Array], Array] = jax.vmap(lambda one: normalizer.apply(moments, one))
        return obs._replace(obs=each(obs.obs))

    return normalizer._replace(apply=apply)


def _views(settings: UnrollSettings, batch: Batch) -> Batch:
    """Windows as the transitions that begin them, with what is foretold as extras."""
    view: Callable[[Transition], Transition] = partial(_view, settings.horizon)
    for _ in range(batch.weight.ndim):
        view = jax.vmap(view)
    return batch._replace(data=view(batch.data))


def _view(horizon: int, data: Transition) -> Transition:
    """Of one window; a step terminates where its own transition is of one step and has no successor to bootstrap on."""
    window: Window = data.obs
    alone = window.last[:horizon] == jnp.arange(horizon)
    later = jnp.arange(horizon) > 0
    known = jnp.cumsum(window.first[:horizon] & later) == 0
    steps = Steps(
        window.action[:horizon],
        window.reward[:horizon],
        (alone & (data.discount[:horizon] == 0)).astype(jnp.float32),
        known.astype(jnp.float32),
    )
    ahead: Any = Ahead(window.next_obs, window.last[0])
    return Transition(window.obs[0], data.action[0], data.reward[0], data.discount[0], ahead, steps)
