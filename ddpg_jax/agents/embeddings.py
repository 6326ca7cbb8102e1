"""The assembly with learned embeddings: `policy_gradient` whose networks see them beside observations and actions.

An agent is `with_embeddings(...)` of what would make it by `policy_gradient(...)`. The encoder takes a state to an
embedding, and that with an action to one of both, which learns to foretell the embedding of the successor. It learns
by that loss alone; actor and critics see the embeddings of a copy that stands still between two copies of everything:

    learned     by the auxiliary loss
    fixed       what actor and critics see; acts
    target      what their targets see: the fixed one before the last copy

Every few updates all targets become copies of what they are the target of, the fixed encoder one of the learned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpg_jax.agents.networks import stateless
from ddpg_jax.agents.policy_gradient import policy_gradient
from ddpg_jax.agents.slots import AuxiliaryFn, Network, StateFn
from ddpg_jax.agents.targets import seen_range
from ddpg_jax.equations.polyak import soft_update
from ddpg_jax.types import Agent, Array, Params, Stats, TrainState, Transition, Tree


class EmbeddingSettings(NamedTuple):
    """What learns the embeddings, and when they are taken over.

    Attributes:
      state: network `(obs [O]) -> [Z]`.
      pair: network `(state embedding [Z], action [A]) -> [Z]`, without moments, as the other.
      every: updates between two copies of everything; a multiple of the policy's delay.
      tau: how much of it is taken over, `[]`; 1 copies.
    """

    state: Network
    pair: Network
    every: int
    tau: Array | float = 1.0


class Embedded(NamedTuple):
    """What the networks see in the place of an observation.

    Attributes:
      obs: the observation, `[O]`.
      state: its embedding, `[Z]`.
      encoder: parameters of the encoder that made it, for the embedding of an action beside it.
    """

    obs: Array
    state: Array
    encoder: Tree


def with_embeddings(settings: EmbeddingSettings, *, networks: Params, **slots: Any) -> Agent:
    """Assembles an agent that learns embeddings, of one seed.

    Args:
      settings: of the embeddings.
      networks: actor `(obs [O], state embedding [Z]) -> action [A]` and critics `(obs [O], action [A], both embeddings
        [2Z]) -> [M, 1]`. The encoder is replaced.
      **slots: the others, as in `policy_gradient`; targets follow by copies alone.

    References:
      Fujimoto et al., "For SALE: state-action representation learning for deep reinforcement learning"
      (arXiv:2306.02451).
    """
    return policy_gradient(
        networks=Params(
            _encoder(settings),
            over(networks.actor, lambda seen: (seen.obs, seen.state)),
            over(networks.critic, lambda seen, action: (seen.obs, action, _both(settings, seen, action))),
        ),
        target_range=seen_range(),
        auxiliary=foretell(settings),
        after_round=copy_everything(settings.every, settings.tau, _refresh_range),
        **slots,
    )


def foretell(settings: EmbeddingSettings) -> AuxiliaryFn:
    """What the encoder learns: the embedding of state and action is that of the successor, by mean square.

    References:
      Fujimoto et al. (arXiv:2306.02451), eq. 2.
    """

    def losses(encoder: Tree, transition: Transition) -> dict[str, Array]:
        learned = encoder["learned"]
        after = jax.lax.stop_gradient(settings.state.apply(learned["state"], (), transition.next_obs))
        before = settings.state.apply(learned["state"], (), transition.obs)
        foretold = settings.pair.apply(learned["pair"], (), before, transition.action)
        return {"encoder_loss": jnp.mean(jnp.square(foretold - after))}

    return losses


def copy_everything(every: int, tau: Array | float, renew_stats: Callable[[Stats], Stats]) -> StateFn:
    """Targets, the fixed encoder and what is known of targets are renewed after every few updates.

    Args:
      every: updates between two copies.
      tau: how much is taken over, `[]`.
      renew_stats: what becomes of the moments then.
    """

    def renew(state: TrainState) -> TrainState:
        now = state.step % every == 0
        encoder = state.params.encoder
        targets = soft_update(state.params, state.target_params, tau)  # of the fixed encoder as it was
        learned = {name: encoder["learned"][name] for name in encoder["fixed"]}
        fixed = soft_update(learned, encoder["fixed"], tau)
        new = state._replace(
            params=state.params._replace(encoder=encoder | {"fixed": fixed}),
            target_params=targets,
            stats=renew_stats(state.stats),
        )
        return jax.tree.map(lambda a, b: jnp.where(now, a, b), new, state)

    return renew


def _refresh_range(stats: Stats) -> Stats:
    return stats._replace(targets=stats.targets.refresh())


def _encoder(settings: EmbeddingSettings) -> Network:
    """The encoder of an observation, by its fixed parameters, which no gradient reaches."""

    def init(key: Array) -> Tree:
        of_state, of_pair = jax.random.split(key)
        learned = {"state": settings.state.init(of_state), "pair": settings.pair.init(of_pair)}
        return {"learned": learned, "fixed": jax.tree.map(jnp.copy, learned)}

    def encode(params: Tree, obs: Array) -> Embedded:
        fixed = jax.lax.stop_gradient(params["fixed"])
        return Embedded(obs, settings.state.apply(fixed["state"], (), obs), fixed)

    return stateless(init, encode)


def _both(settings: EmbeddingSettings, seen: Embedded, action: Array) -> Array:
    """The embedding of state and action, and that of the state, `[2Z]`."""
    return jnp.concatenate([settings.pair.apply(seen.encoder["pair"], (), seen.state, action), seen.state])


def over(network: Network, inputs: Callable[..., tuple[Array, ...]]) -> Network:
    """A network of what is made of other inputs."""

    def of_those(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda params, moments, *given: function(params, moments, *inputs(*given))

    return network._replace(apply=of_those(network.apply), learn=of_those(network.learn))
