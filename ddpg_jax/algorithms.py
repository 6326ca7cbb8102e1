"""Algorithms as configurations of one learner: each is about 15 lines over the slots of the assembly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from math import prod
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import optax

from ddpg_jax.agents import heads, networks, noise
from ddpg_jax.agents.policy_gradient import policy_gradient, polyak, smoothed
from ddpg_jax.errors import EnvironmentFault
from ddpg_jax.types import Agent, EnvSpec, Network, Noise, Params

if TYPE_CHECKING:
    from ddpg_jax.config import Config
    from ddpg_jax.sections import AlgorithmConfig, D4PGConfig, ExplorationConfig, TD3Config


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

    acting = {"act": under(agent.act), "policy": under(agent.policy)}
    return agent._replace(**acting, update=under(agent.update), value=under(agent.value))


def ddpg(config: Config, exploration: Noise, spec: EnvSpec) -> Agent:
    """Deep deterministic policy gradient (Lillicrap et al., arXiv:1509.02971, Algorithm 1)."""
    algorithm = config.algorithm
    actor, critic = _mlps(config, spec)
    return policy_gradient(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 1)),
        head=heads.scalar(),
        noise=exploration,
        optimizers=_optimizers(algorithm),
        follow=polyak(algorithm.tau),
    )


def td3(config: Config, exploration: Noise, spec: EnvSpec) -> Agent:
    """Twin delayed DDPG (Fujimoto et al., arXiv:1802.09477, Algorithm 1), with any number of critics."""
    algorithm = cast("TD3Config", config.algorithm)
    actor, critic = _mlps(config, spec)
    return policy_gradient(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, algorithm.num_critics)),
        head=heads.scalar(_REDUCE[algorithm.bootstrap], _REDUCE[algorithm.ascend], _chosen(algorithm)),
        noise=exploration,
        optimizers=_optimizers(algorithm),
        follow=polyak(algorithm.tau),
        next_action=smoothed(algorithm.target_noise, algorithm.target_noise_clip),
        policy_delay=algorithm.policy_delay,
    )


def d4pg(config: Config, exploration: Noise, spec: EnvSpec) -> Agent:
    """Distributional DDPG of one actor (Barth-Maron et al., arXiv:1804.08617, Algorithm 1); n belongs to the replay."""
    algorithm = cast("D4PGConfig", config.algorithm)
    actor, critic = _mlps(config, spec, outputs=algorithm.num_atoms)
    return policy_gradient(
        networks=Params(networks.identity(), actor, networks.ensemble(critic, 1)),
        head=heads.categorical(jnp.linspace(algorithm.v_min, algorithm.v_max, algorithm.num_atoms)),
        noise=exploration,
        optimizers=_optimizers(algorithm),
        follow=polyak(algorithm.tau),
    )


_ALGORITHMS = {"ddpg": ddpg, "td3": td3, "d4pg": d4pg}

_REDUCE: dict[str, heads.ReduceFn] = {"min": jnp.min, "mean": jnp.mean, "first": heads.first}


def _chosen(algorithm: TD3Config) -> heads.ChooseFn:
    return heads.every if algorithm.target_subset is None else heads.random_subset(algorithm.target_subset)


def make_noise(config: ExplorationConfig, spec: EnvSpec) -> Noise:
    """The exploration noise of a configuration."""
    return _NOISES[config.kind](config, spec.action_size)


_NOISES = {
    "none": lambda config, size: noise.zero(size),
    "gaussian": lambda config, size: noise.gaussian(size, config.sigma),
    "ou": lambda config, size: noise.ornstein_uhlenbeck(size, config.theta, config.sigma, config.dt),
}


def _mlps(config: Config, spec: EnvSpec, outputs: int = 1) -> tuple[Network, Network]:
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
    return actor(*sizes), critic(*sizes, action_layer=algorithm.action_layer, outputs=outputs)


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
