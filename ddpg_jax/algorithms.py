"""Algorithms as configurations of one learner: each is about 15 lines over the slots of the assembly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from math import prod
from typing import TYPE_CHECKING, Any

import jax
import optax

from ddpg_jax.agents import networks, noise
from ddpg_jax.agents.heads import scalar
from ddpg_jax.agents.policy_gradient import policy_gradient, polyak
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import Agent, EnvSpec, Network, Noise, Params

if TYPE_CHECKING:
    from ddpg_jax.config import AlgorithmConfig, Config, ExplorationConfig


def make_agent(config: Config, spec: EnvSpec) -> Agent:
    """The agent of a configuration, for environments of the given kind.

    Raises:
      EnvironmentFault: the observations are not vectors.
    """
    if len(spec.obs_shape) != 1:
        raise EnvironmentFault(
            f"observations of shape {spec.obs_shape} are not vectors: algorithm.name={config.algorithm.name!r} learns "
            f"from vectors only; flatten them with gymnasium.wrappers.FlattenObservation"
        )
    agent = _ALGORITHMS[config.algorithm.name](config.algorithm, make_noise(config.exploration, spec), spec)
    return with_precision(agent, config.precision)


def with_precision(agent: Agent, precision: str) -> Agent:
    """The same agent with matrix products of the given precision; some accelerators default to less than float32."""

    def under(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            with jax.default_matmul_precision(precision):
                return function(*arguments)

        return call

    return agent._replace(act=under(agent.act), policy=under(agent.policy), update=under(agent.update))


def ddpg(config: AlgorithmConfig, exploration: Noise, spec: EnvSpec) -> Agent:
    """Deep deterministic policy gradient (Lillicrap et al., arXiv:1509.02971, Algorithm 1)."""
    actor, critic = _mlps(config, spec)
    return policy_gradient(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 1)),
        head=scalar(),
        noise=exploration,
        optimizers=_optimizers(config),
        follow=polyak(config.tau),
    )


_ALGORITHMS = {"ddpg": ddpg}


def make_noise(config: ExplorationConfig, spec: EnvSpec) -> Noise:
    """The exploration noise of a configuration."""
    return _NOISES[config.kind](config, spec.action_size)


_NOISES = {
    "none": lambda config, size: noise.zero(size),
    "gaussian": lambda config, size: noise.gaussian(size, config.sigma),
    "ou": lambda config, size: noise.ornstein_uhlenbeck(size, config.theta, config.sigma, config.dt),
}


def _mlps(config: AlgorithmConfig, spec: EnvSpec) -> tuple[Network, Network]:
    actor, critic = (
        partial(make, activation=config.activation, initializer=config.initializer, final_scale=config.final_scale)
        for make in (networks.mlp_actor, networks.mlp_critic)
    )
    sizes = prod(spec.obs_shape), spec.action_size, config.hidden
    return actor(*sizes), critic(*sizes, action_layer=config.action_layer)


def _optimizers(config: AlgorithmConfig) -> Params:
    """Adam, with the gradient clipped by its global norm first, and weight decay for the critic.

    Narrow networks are updated as one vector, which saves a tenth of an update at 64-64; wide ones leaf by leaf, as the
    copies would cost a twentieth at 256-256.
    """
    join = optax.flatten if config.narrow else lambda optimizer: optimizer
    clip = optax.identity() if config.max_grad_norm is None else optax.clip_by_global_norm(config.max_grad_norm)
    decay = optax.add_decayed_weights(config.critic_weight_decay)
    rate = optax.scale_by_learning_rate(config.critic_learning_rate)
    critic = {
        "none": (optax.scale_by_adam(), rate),
        "l2": (decay, optax.scale_by_adam(), rate),
        "decoupled": (optax.scale_by_adam(), decay, rate),
    }[config.weight_decay]
    return Params(
        encoder=optax.set_to_zero(),
        actor=join(optax.chain(clip, optax.adam(config.actor_learning_rate))),
        critic=join(optax.chain(clip, *critic)),
    )
