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
    return in_float32(_ALGORITHMS[config.algorithm.name](config, make_noise(config.exploration, spec), spec))


def in_float32(agent: Agent) -> Agent:
    """The same agent with full products of float32 factors, for which some accelerators take less by default."""

    def under(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            with jax.default_matmul_precision("float32"):
                return function(*arguments)

        return call

    return agent._replace(act=under(agent.act), policy=under(agent.policy), update=under(agent.update))


def ddpg(config: Config, exploration: Noise, spec: EnvSpec) -> Agent:
    """Deep deterministic policy gradient (Lillicrap et al., arXiv:1509.02971, Algorithm 1)."""
    actor, critic = _mlps(config, spec)
    return policy_gradient(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 1)),
        head=scalar(),
        noise=exploration,
        optimizers=_optimizers(config.algorithm),
        follow=polyak(config.algorithm.tau),
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


def _mlps(config: Config, spec: EnvSpec) -> tuple[Network, Network]:
    algorithm = config.algorithm
    actor, critic = (
        partial(
            make,
            activation=algorithm.activation,
            initializer=algorithm.initializer,
            final_scale=algorithm.final_scale,
            precision=config.precision,
        )
        for make in (networks.mlp_actor, networks.mlp_critic)
    )
    sizes = prod(spec.obs_shape), spec.action_size, algorithm.hidden
    return actor(*sizes), critic(*sizes, action_layer=algorithm.action_layer)


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
